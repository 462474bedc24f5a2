"""Values of this room: findings of detectors, suite results, diagnoses, agreement."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One rule broken by recent changes. ``keys`` are key tuples (text) of violating rows in ``table``, at most
    ``KEYS_PER_FINDING``; ``rows`` is the full count. ``confirmed`` when it passed the rule's own minimum."""

    detector: str
    kind: str
    table: str
    rows: int
    keys: tuple[tuple[str, ...], ...]
    message: str
    confirmed: bool
    contain: bool
    severity: str
    at: datetime
    columns: tuple[str, ...] = ()
    """Only writes that changed one of these can be the cause; all of them when empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectationResult:
    suite: str
    table: str
    expectation: str
    success: bool
    unexpected: int | None = None
    keys: tuple[tuple[str, ...], ...] = ()
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteReport:
    passed: bool
    ran: int
    failed: tuple[ExpectationResult, ...]
    seconds: float
    snapshot: str | None
    """The exported snapshot the suites ran on, or ``None`` for live data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRun:
    """A run whose writes are to be undone. ``why``: ``bad-version``, ``version-unknown`` (it may have used it),
    ``interrupted``, ``entangled``.
    ``replay`` is the event to send again through the good version, ``None`` when there is none."""

    workflow: str
    run_id: str
    state: str
    version_hash: str | None
    started_at: datetime | None
    why: str
    attribution: str
    xids: tuple[int, ...]
    event_key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What went wrong and how sure we are. ``evidence`` lines are sentences with their numbers."""

    app: str
    workflow: str
    bad_version: str
    good_version: str
    published_at: datetime | None
    first_bad_at: datetime
    """Journal time of the first write of a bad run, by the database's clock."""
    first_bad_xid: int
    bad_runs: tuple[BadRun, ...]
    point_id: str | None
    """The newest verified point before the first bad commit whose logic holds ``good_version``."""
    confidence: float
    """Share of violating rows that the bad version explains, lowered by violations it does not explain."""
    evidence: tuple[str, ...]
    unattributed: tuple[dict[str, Any], ...] = field(default=())
    """Writes of the window by contained roles that no run explains surely; never undone in silence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clause:
    """One named clause of the agreement between logic and data. ``next``: what to do when it does not hold."""

    name: str
    holds: bool
    detail: str
    next: str = ""
