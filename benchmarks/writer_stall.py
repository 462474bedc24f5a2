"""How long the app stands still: the longest write of one client while 1% of the rows are repaired."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from psycopg import sql

from benchmarks import clients, damage, engine, proof, scale
from benchmarks.outcome import Outcome
from benchmarks.race import Lap, race
from benchmarks.site import CAPTURER, INSTALLER, Database
from snapshots.database import qualified

if TYPE_CHECKING:
    from benchmarks.base import Base
    from benchmarks.stage import Stage

ID: Final = "writer-stall-1"
RIVAL: Final = "TRUNCATE + reload of the damaged tables"
SHARE: Final = 0.01
PER_SECOND: Final = 100
DAMAGED: Final = ("shop.customers", "shop.orders", "shop.order_items", "shop.payments", "shop.events")
_SCRIPT: Final = """\\set n random(1, {most})
UPDATE shop.orders SET note = 'called' WHERE id = :n * {every};
"""
_OTHERS: Final = {"shop.orders": f"NOT ({damage.SPARED})"}
"""The writer has some orders for itself; they are left out of the proof."""


def run(stage: Stage) -> tuple[Outcome, ...]:
    base = stage.base(journaled=True)
    files = copied(stage)
    with stage.copy(base.db) as db, db.open(CAPTURER) as conn:
        wanted = proof.sums(conn, where=_OTHERS)
    ours, (theirs,) = race(stage.laps, lambda: repaired(stage, base, wanted), [lambda: reloaded(stage, files, wanted)])
    found = Outcome(
        id=ID,
        target=0.1,
        stretch=0.03,
        seconds=tuple(lap.figure for lap in ours),
        rival=RIVAL,
        rival_seconds=tuple(lap.figure for lap in theirs),
        scale=stage.scale,
        more={"repair s": ours[0].more["whole"], "reload s": theirs[0].more["whole"]},
        how=f"longest single-row update of a client at {PER_SECOND} a second while {SHARE:.0%} of all rows are "
        "repaired by the journal; the rival loads binary files by COPY in one transaction, foreign keys and triggers "
        "off",
    )
    return (found,)


def repaired(stage: Stage, base: Base, wanted: proof.Sums) -> Lap:
    with stage.copy(base.db) as db:
        damage.scatter(db, SHARE)
        with clients.writing(db, script(stage), stage.folder(), per_second=PER_SECOND) as writer:
            begun = time.time()
            engine.repair(db, base.store, base.point, "journal")
            ended = time.time()
        with db.open(CAPTURER) as conn:
            proof.same(proof.sums(conn, where=_OTHERS), wanted, what=ID)
    return Lap(figure=writer.longest(begun, ended), more={"whole": ended - begun})


def reloaded(stage: Stage, files: Path, wanted: proof.Sums) -> Lap:
    """As the superuser, who may leave foreign keys unchecked; the client of the app sees none of it before the end."""
    with stage.copy(stage.pristine()) as db:
        damage.scatter(db, SHARE)
        db.site.checkpoint()
        with clients.writing(db, script(stage), stage.folder(), per_second=PER_SECOND) as writer:
            begun = time.time()
            reload(db, files)
            ended = time.time()
        with db.open(CAPTURER) as conn:
            proof.same(proof.sums(conn, where=_OTHERS), wanted, what=RIVAL)
    return Lap(figure=writer.longest(begun, ended), more={"whole": ended - begun})


def script(stage: Stage) -> str:
    most = scale.sizes(stage.rows).orders // damage.SPARED_EVERY
    return _SCRIPT.format(most=max(most, 1), every=damage.SPARED_EVERY)


def copied(stage: Stage) -> Path:
    """The damaged tables' good rows, as binary files: what the rival loads."""
    folder = stage.folder()
    with stage.pristine().open(INSTALLER) as conn:
        for table in DAMAGED:
            query = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(qualified(table))
            with (folder / table).open("wb") as file, conn.cursor().copy(query) as out:
                for block in out:
                    file.write(block)
    return folder


def reload(db: Database, files: Path) -> None:
    with db.open("", superuser=True) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(map(qualified, DAMAGED))))
        for table in DAMAGED:
            query = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(qualified(table))
            with (files / table).open("rb") as file, conn.cursor().copy(query) as out:
                while block := file.read(1 << 20):
                    out.write(block)
        conn.commit()
