"""One entry of the ledger and how it is hashed. Pure: no database, no files, no clock.

An entry's hash is the SHA-256 of the canonical JSON (RFC 8259; keys sorted, no spaces, ASCII only) of all its other
fields, the hash of the entry before it included. The first entry follows the *genesis*, a hash of the ledger's own
random id, so that a stretch of one ledger cannot pass for a stretch of another.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from ledger.errors import Damaged, Refused

MAX_BODY_BYTES = 8 * 1024 * 1024
"""A body is a record, not a store: larger things belong beside the ledger, with their hash in the body."""

NAME_CHARS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """What a caller wants recorded; the ledger adds number, time and links."""

    kind: str
    app: str
    incident: str | None = None
    recovery: str | None = None
    step: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One recorded fact. ``at`` is UTC; ``seq`` counts from 1 without holes; hashes are 64 hex digits."""

    seq: int
    at: datetime
    kind: str
    app: str
    incident: str | None
    recovery: str | None
    step: str | None
    body: dict[str, Any]
    prev_hash: str
    hash: str


class Stored(NamedTuple):
    """An entry exactly as the database holds it: times and bodies as text, nothing interpreted yet."""

    seq: int
    at: str
    kind: str
    app: str
    incident: str | None
    recovery: str | None
    step: str | None
    body: str
    prev_hash: str
    hash: str


def genesis(ledger_id: str) -> str:
    """The hash that the first entry of this ledger links to."""
    return hashlib.sha256(f"reinstate ledger {ledger_id}".encode()).hexdigest()


def canonical(value: Any) -> str:
    """The one JSON text of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(stored: Stored) -> str:
    """The hash ``stored`` should carry, from its other fields. Raises ``ValueError`` when the body is not JSON."""
    fields = stored._asdict()
    del fields["hash"]
    fields["body"] = json.loads(stored.body)
    return hashlib.sha256(canonical(fields).encode()).hexdigest()


def seal(draft: Draft, *, seq: int, at: datetime, prev_hash: str) -> Stored:
    """Number, date and link ``draft``. Its body must be plain JSON already (:func:`plain`).

    Raises ``Refused`` when a name is empty, too long or not printable, or the body is too large."""
    for what in ("kind", "app", "incident", "recovery", "step"):
        name = getattr(draft, what)
        if name is None and what not in ("kind", "app"):
            continue
        if not isinstance(name, str) or not name or len(name) > NAME_CHARS or not name.isprintable():
            raise Refused(f"ledger: the {what} of an entry must be 1 to {NAME_CHARS} printable characters; correct it")
    body = canonical(draft.body)
    if len(body) > MAX_BODY_BYTES:
        raise Refused(
            f"ledger: the body of {draft.kind} has {len(body)} bytes, the limit is {MAX_BODY_BYTES}; "
            "store it elsewhere and record its hash"
        )
    stored = Stored(
        seq=seq,
        at=at.astimezone(UTC).isoformat(timespec="microseconds"),
        kind=draft.kind,
        app=draft.app,
        incident=draft.incident,
        recovery=draft.recovery,
        step=draft.step,
        body=body,
        prev_hash=prev_hash,
        hash="",
    )
    return stored._replace(hash=digest(stored))


def opened(stored: Stored) -> Entry:
    """``stored`` as values. Raises ``Damaged`` when time or body cannot be read."""
    try:
        at = datetime.fromisoformat(stored.at).astimezone(UTC)
        body = json.loads(stored.body)
    except (TypeError, ValueError) as error:
        raise Damaged(f"ledger entry {stored.seq}: unreadable ({error}); verify the ledger before going on") from error
    if not isinstance(body, dict):
        raise Damaged(f"ledger entry {stored.seq}: its body is not an object; verify the ledger before going on")
    return Entry(
        seq=stored.seq,
        at=at,
        kind=stored.kind,
        app=stored.app,
        incident=stored.incident,
        recovery=stored.recovery,
        step=stored.step,
        body=body,
        prev_hash=stored.prev_hash,
        hash=stored.hash,
    )


def plain(value: Any, where: str = "body") -> Any:  # noqa: PLR0911 - one return per kind of value
    """``value`` as plain JSON: dates in ISO 8601, decimals, UUIDs and paths as text, durations in seconds, sets sorted.

    Raises ``Refused`` naming the place of a value that has no such form (NaN, bytes, foreign objects)."""
    if value is None or (isinstance(value, bool | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return plain(value.value, where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Refused(f"ledger: {where} is {value}, which JSON cannot hold; record a number or null")
        return float(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID | PurePath):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), where)
    if isinstance(value, Mapping):
        return _plain_mapping(value, where)
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, AbstractSet):
        return sorted((plain(item, where) for item in value), key=canonical)
    raise Refused(f"ledger: {where} is a {type(value).__name__}, which JSON cannot hold; convert it first")


def _plain_mapping(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = plain(key, where)
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise Refused(f"ledger: {where} has the key {key!r}, which is no name; use text")
        if str(name) in result:
            raise Refused(f"ledger: {where} has the key {name!r} twice; keep one")
        result[str(name)] = plain(item, f"{where}.{name}")
    return result
