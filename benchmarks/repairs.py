"""Repair of scattered damage, where the journal knows what changed and where it is found by looking at the rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from benchmarks import repair
from benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from benchmarks.stage import Stage

GOALS: Final[dict[str, tuple[Literal["journal", "scan"], float, float, float]]] = {
    "repair-journal-0.01": ("journal", 0.0001, 0.05, 0.02),
    "repair-journal-1": ("journal", 0.01, 0.20, 0.12),
    "repair-journal-10": ("journal", 0.10, 0.9, 0.6),
    "repair-scan-0.01": ("scan", 0.0001, 0.45, 0.3),
    "repair-scan-1": ("scan", 0.01, 0.6, 0.45),
    "repair-scan-10": ("scan", 0.10, 1.1, 0.9),
}
"""Source, share of the rows, target and stretch by id."""


def run(name: str, stage: Stage) -> tuple[Outcome, ...]:
    source, share, target, stretch = GOALS[name]
    return (repair.measure(stage, name, share=share, source=source, target=target, stretch=stretch),)


ALL: Final = {name: partial(run, name) for name in GOALS}
