"""Guesses from names and values: what identifies an event, what is about a person, what counts as a business key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

ENOUGH_EVENTS = 5
"""Fewer events than this prove nothing about a key."""
_DEEPEST = 4
_KEY_NAMES = (
    "event_id", "eventid", "idempotency_key", "idempotency-key", "message_id", "messageid", "request_id", "delivery_id",
    "uuid", "guid", "id",
)  # fmt: skip
_HEADERS = re.compile(r"idempotency|(request|event|delivery|message)[-_]?id|x-github-delivery", re.IGNORECASE)
_PERSONAL = re.compile(
    r"e_?mail|phone|mobile|(first|last|full|middle|given|family|maiden|display|user|contact|customer)_?name|surname"
    r"|address|street|postcode|post_?code|zip|birth|\bdob\b|ssn|passport|iban|\bbic\b|tax_?(id|number)|national_id"
    r"|gender|latitude|longitude|\bip\b|ip_addr|user_?agent|signature|password|secret|token",
    re.IGNORECASE,
)
_PEOPLE = re.compile(
    r"customer|person|people|user|contact|employee|member|patient|student|guest|lead|applicant|subscriber|visitor"
    r"|staff|client|candidate|attendee|driver|tenant|author|buyer|seller",
    re.IGNORECASE,
)
_NAME = re.compile(r"^(name|title|salutation|nick(name)?|remark|note|notes|comment|comments|message|body|text)$")
_SUBJECT = re.compile(r"(^|_)(e_?mail(_address)?|user_?name|phone(_number)?)$", re.IGNORECASE)
_BUSINESS = re.compile(
    r"(^|_)(ref|reference|number|no|nr|num|code|sku|ean|isbn|slug|external_id|invoice|ticket|barcode)$"
    r"|_(ref|number|code)$",
    re.IGNORECASE,
)
_TIME = re.compile(r"(_at|_on|_?time|_?date|timestamp|when)$", re.IGNORECASE)
_CLOCK = re.compile(r"updat|modif|touch|synced|last_", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class EventGuess:
    """Dotted paths into an event, and what speaks against them."""

    key: str | None = None
    time: str | None = None
    doubts: tuple[str, ...] = ()


def event_paths(events: Sequence[Mapping[str, Any]]) -> EventGuess:
    """The key and time of a workflow's events, from inputs of recent runs."""
    if not events:
        return EventGuess(doubts=("no run of it was found, so nothing tells what identifies an event",))
    flat = [dict(_leaves(e)) for e in events]
    common = set.intersection(*(set(f) for f in flat))
    different = [p for p in common if all(_scalar(f[p]) for f in flat) and len({str(f[p]) for f in flat}) == len(flat)]
    ranked = sorted((rank, p) for p in different if (rank := _rank(p, flat[0][p])) is not None)
    doubts = []
    if not ranked:
        doubts.append("no field identifies its events: without a key they are not replayed")
    elif len(events) < ENOUGH_EVENTS:
        doubts.append(f"the key was seen in {len(events)} events only")
    elif ranked[0][0] >= len(_KEY_NAMES):
        doubts.append("its name does not say that it is a key")
    times = [p for p in common if p.startswith("body.") and all(_moment(f[p]) for f in flat)]
    times.sort(key=lambda p: (not _TIME.search(p), p.count("."), p))
    if len(times) > 1:
        doubts.append(f"the event's time may also be {', '.join(times[1:])}")
    return EventGuess(key=ranked[0][1] if ranked else None, time=times[0] if times else None, doubts=tuple(doubts))


def found_in(path: str, event: Mapping[str, Any]) -> bool:
    """Whether ``event`` has a value at a dotted path."""
    value: Any = event
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False
    return value not in (None, "")


def personal(table: str, column: str, *, emails: float = 0.0) -> str | None:
    """Why a column seems to hold personal data; ``None`` when it does not. ``emails``: share of values with an @."""
    if emails > 0.5:
        return "its values are addresses"
    if _PERSONAL.search(column):
        return "its name says so"
    if _NAME.match(column) and about_people(table):
        return "the table is about people"
    return None


def free_text(column: str) -> bool:
    """Whether a name is one of texts that people write as they like."""
    return bool(_NAME.match(column))


def about_people(table: str) -> bool:
    return bool(_PEOPLE.search(table.partition(".")[2]))


def subject(columns: Sequence[str]) -> str | None:
    """The column that names the person a row is about."""
    named = [c for c in columns if _SUBJECT.search(c)]
    return min(named, key=lambda c: ("mail" not in c.lower(), c)) if named else None


def business_key(column: str) -> bool:
    """Whether a name is one that people quote: a number, a code, a reference."""
    return bool(_BUSINESS.search(column))


def is_time(column: str) -> bool:
    """Whether a name says that it is a moment."""
    return bool(_TIME.search(column))


def is_clock(column: str) -> bool:
    """Whether a time column says when the row was last written, not when its business happened."""
    return bool(_CLOCK.search(column))


def key_of(text: str) -> str:
    """A catalogue key from a name: ``Order intake (new)`` gives ``order-intake-new``."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return slug if slug[:1].isalpha() else f"w-{slug}".rstrip("-")


def _leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and depth < _DEEPEST:
        for name, inner in value.items():
            if "." not in str(name) and str(name):
                yield from _leaves(inner, f"{path}.{name}" if path else str(name), depth + 1)
    elif path:
        yield path, value


def _scalar(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""


def _rank(path: str, value: Any) -> int | None:
    """How good a key a path is, lower is better; ``None`` when it is none."""
    part, _, rest = path.partition(".")
    name = rest.rpartition(".")[2].lower()
    if _moment(value):
        return None
    if part == "headers":
        return len(_KEY_NAMES) - 1 if _HEADERS.search(name) else None
    if part not in ("body", "query", "params"):
        return None
    deeper = rest.count(".") * 2
    if name in _KEY_NAMES:
        return _KEY_NAMES.index(name) + deeper
    if name.endswith(("_id", "id", "_key", "key", "reference", "number", "uuid")):
        return len(_KEY_NAMES) + deeper
    looks = isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", value.lower())
    return len(_KEY_NAMES) + 5 + deeper if looks else None


def _moment(value: Any) -> bool:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}", value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
