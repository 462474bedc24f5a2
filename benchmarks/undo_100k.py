"""Undo of a run that wrote 100,000 rows, with later work on some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks import damage, engine, proof, rival_undo
from benchmarks.outcome import Outcome
from benchmarks.race import Lap, race
from benchmarks.site import CAPTURER

if TYPE_CHECKING:
    from benchmarks.base import Base
    from benchmarks.proof import Sums
    from benchmarks.stage import Stage

ID: Final = "undo-100k"
RIVALS: Final = ((rival_undo.EMAJ, 0.4, 0.25), (rival_undo.JSONB, 0.8, 0.5))


def run(stage: Stage) -> tuple[Outcome, ...]:
    base = stage.base(journaled=True)
    rows = written(base)
    wanted = expected(stage, base, rows)
    script, log = rival_undo.emaj_script(), rival_undo.jsonb(stage)
    group = rival_undo.emaj(stage, script) if script else None
    rivals = [
        (lambda: rival_undo.emaj_undo(stage, group, rows, base.sums)) if group else None,
        lambda: rival_undo.jsonb_undo(stage, log, rows, base.sums),
    ]
    ours, theirs = race(stage.laps, lambda: undone(stage, base, rows, wanted), rivals)
    return tuple(
        Outcome(
            id=ID,
            target=target,
            stretch=stretch,
            seconds=tuple(lap.figure for lap in ours),
            rival=rival,
            rival_seconds=tuple(lap.figure for lap in laps),
            scale=stage.scale,
            more={"rows": float(rows), "preview s": sorted(lap.more["preview"] for lap in ours)[len(ours) // 2]},
            how=f"a run wrote {rows:,} rows of four tables, a clerk then edited 1% of them: undo.apply, which keeps "
            "the clerk's work, checks and journals itself; the rivals lose it",
        )
        for (rival, target, stretch), laps in zip(RIVALS, theirs, strict=True)
    )


def written(base: Base) -> int:
    """100,000 rows, or fewer in a small shop."""
    return min(damage.RUN_ROWS, base.rows // 2)


def expected(stage: Stage, base: Base, rows: int) -> Sums:
    """The rows as they must be: the clerk's work alone."""
    with stage.copy(base.db) as db:
        damage.later_work(db, max(1, rows // 100))
        with db.open(CAPTURER) as conn:
            return proof.sums(conn)


def undone(stage: Stage, base: Base, rows: int, wanted: Sums) -> Lap:
    with stage.copy(base.db) as db:
        rival_undo.prepare(db, rows)
        seconds, preview = engine.undo_run(db)
        with db.open(CAPTURER) as conn:
            proof.same(proof.sums(conn), wanted, what=ID)
    return Lap(figure=seconds, more={"preview": preview})
