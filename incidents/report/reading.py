"""Reading bodies of ledger entries that may hold anything, and texts without values of rows. Pure."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "•••"
_VALUES = (
    # PostgreSQL's DETAIL: Key (email)=(a@b.example) already exists.
    (re.compile(r"=\([^)]*\)"), f"=({HIDDEN})"),
    # Failing row contains (1, a@b.example, ...).
    (re.compile(r"contains \(.*?\)(?=[.;,]|$)"), f"contains ({HIDDEN})"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), HIDDEN),
)


def shown(value: object) -> str:
    """A text without what looks like values of rows."""
    text = "" if value is None else " ".join(str(value).split())
    for pattern, replacement in _VALUES:
        text = pattern.sub(replacement, text)
    return text


def items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def dicts(value: object) -> list[dict[str, Any]]:
    return [v for v in items(value) if isinstance(v, dict)]


def size(value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    return len(value) if isinstance(value, list | dict) else 0


def number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
