"""The commands of `reinstate`, walked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from console.main import app


def all_commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its words: ``journal install``; a group that does so bare, too."""
    yield from _walk("", typer.main.get_command(app))


def _walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None or getattr(command, "invoke_without_command", False):
        yield words, command
    if inner is None:
        return
    for name, found in inner.items():
        yield from _walk(f"{words} {name}".strip(), found)


COMMANDS = dict(all_commands())
