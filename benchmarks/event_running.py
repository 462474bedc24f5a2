"""How soon after its event a recovery is at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from benchmarks.stage import Stage

ID: Final = "event-running"
TARGET_S: Final = 8.0


def run(stage: Stage) -> tuple[Outcome, ...]:
    found = Outcome(
        id=ID,
        target=TARGET_S,
        seconds=tuple(r.running_s for r in stage.rounds()),
        how="from the time of the event that announces a contained incident to the first Running state of the "
        "`recover` run it starts, by the Prefect server's records, the order desk under orders",
    )
    return (found,)
