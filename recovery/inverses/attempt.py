"""How one attempt at an inverse ended. What follows from it is decided by :mod:`recovery.compensation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from recovery.compensating import Scalar

Given = Mapping[str, Scalar]
"""The values of one inverse, by name."""


class Result(StrEnum):
    DONE = "done"
    NOT_NEEDED = "not-needed"
    """There was nothing (more) to take back."""
    AGAIN = "again"
    """Nothing happened; another attempt may help."""
    LOST = "lost"
    """It may have happened; another attempt with the same key tells, or does it."""
    REFUSED = "refused"
    """Nothing happened; another attempt cannot help."""
    UNKNOWN = "unknown"
    """It may have happened, nobody can be asked, and another attempt could do it twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """``why`` is half a sentence without a value of a run. ``sure``: it was read back that no earlier attempt did it.
    ``wait_s``: how long the other side wants to be left alone. ``facts`` go into the ledger."""

    result: Result
    why: str = ""
    sure: bool = False
    wait_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def text(value: Scalar) -> str:
    """A value as text, as JSON writes it."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
