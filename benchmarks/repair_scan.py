"""Repair of scattered damage without a journal: what changed is found by looking at the rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import repair
from benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from benchmarks.stage import Stage

SHARES: Final = {
    "repair-scan-0.01": (0.0001, 0.45, 0.3),
    "repair-scan-1": (0.01, 0.6, 0.45),
    "repair-scan-10": (0.10, 1.1, 0.9),
}
"""Share of the rows, target and stretch by id."""


def run(name: str, stage: Stage) -> tuple[Outcome, ...]:
    share, target, stretch = SHARES[name]
    return (repair.measure(stage, name, share=share, source="scan", target=target, stretch=stretch),)


ALL: Final = {name: partial(run, name) for name in SHARES}
