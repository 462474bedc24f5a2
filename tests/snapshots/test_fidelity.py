"""Every type and its extremes come back byte for byte: from points of every kind, by every way back, and by undo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from fidelity_zoo import KEYED, TABLES, WIDTH, Zoo, build, images, unlike
from point_desk import Told
from psycopg import sql

from snapshots import database
from snapshots.capture import capture
from snapshots.model import Policy, RecoveryPoint, RunRef, UndoSpec
from snapshots.points import chunks
from snapshots.restore import diff, lost_table, restore
from snapshots.restore import whole as restore_copy
from snapshots.store.store import Store
from snapshots.undo import undo

pytestmark = pytest.mark.postgres

BAD = "wf_bad"


@pytest.fixture(scope="module")
def kept(module_app_db: Any) -> dict[str, Zoo]:
    module_app_db.role(BAD)
    return {}


@pytest.fixture
def zoo(module_app_db: Any, kept: dict[str, Zoo]) -> Zoo:
    """Made anew where the test before did not bring all of it back: object ids of its types are in what COPY gives."""
    if not kept or unlike(module_app_db):
        build(module_app_db, actors=(BAD,))
        kept["zoo"] = Zoo(app=module_app_db, kept=images(module_app_db))
    return kept["zoo"]


def wreck(zoo: Zoo, *, run: str = "bad-1") -> None:
    """What a bad run does to every table, as the role of its workflow."""
    with database.connect(zoo.app.dsn(BAD), purpose="test") as conn:
        conn.execute("SELECT set_config('reinstate.run', %s, true)", (run,))
        blank = ", ".join(
            f"{c.name} = NULL" for c in chunks.stored(database.columns(conn, "zoo.animals")) if c.name.startswith("c")
        )
        for statement in (
            f"UPDATE zoo.animals SET grade = 1.00, {blank} WHERE id % 2 = 0",
            "DELETE FROM zoo.animals WHERE id % 4 = 1",
            "INSERT INTO zoo.animals SELECT FROM generate_series(1, 3)",
            'UPDATE zoo."Odd %s name" SET "Ünï ""q"" %s %(x)s" = \'x\', "a,b(c)" = NULL WHERE "UPPER" > 0',
            'UPDATE zoo."Odd %s name" SET "Key one" = \'new\', "UPPER" = 9 WHERE "Key one" = \'NULL\'',
            'UPDATE zoo."Odd %s name" SET "select" = "select" + 0.00 WHERE "Key one" = \'\'',
            'DELETE FROM zoo."Odd %s name" WHERE "select" = \'NaN\'',
            'INSERT INTO zoo."Odd %s name" ("Key one", "select") VALUES (\'made\', 1)',
            "DELETE FROM zoo.bare WHERE id::text < '8'",
            "INSERT INTO zoo.bare VALUES ('00000000-0000-0000-0000-000000000000')",
            f"UPDATE zoo.wide SET w1 = 'x', w2 = NULL, w{WIDTH - 1} = NULL WHERE id > 2",
            "DELETE FROM zoo.wide WHERE id = 1",
            "DELETE FROM zoo.bag WHERE id % 2 = 0",
            "INSERT INTO zoo.bag SELECT * FROM zoo.bag WHERE id < 9",
        ):
            conn.execute(statement.encode())


def same(zoo: Zoo, tables: Any = TABLES) -> bool:
    """Nothing differs, neither by the server's comparison of images nor in what COPY gives."""
    assert unlike(zoo.app, tables) == []
    now = images(zoo.app, tables)
    assert [table.name for table in tables if now[table.name] != zoo.kept[table.name]] == []
    return True


def take(zoo: Zoo, store: Store, **options: Any) -> RecoveryPoint:
    return capture.capture(zoo.app.capturer, TABLES, {}, Told(), store, app="zoo", **options)


def bring_back(
    zoo: Zoo, target: Any, store: Store, *, source: str = "auto", step: str = "1", tables: Any = TABLES
) -> None:
    with database.connect(zoo.app.recoverer, purpose="test") as conn:
        restore.apply(
            conn,
            target,
            store,
            tables,
            recovery_id=str(store),
            step=step,
            plan_hash="h",
            source=source,  # type: ignore[arg-type]
            caps=restore.Caps(max_deleted_share=1.0),
        )


def test_an_untouched_table_equals_its_point(zoo: Zoo, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    point = take(zoo, store)
    with database.connect(zoo.app.recoverer, purpose="test") as conn:
        assert [t.rows for t in diff.diff(conn, point, store)] == [0] * len(TABLES)


@pytest.mark.parametrize("source", ["journal", "scan", "auto"])
def test_restored_from_a_full_point(zoo: Zoo, tmp_path: Path, source: str) -> None:
    store = Store(str(tmp_path))
    point = take(zoo, store)
    wreck(zoo)
    assert len(unlike(zoo.app)) > 100
    bring_back(zoo, point, store, source=source, tables=KEYED if source == "journal" else TABLES)
    assert same(zoo, KEYED if source == "journal" else TABLES)


def test_restored_to_a_position_without_any_point(zoo: Zoo, tmp_path: Path) -> None:
    from snapshots.journal import journal

    with database.connect(zoo.app.recoverer, purpose="test") as conn:
        tick = journal.tick(conn)
    wreck(zoo)
    bring_back(zoo, tick, Store(str(tmp_path)), source="journal", tables=KEYED)
    assert same(zoo, KEYED)


@pytest.mark.parametrize("method", ["journal", "scan"])
def test_restored_from_an_incremental_point(zoo: Zoo, tmp_path: Path, method: str) -> None:
    """The base is of the wrecked tables; the originals are in the deltas alone."""
    store = Store(str(tmp_path))
    original = take(zoo, store)
    wreck(zoo)
    base = take(zoo, store)
    bring_back(zoo, original, store)
    assert same(zoo)
    point = take(zoo, store, base=base, method=method)
    assert {t.method for t in point.tables if t.key} == {method}
    assert [bool(t.deltas) for t in point.tables if t.key] == [True] * len(KEYED)
    wreck(zoo)
    bring_back(zoo, point, store, source="scan", step="2")
    assert same(zoo)
    empty(zoo)
    with database.connect(zoo.app.installer, purpose="test") as conn:
        restore_copy.into_empty(conn, point, store)
    assert same(zoo)


def empty(zoo: Zoo) -> None:
    with psycopg.connect(zoo.app.installer) as conn:
        for table in TABLES:
            conn.execute(f"TRUNCATE {database.qualified(table.name).as_string(conn)}".encode())


def test_loaded_into_an_empty_copy(zoo: Zoo, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    point = take(zoo, store)
    empty(zoo)
    with database.connect(zoo.app.installer, purpose="test") as conn:
        restore_copy.into_empty(conn, point, store)
    assert same(zoo)


@pytest.mark.parametrize("whole", [True, False])
def test_lost_tables_made_again(zoo: Zoo, kept: dict[str, Zoo], tmp_path: Path, whole: bool) -> None:
    """From an incremental point: one by one with their journal, or all of them by two workers."""
    store = Store(str(tmp_path))
    original = take(zoo, store)
    wreck(zoo)
    base = take(zoo, store)
    bring_back(zoo, original, store)
    point = take(zoo, store, base=base)
    kept.clear()
    with psycopg.connect(zoo.app.installer) as conn:
        for table in TABLES:
            conn.execute(sql.SQL("DROP TABLE {}").format(database.qualified(table.name)))
    if whole:
        restore_copy.into_empty(zoo.app.installer, point, store, workers=2)
    else:
        for table in TABLES:
            lost_table.restore(zoo.app.installer, point, store, [table], recovery_id="lost", step=table.name)
    assert same(zoo)


def test_undone_and_redone_and_undone(zoo: Zoo) -> None:
    with database.connect(zoo.app.recoverer, purpose="test") as conn:

        def revert(*refs: RunRef, name: str) -> int:
            spec = UndoSpec(tables=KEYED, runs=refs, policy=Policy.REFUSE, max_deleted_share=1.0)
            planned = undo.preview(conn, spec)
            assert planned.problems == ()
            done = undo.apply(conn, spec, recovery_id=name, step="undo", plan_hash="h", expected=planned.counts)
            return done.xid

        wreck(zoo, run=f"bad-{id(conn)}")
        wrecked = images(zoo.app, KEYED)
        first = revert(RunRef(actor=BAD, run=f"bad-{id(conn)}"), name=f"first-{id(conn)}")
        assert same(zoo, KEYED)
        second = revert(RunRef(actor="?", run=None, xids=(first,)), name=f"second-{id(conn)}")
        redone = images(zoo.app, KEYED)
        assert redone == wrecked
        revert(RunRef(actor="?", run=None, xids=(second,)), name=f"third-{id(conn)}")
        assert same(zoo, KEYED)
