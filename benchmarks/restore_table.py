"""One lost table brought back with everything that belongs to it: rows, indexes, keys, foreign keys, grants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psycopg import Connection

from benchmarks import engine, programs, proof
from benchmarks.outcome import Outcome
from benchmarks.race import Lap, race, timed
from benchmarks.service import BenchmarkError
from benchmarks.site import CAPTURER, INSTALLER

if TYPE_CHECKING:
    from benchmarks.base import Base
    from benchmarks.site import Database
    from benchmarks.stage import Stage

ID: Final = "restore-table"
RIVAL: Final = "pg_restore -j2 of the table with its indexes"
TABLE: Final = "shop.order_items"
"""The largest; no other references it."""
FORMATS: Final = ("-Fc", "-Fd")
_LOST: Final = "DROP TABLE shop.order_items"
_BELONGS: Final = """
SELECT 'index', indexdef FROM pg_indexes WHERE schemaname || '.' || tablename = %(table)s
UNION ALL SELECT 'constraint', pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %(table)s::regclass
UNION ALL SELECT 'grant', grantee || ' ' || privilege_type FROM information_schema.table_privileges
    WHERE table_schema || '.' || table_name = %(table)s
ORDER BY 1, 2
"""


def run(stage: Stage) -> tuple[Outcome, ...]:
    base = stage.base(journaled=True)
    with stage.copy(base.db) as db, db.open("", superuser=True) as conn:
        wanted = belongings(conn)
    archives = {form: listed(stage, form) for form in FORMATS}
    trial = {form: restored(stage, base, *archives[form], wanted).figure for form in FORMATS}
    archive, names = archives[min(trial, key=lambda form: trial[form])]
    ours, (theirs,) = race(
        stage.laps,
        lambda: brought_back(stage, base, wanted),
        [lambda: restored(stage, base, archive, names, wanted)],
    )
    found = Outcome(
        id=ID,
        target=1.1,
        stretch=0.8,
        seconds=tuple(lap.figure for lap in ours),
        rival=RIVAL,
        rival_seconds=tuple(lap.figure for lap in theirs),
        scale=stage.scale,
        how=f"{TABLE} was dropped and comes back with its {base.sums[TABLE][0]:,} rows, indexes, constraints and "
        "grants; the rival restores the same by a list of entries",
    )
    return (found,)


def brought_back(stage: Stage, base: Base, wanted: Any) -> Lap:
    with stage.copy(base.db) as db:
        lose(db)
        db.site.checkpoint()
        with timed() as watch:
            engine.restore_lost(db, base.store, base.point, TABLE)
        with db.open("", superuser=True) as conn:
            proof.same(proof.sums(conn), base.sums, what=ID)
            whole(conn, wanted, ID)
    return Lap(figure=watch.seconds)


def lose(db: Database) -> None:
    with db.open(INSTALLER) as conn:
        conn.execute(_LOST)
        conn.commit()


def listed(stage: Stage, form: str) -> tuple[Path, Path]:
    """The rival's dump and the list of what belongs to the table: ``pg_restore -t`` alone would leave indexes out."""
    folder = stage.folder()
    archive, names = folder / f"shop{form}", folder / "list"
    programs.dump(stage.pristine(), archive, form, *(("--jobs=2",) if form == "-Fd" else ()))
    entries = programs.run([programs.program("pg_restore"), "--list", archive], {})
    mine = [line for line in entries.splitlines() if "order_items" in line or " items_product " in line]
    names.write_text("\n".join(mine) + "\n", encoding="utf-8")
    return archive, names


def restored(stage: Stage, base: Base, archive: Path, names: Path, wanted: Any) -> Lap:
    with stage.copy(stage.pristine()) as db:
        lose(db)
        db.site.checkpoint()
        with timed() as watch:
            programs.restore(db, archive, "--use-list", names)
        with db.open(CAPTURER) as conn:
            proof.same(proof.sums(conn), base.sums, what=RIVAL)
        with db.open("", superuser=True) as conn:
            whole(conn, wanted, RIVAL)
    return Lap(figure=watch.seconds)


def belongings(conn: Connection[Any]) -> list[tuple[str, str]]:
    return [(str(kind), str(text)) for kind, text in conn.execute(_BELONGS, {"table": TABLE}).fetchall()]


def whole(conn: Connection[Any], wanted: Any, what: str) -> None:
    """Raise unless every index, constraint and grant of the table is there."""
    missing = set(wanted) - set(belongings(conn))
    if missing:
        raise BenchmarkError(f"{what}: {TABLE} came back without {min(missing)[1]}: nothing was measured")
