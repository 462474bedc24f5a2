"""How what is done with the journal grows with the tables, when the number of changed rows stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks import increments, repair, undo_100k
from benchmarks.outcome import Growth
from benchmarks.race import race

if TYPE_CHECKING:
    from benchmarks.base import Base
    from benchmarks.race import Lap, Run
    from benchmarks.stage import Stage

ID: Final = "growth"
PARTS: Final = (4, 2, 1)
"""Table sizes, as divisors of the asked one."""
SHARE: Final = 0.0025
"""Of the largest table's rows; that many are changed at every size."""


def run(stage: Stage) -> tuple[Growth, ...]:
    bases = [stage.base(journaled=True, rows=stage.rows // part) for part in PARTS]
    run_rows = undo_100k.written(bases[0])
    wanted = {base.rows: undo_100k.expected(stage, base, run_rows) for base in bases}

    def undo(base: Base) -> Run:
        return lambda: undo_100k.undone(stage, base, run_rows, wanted[base.rows])

    def repaired(base: Base) -> Run:
        return lambda: repair.repaired(stage, base, SHARE * bases[-1].rows / base.rows, "journal")

    def captured(base: Base) -> Run:
        return lambda: increments.captured(stage, base, "journal", SHARE * bases[-1].rows / base.rows)

    found: list[Growth] = []
    for name, make in (("undo", undo), ("repair-journal", repaired), ("capture-incr-journal", captured)):
        first, others = race(stage.laps, make(bases[0]), [make(base) for base in bases[1:]])
        laps: list[list[Lap]] = [first, *others]
        found += [
            Growth(id=name, rows=base.rows, seconds=tuple(lap.figure for lap in mine))
            for base, mine in zip(bases, laps, strict=True)
        ]
    return tuple(found)
