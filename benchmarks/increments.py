"""What the benchmarks of captures share: a little changed, uniformly scattered, captured, and proven by loading it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks import damage, engine, programs, proof
from benchmarks.outcome import Outcome
from benchmarks.race import Lap, race, timed
from benchmarks.site import CAPTURER, CLERK, INSTALLER

if TYPE_CHECKING:
    from benchmarks.base import Base
    from benchmarks.proof import Sums
    from benchmarks.site import Database
    from benchmarks.stage import Stage
    from snapshots.model import RecoveryPoint
    from snapshots.store.store import Store

RIVAL: Final = "pg_dump -Fc"
SHARE: Final = 0.001


def measure(stage: Stage, name: str, *, method: str, target: float, stretch: float) -> Outcome:
    """An incremental capture against the rival's full dump, both of a shop in which ``SHARE`` of the rows changed."""
    base = stage.base(journaled=method == "journal")
    ours, (theirs,) = race(stage.laps, lambda: captured(stage, base, method), [lambda: dumped(stage)])
    return Outcome(
        id=name,
        target=target,
        stretch=stretch,
        seconds=tuple(lap.figure for lap in ours),
        rival=RIVAL,
        rival_seconds=tuple(lap.figure for lap in theirs),
        scale=stage.scale,
        more={"changed rows": ours[0].more["changed"]},
        how=f"{SHARE:.1%} of all rows changed, uniformly scattered; capture.capture on a full point, method {method}, "
        "to the published point",
    )


def captured(stage: Stage, base: Base, method: str, share: float = SHARE) -> Lap:
    """One incremental capture; the first of each kind is proven."""
    with stage.copy(base.db) as db:
        rows = damage.scatter(db, share, role=CLERK)
        db.site.checkpoint()
        with timed() as watch:
            point = engine.capture_increment(db, base.store, base.point, method)
        with db.open(CAPTURER) as conn:
            wanted = proof.sums(conn)
        proven = f"increment {method} {base.rows} proven"
        stage.once(proven, lambda: prove(stage, base, base.store, point, wanted))
    return Lap(figure=watch.seconds, more={"changed": float(rows)})


def dumped(stage: Stage) -> Lap:
    db, file = stage.pristine(), stage.folder() / "shop.dump"
    stage.place().checkpoint()
    with timed() as watch:
        programs.dump(db, file, "-Fc")
    file.unlink()
    return Lap(figure=watch.seconds)


def prove(stage: Stage, base: Base, store: Store, point: RecoveryPoint, wanted: Sums) -> bool:
    """Load the point into an empty copy of the schema and compare."""
    with hollow(stage, base) as db:
        engine.load_empty(db, store, point)
        with db.open(INSTALLER) as conn:
            proof.same(proof.sums(conn), wanted, what=f"capture of point {point.id}")
    return True


@contextmanager
def hollow(stage: Stage, base: Base) -> Iterator[Database]:
    """The shop's tables without rows, with all else."""
    schema = stage.once(f"schema {base.asked}", lambda: stage.folder() / "schema.dump")
    if not schema.exists():
        programs.dump(stage.pristine(base.asked), schema, "-Fc", "--schema-only")
    with stage.copy(None) as db:
        programs.restore(db, schema)
        yield db
