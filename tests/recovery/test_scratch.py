"""The empty database for a proof: the app's schema without journal and rows, and nothing left of it afterwards."""

import psycopg
import pytest

from recovery import scratch
from recovery.errors import RecoveryError
from tests.conftest import AppDb
from tests.snapshots import point_desk

pytestmark = pytest.mark.postgres


def _databases(app_db: AppDb) -> set[str]:
    with psycopg.connect(app_db.superuser) as conn:
        return {name for (name,) in conn.execute("SELECT datname FROM pg_database").fetchall()}


def test_the_schema_comes_without_journal_and_rows(app_db: AppDb) -> None:
    point_desk.build(app_db)
    before = _databases(app_db)
    with scratch.database(app_db.server.superuser_dsn()) as dsn:
        assert scratch.copy_schema(app_db.installer, dsn, [t.name for t in point_desk.TABLES]) == []
        with psycopg.connect(dsn) as conn:
            triggers = conn.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal").fetchall()
            rows = conn.execute("SELECT count(*) FROM shop.orders").fetchone()
            keys = conn.execute("SELECT count(*) FROM pg_constraint WHERE contype = 'f'").fetchone()
            journal = conn.execute("SELECT to_regnamespace('reinstate')").fetchone()
        assert (triggers, rows, keys, journal) == ([("orders_touch",)], (0,), (1,), (None,))
    assert _databases(app_db) == before


def test_a_foreign_key_to_what_has_no_rows_is_left_out(app_db: AppDb) -> None:
    point_desk.build(app_db, journal=False)
    with scratch.database(app_db.server.superuser_dsn()) as dsn:
        assert scratch.copy_schema(app_db.installer, dsn, ["shop.orders"]) == []
        with psycopg.connect(dsn) as conn:
            conn.execute("INSERT INTO shop.orders (customer_id, total) VALUES (4711, 1)")


def test_what_cannot_be_copied_is_said_without_secrets(app_db: AppDb, monkeypatch: pytest.MonkeyPatch) -> None:
    point_desk.build(app_db, journal=False)
    before = _databases(app_db)
    monkeypatch.setattr(scratch, "LOCK_WAIT_MS", 100)
    with scratch.database(app_db.server.superuser_dsn()) as dsn, psycopg.connect(app_db.installer) as somebody:
        somebody.execute("LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(RecoveryError, match=r"pg_dump: .*timeout.*nothing was proven") as error:
            scratch.copy_schema(app_db.installer, dsn, [])
    assert "test-" not in str(error.value)
    assert _databases(app_db) == before
