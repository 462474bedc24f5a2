"""How long wrong data may be written before the pause is proven."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from benchmarks.stage import Stage

ID: Final = "event-contained"
TARGET_S: Final = 3.0


def run(stage: Stage) -> tuple[Outcome, ...]:
    found = Outcome(
        id=ID,
        target=TARGET_S,
        seconds=tuple(r.contained_s for r in stage.rounds()),
        figure="worst",
        how="from just before a wrong row is committed by a workflow's role to the ledger's entry contain.proven, "
        "the order desk under orders, everything under `reinstate up`",
    )
    return (found,)
