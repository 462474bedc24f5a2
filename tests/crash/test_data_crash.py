"""Undo and restore killed with -9 at each of their statements: all or nothing, and done again they end the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from snapshots import database
from snapshots.journal import journal
from tests.crash import crash_ops
from tests.crash.killed_at import Killer, killer, moments
from tests.snapshots import point_desk

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(1800)]

NAMES = [table.name for table in crash_ops.TABLES]
FEW = 5
EVERY = pytest.param(None, marks=pytest.mark.soak, id="every")


@pytest.fixture(scope="module")
def process() -> Iterator[Killer]:
    with killer() as made:
        yield made


@pytest.fixture
def app(app_db: Any) -> Any:
    app_db.role(crash_ops.BAD)
    point_desk.build(app_db)
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("GRANT USAGE ON SCHEMA shop TO wf_bad")
        conn.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO wf_bad")
        conn.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO wf_bad")
    return app_db


def wreck(app: Any, run: str) -> dict[str, list[Any]]:
    """What a bad run does; returns what the tables are after it."""
    with psycopg.connect(app.dsn(crash_ops.BAD)) as conn:
        conn.execute("SELECT set_config('reinstate.run', %s, true)", (run,))
        conn.execute("UPDATE shop.orders SET total = total + 1, note = NULL WHERE id % 3 = 0")
        conn.execute("DELETE FROM shop.orders WHERE id % 7 = 1")
        conn.execute("INSERT INTO shop.customers (email) VALUES ('x@example.com'), ('y@example.com')")
        conn.execute("INSERT INTO shop.orders (customer_id, total) SELECT max(id), 9 FROM shop.customers")
    return point_desk.image(app, *NAMES)


def quiet(app: Any) -> None:
    """Wait until the dead process's sessions are gone: the server rolls them back."""
    deadline = time.monotonic() + 20
    with psycopg.connect(app.superuser, autocommit=True) as conn:
        while True:
            row = conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
                " AND usename IN ('capturer', 'recoverer', 'installer')",
                (app.name,),
            ).fetchone()
            if row == (0,):
                return
            assert time.monotonic() < deadline
            time.sleep(0.01)


def steps(app: Any, name: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(app.superuser) as conn:
        return conn.execute("SELECT * FROM reinstate.applied WHERE recovery_id = %s", (name,)).fetchall()


@pytest.mark.parametrize("most", [FEW, EVERY])
def test_undo_killed_at_each_statement(app: Any, process: Killer, most: int | None) -> None:
    before = point_desk.image(app, *NAMES)

    def run(n: int, name: str) -> dict[str, int]:
        return process.run("undo", n, database=True, dsn=app.recoverer, run=name)

    wreck(app, "count")
    total = run(0, "count")["moments"]
    assert point_desk.image(app, *NAMES) == before
    for n in moments(total, most=most):
        name = f"bad-{n}"
        wrecked = wreck(app, name)
        assert wrecked != before
        assert run(n, name)["status"] == -9
        quiet(app)
        after = point_desk.image(app, *NAMES)
        assert after in (wrecked, before), f"half an undo after moment {n} of {total}"
        assert len(steps(app, f"undo {name}")) == (after == before)
        crash_ops.undo(app.recoverer, name)
        assert point_desk.image(app, *NAMES) == before
        assert len(steps(app, f"undo {name}")) == 1
    sound(app)


@pytest.mark.parametrize("most", [FEW, EVERY])
@pytest.mark.parametrize("source", ["journal", "scan"])
def test_restore_killed_at_each_statement(
    app: Any, process: Killer, tmp_path: Path, source: str, most: int | None
) -> None:
    point, _ = point_desk.take(app, tmp_path)
    before = point_desk.image(app, *NAMES)
    given = {"dsn": app.recoverer, "folder": str(tmp_path), "point": point.id, "source": source}
    wreck(app, "count")
    total = process.run("restore", 0, database=True, name="count", **given)["moments"]
    assert point_desk.image(app, *NAMES) == before
    for n in moments(total, most=most):
        name = f"restore-{n}"
        wrecked = wreck(app, name)
        assert process.run("restore", n, database=True, name=name, **given)["status"] == -9
        quiet(app)
        after = point_desk.image(app, *NAMES)
        assert after in (wrecked, before), f"half a restore after moment {n} of {total}"
        assert len(steps(app, name)) == (after == before)
        crash_ops.restore(name=name, **given)  # type: ignore[arg-type]
        assert point_desk.image(app, *NAMES) == before
        assert len(steps(app, name)) == 1
    sound(app)


def sound(app: Any) -> None:
    """The journal lost nothing, no trigger is left off, no lock is left."""
    with database.connect(app.recoverer, purpose="test") as conn:
        journal.tick(conn)
        assert journal.gaps(conn) == []
        conn.rollback()
        states = conn.execute(
            "SELECT DISTINCT tgenabled::text FROM pg_trigger WHERE tgname = 'orders_touch' AND NOT tgisinternal"
        ).fetchall()
        assert states == [("O",)]
