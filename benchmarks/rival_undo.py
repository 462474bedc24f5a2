"""Two other ways to undo: E-Maj's logged rollback, and an audit log of jsonb rows kept by triggers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import damage, proof, shop
from benchmarks.race import Lap, timed
from benchmarks.service import BenchmarkError
from benchmarks.site import CAPTURER, INSTALLER, WORKFLOW, Database

if TYPE_CHECKING:
    from benchmarks.proof import Sums
    from benchmarks.stage import Stage

EMAJ: Final = "E-Maj logged rollback"
JSONB: Final = "indexed jsonb row-trigger undo"
VARIABLE: Final = "EMAJ_SQL"
_JSONB_SQL: Final = Path(__file__).with_name("rivals") / "jsonb_undo.sql"
_EXCLUDE: Final = re.compile(r",\s*EXCLUDE USING gist \([^()]*\)")
_GROUP: Final = "shop"


def emaj_script() -> Path | None:
    """What whoever runs the benchmark supplies: E-Maj's installation script. Raises for a path that is not there."""
    given = os.environ.get(VARIABLE)
    if not given:
        return None
    path = Path(given)
    if not path.is_file():
        raise BenchmarkError(f"{VARIABLE}={given}: there is no such file; give E-Maj's emaj--<version>.sql")
    return path


def emaj(stage: Stage, script: Path) -> Database:
    """A shop with E-Maj logging all its tables since a mark."""
    db = stage.place().copy(stage.pristine())
    with db.open("", superuser=True) as conn:
        conn.execute(adapted(script.read_text(encoding="utf-8")).encode())
        conn.execute("SELECT emaj.emaj_create_group(%s, true)", (_GROUP,))
        for table in shop.NAMES:
            conn.execute("SELECT emaj.emaj_assign_table('shop', %s, %s)", (table.split(".")[1], _GROUP))
        conn.execute("SELECT emaj.emaj_start_group(%s, 'before')", (_GROUP,))
        conn.commit()
    return db


def adapted(script: str) -> str:
    """The script of the extension, made to run by itself; exclusion constraints, which guard its own catalogue and need
    an extension the embedded server lacks, are left out. Neither takes part in a rollback."""
    lines = [
        line
        for line in script.splitlines()
        if not line.startswith("\\") and not re.match(r"\s*(CREATE EXTENSION|BEGIN TRANSACTION;|COMMIT;)", line)
    ]
    text = _EXCLUDE.sub("", "\n".join(lines))
    return text if "CREATE SCHEMA emaj" in text else f"CREATE SCHEMA emaj;\n{text}"


def emaj_undo(stage: Stage, of: Database, rows: int, pristine: Sums) -> Lap:
    """The run and the clerk's work, rolled back to the mark with E-Maj keeping its log; everything since is undone."""
    with stage.copy(of) as db:
        prepare(db, rows)
        with db.open("", superuser=True) as conn, timed() as watch:
            conn.execute("SELECT * FROM emaj.emaj_logged_rollback_group(%s, 'before')", (_GROUP,)).fetchall()
            conn.commit()
        with db.open(CAPTURER) as conn:
            proof.same(proof.sums(conn), pristine, what=EMAJ)
    return Lap(figure=watch.seconds)


def jsonb(stage: Stage) -> Database:
    """A shop with the audit log."""
    db = stage.place().copy(stage.pristine())
    with db.open(INSTALLER) as conn:
        conn.execute(_JSONB_SQL.read_bytes())
        conn.commit()
    return db


def jsonb_undo(stage: Stage, of: Database, rows: int, pristine: Sums) -> Lap:
    """The run, undone from the audit log; the clerk's work on the same rows is overwritten."""
    with stage.copy(of) as db:
        prepare(db, rows)
        with db.open(INSTALLER) as conn, timed() as watch:
            conn.execute("SELECT audit.undo(%s, %s)", (WORKFLOW, damage.RUN))
            conn.commit()
        with db.open(CAPTURER) as conn:
            proof.same(proof.sums(conn), pristine, what=JSONB)
    return Lap(figure=watch.seconds)


def prepare(db: Database, rows: int) -> None:
    """What is to be undone, with statistics as autovacuum would have made them, and nothing left to write."""
    damage.bad_run(db, rows)
    damage.later_work(db, max(1, rows // 100))
    with db.open("", superuser=True) as conn:
        conn.autocommit = True
        conn.execute("ANALYZE")
    db.site.checkpoint()
