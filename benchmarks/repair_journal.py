"""Repair of scattered damage where the journal knows what changed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import repair
from benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from benchmarks.stage import Stage

SHARES: Final = {
    "repair-journal-0.01": (0.0001, 0.05, 0.02),
    "repair-journal-1": (0.01, 0.20, 0.12),
    "repair-journal-10": (0.10, 0.9, 0.6),
}
"""Share of the rows, target and stretch by id."""


def run(name: str, stage: Stage) -> tuple[Outcome, ...]:
    share, target, stretch = SHARES[name]
    return (repair.measure(stage, name, share=share, source="journal", target=target, stretch=stretch),)


ALL: Final = {name: partial(run, name) for name in SHARES}
