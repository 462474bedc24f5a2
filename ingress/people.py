"""Whether an event names a person: as a value of its own, or inside another text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

from ingress.model import Event


class Mention(StrEnum):
    VALUE = "value"
    """A field, header, parameter, part of the path, or the event's key is the person's value."""
    INSIDE = "inside"
    """The value stands inside another text, where a person must decide what it means."""


def mention(event: Event, value: str) -> Mention | None:
    """How ``event`` names the person of ``value``; ``None`` if it does not. The value is compared exactly."""
    found = None
    for text in (event.key or "", *map(unquote, event.path.split("/")), *_texts(event.input)):
        if text == value:
            return Mention.VALUE
        if value in text:
            found = Mention.INSIDE
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield str(value)
