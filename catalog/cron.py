"""Whether a cron line is well-formed: five fields, as Prefect reads them. Pure."""

from __future__ import annotations

import re
from typing import Final

MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS: Final = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
FIELDS: Final[tuple[tuple[str, int, int, list[str]], ...]] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of the month", 1, 31, []),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 7, DAYS),
)
PART: Final = re.compile(r"^(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?$")


def problem(line: str) -> str | None:
    """What is wrong with ``line``, ``None`` when nothing is. An empty line is well-formed: it means never."""
    if not line.strip():
        return None
    parts = line.split()
    if len(parts) != len(FIELDS):
        return f"{line!r} has {len(parts)} fields instead of {len(FIELDS)}"
    for text, (name, least, most, words) in zip(parts, FIELDS, strict=True):
        for part in text.split(","):
            if not _fits(part, least, most, words):
                return f"{part!r} is no {name} ({least} to {most})"
    return None


def _fits(part: str, least: int, most: int, words: list[str]) -> bool:
    found = PART.match(part)
    if found is None or found["step"] == "0":
        return False
    if found["first"] is None:
        return True
    first = _number(found["first"], least, words)
    last = first if found["last"] is None else _number(found["last"], least, words)
    return first is not None and last is not None and least <= first <= last <= most


def _number(text: str, least: int, words: list[str]) -> int | None:
    if text.isdecimal():
        return int(text)
    return words.index(text.lower()) + least if text.lower() in words else None
