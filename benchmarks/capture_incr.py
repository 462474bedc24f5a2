"""Incremental captures: from the journal, and without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks import increments
from benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from benchmarks.stage import Stage

JOURNAL: Final = "capture-incr-journal"
SCAN: Final = "capture-incr-scan"


def by_journal(stage: Stage) -> tuple[Outcome, ...]:
    return (increments.measure(stage, JOURNAL, method="journal", target=0.05, stretch=0.02),)


def by_scan(stage: Stage) -> tuple[Outcome, ...]:
    return (increments.measure(stage, SCAN, method="scan", target=0.25, stretch=0.15),)
