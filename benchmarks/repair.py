"""What the benchmarks of repairs share: damage a copy of the shop, bring it back, prove it; and PostgreSQL's way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import damage, engine, programs, proof
from benchmarks.outcome import Outcome
from benchmarks.race import Lap, race, timed
from benchmarks.site import CAPTURER

if TYPE_CHECKING:
    from benchmarks.base import Base
    from benchmarks.stage import Stage

RIVAL: Final = "pg_restore -j2 of the database"
FORMATS: Final = ("-Fc", "-Fd")


def measure(stage: Stage, name: str, *, share: float, source: engine.Source, target: float, stretch: float) -> Outcome:
    """``share`` of all rows damaged, repaired from ``source`` (``journal``, ``scan``), against a full restore."""
    base = stage.base(journaled=source == "journal")
    archive = archived(stage, base)
    ours, (theirs,) = race(
        stage.laps, lambda: repaired(stage, base, share, source), [lambda: restored(stage, base, archive)]
    )
    return Outcome(
        id=name,
        target=target,
        stretch=stretch,
        seconds=tuple(lap.figure for lap in ours),
        rival=RIVAL,
        rival_seconds=tuple(lap.figure for lap in theirs),
        scale=stage.scale,
        more={
            "damaged rows": ours[0].more["damaged"],
            "plan s": sorted(lap.more["plan"] for lap in ours)[len(ours) // 2],
        },
        how=f"{share:.2%} of all rows damaged, scattered (updates, deletes, duplicates, orphans), all tables brought "
        f"back {'by the journal' if source == 'journal' else 'without a journal'}: restore.apply; the rival restores "
        "a dump into an empty database",
    )


def repaired(stage: Stage, base: Base, share: float, source: engine.Source) -> Lap:
    """One repair by us, proven."""
    with stage.copy(base.db) as db:
        rows = damage.scatter(db, share)
        with db.open(CAPTURER) as conn:
            proof.differ(proof.sums(conn), base.sums, what="repair")
        seconds, plan = engine.repair(db, base.store, base.point, source)
        with db.open(CAPTURER) as conn:
            proof.same(proof.sums(conn), base.sums, what="repair")
    return Lap(figure=seconds, more={"damaged": float(rows), "plan": plan})


def archived(stage: Stage, base: Base) -> Path:
    """The rival's dump of the pristine shop: the one of its two parallel formats that it restores faster here."""

    def make() -> Path:
        folder, found = stage.folder(), {}
        for form in FORMATS:
            path = folder / f"shop{form}"
            programs.dump(stage.pristine(), path, form, *(("--jobs=2",) if form == "-Fd" else ()))
            found[restored(stage, base, path).figure] = path
        return found[min(found)]

    return stage.once(f"archive {base.rows}", make)


def restored(stage: Stage, base: Base, archive: Path) -> Lap:
    """One restore by the rival into an empty database, proven."""
    with stage.copy(None) as db:
        with timed() as watch:
            programs.restore(db, archive)
        with db.open("", superuser=True) as conn:
            proof.same(proof.sums(conn), base.sums, what=RIVAL)
    return Lap(figure=watch.seconds)
