"""What surrounds the placing of a lost table: fences stay up, and what follows it is done after a death too."""

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from point_desk import ORDERS, TABLES, build, take, write

from snapshots import database, fence
from snapshots.errors import Unreachable
from snapshots.journal import install, journal
from snapshots.journal import shape as journal_shape
from snapshots.restore import lost_table

pytestmark = pytest.mark.postgres

ROLE, REF = "wf_intake", "inc-1"
TRY = "INSERT INTO shop.orders (customer_id, total) VALUES (1, 1)"
CAP_MB = 8192


class Killed(BaseException):
    """The process is gone at this point."""


@pytest.fixture
def app(app_db: Any) -> Any:
    app_db.role(ROLE)
    build(app_db)
    write(
        app_db,
        f"GRANT USAGE ON SCHEMA shop TO {ROLE}",
        f"GRANT SELECT, INSERT ON shop.orders TO {ROLE}",
        f"GRANT UPDATE (total) ON shop.orders TO {ROLE} WITH GRANT OPTION",
        f"GRANT USAGE ON SEQUENCE shop.orders_id_seq TO {ROLE}",
    )
    return app_db


def _rows(app: Any, query: str) -> list[Any]:
    with psycopg.connect(app.superuser) as conn:
        return conn.execute(query.encode()).fetchall()


def _grants(app: Any) -> list[Any]:
    return _rows(
        app,
        "SELECT x.privilege_type, x.is_grantable, NULL FROM pg_class c, aclexplode(c.relacl) x"
        f" WHERE c.oid = 'shop.orders'::regclass AND x.grantee = '{ROLE}'::regrole UNION ALL"
        " SELECT x.privilege_type, x.is_grantable, a.attname::text FROM pg_attribute a, aclexplode(a.attacl) x"
        f" WHERE a.attrelid = 'shop.orders'::regclass AND x.grantee = '{ROLE}'::regrole ORDER BY 1, 3",
    )


def _try(app: Any, statement: str = TRY) -> None:
    with psycopg.connect(app.dsn(ROLE)) as conn:
        conn.execute(statement.encode())


@pytest.mark.parametrize("lost", [[ORDERS], list(TABLES)], ids=["one", "all"])
def test_a_fence_stays_up_over_a_table_that_comes_back(app: Any, tmp_path: Path, lost: list[Any]) -> None:
    before = _grants(app)
    point, store = take(app, tmp_path)
    with database.connect(app.recoverer, purpose="test") as conn:
        for ref in (REF, "inc-2"):
            fence.raise_(conn, ROLE, ref)
        write(app, f"DROP TABLE {', '.join(t.name for t in lost)} CASCADE")
        lost_table.restore(app.installer, point, store, lost)
        for statement in (TRY, "UPDATE shop.orders SET total = 1"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                _try(app, statement)
        assert fence.leaks(conn, [ROLE]) == []
        conn.rollback()
        fence.lower(conn, ROLE, "inc-2")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            _try(app)
        fence.lower(conn, ROLE, REF)
    assert _grants(app) == before
    _try(app)


def test_a_fence_that_was_lowered_stays_down(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    with database.connect(app.recoverer, purpose="test") as conn:
        fence.raise_(conn, ROLE, REF)
        fence.lower(conn, ROLE, REF)
    write(app, "DROP TABLE shop.orders CASCADE")
    lost_table.restore(app.installer, point, store, [ORDERS])
    _try(app)


def test_a_fence_that_went_up_without_the_table_covers_it(app: Any, tmp_path: Path) -> None:
    before = _grants(app)
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")
    with database.connect(app.recoverer, purpose="test") as conn:
        assert fence.raise_(conn, ROLE, REF) == 0
        lost_table.restore(app.installer, point, store, [ORDERS])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            _try(app)
        fence.lower(conn, ROLE, REF)
    assert _grants(app) == before


@pytest.mark.parametrize("moment", ["_refer", "_fence_again"])
def test_a_fence_that_goes_up_while_a_table_is_placed_covers_it(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")
    going_up = threading.Thread(target=_raise, args=(app,))
    work = getattr(lost_table, moment)

    def meanwhile(*given: Any) -> Any:
        if moment == "_refer":
            _raise(app)  # does not wait for what waits for the app's locks
            return work(*given)
        done = work(*given)
        going_up.start()
        going_up.join(0.3)
        assert going_up.is_alive()
        return done

    monkeypatch.setattr(lost_table, moment, meanwhile)
    lost_table.restore(app.installer, point, store, [ORDERS])
    if moment == "_fence_again":
        going_up.join()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        _try(app)


def _raise(app: Any) -> None:
    with database.connect(app.recoverer, purpose="test") as conn:
        fence.raise_(conn, ROLE, REF)


def _killed_after_placing(app: Any, point: Any, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise Killed

        patch.setattr(lost_table, "_finished", die)
        with pytest.raises(Killed):
            lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
    assert _rows(app, "SELECT count(*) FROM shop.orders") == [(200,)]
    assert _rows(app, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'reinstate_lost%'") != []


def _finished(app: Any) -> None:
    assert _rows(app, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'reinstate_lost%'") == []
    assert _rows(app, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND tgname ~ '^rj'") != [
        (0,)
    ]
    with database.connect(app.recoverer, purpose="test") as conn:
        since = journal.tick(conn)
        write(app, "UPDATE shop.orders SET total = 7 WHERE id = 3")
        assert journal.gaps(conn, since=since, tables=["shop.orders"]) == []


def test_a_run_that_died_after_the_placing_is_finished_by_the_next(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")
    _killed_after_placing(app, point, store, monkeypatch)
    again = lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
    assert (again.unvalidated, again.journaled, again.rows) == ((), ("shop.orders",), {"shop.orders": 200})
    assert _rows(app, "SELECT convalidated FROM pg_constraint WHERE conname = 'orders_customer_id_fkey'") == [(True,)]
    _finished(app)
    third = lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
    assert (third.journaled, third.applied) == ((), again.applied), "nothing is left to do"


def test_what_does_not_hold_is_named_by_the_next_run_too(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE", "DELETE FROM shop.customers WHERE id = 1")
    _killed_after_placing(app, point, store, monkeypatch)
    for _ in range(2):
        again = lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
        assert again.unvalidated == (("shop.orders", "orders_customer_id_fkey"),)


def test_a_failure_after_the_placing_says_that_the_tables_are_back(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")

    def fails(*_: Any) -> None:
        raise psycopg.errors.QueryCanceled

    with monkeypatch.context() as patch:
        patch.setattr(lost_table, "_analyze", fails)
        with pytest.raises(Unreachable, match=r"tables are back.*run the restore again") as failure:
            lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
    assert "nothing was changed" not in str(failure.value)
    lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
    _finished(app)


def test_the_cap_of_the_journal_is_kept(app: Any, tmp_path: Path) -> None:
    with database.connect(app.installer, purpose="test") as conn:
        install.install(conn, [ORDERS], capturer="capturer", recoverer="recoverer", size_cap_mb=CAP_MB)
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")
    lost_table.restore(app.installer, point, store, [ORDERS])
    with database.connect(app.installer, purpose="test") as conn:
        assert journal_shape.stored(conn)["shop.orders"].size_cap_mb == CAP_MB
