"""The printed SQL is enough for the product, and not more than it needs."""

from typing import Any

import psycopg
import pytest
from journal_desk import SCHEMA

from snapshots import database, fence, roles
from snapshots.journal import journal
from snapshots.model import TableSpec

pytestmark = pytest.mark.postgres


def run_as_administrator(app_db: Any, text: str) -> None:
    with psycopg.connect(app_db.superuser, autocommit=True) as administrator:
        administrator.execute(text.encode())


def can(app_db: Any, role: str, text: str) -> bool:
    with psycopg.connect(app_db.dsn(role)) as conn:
        try:
            conn.execute(text.encode())
        except psycopg.errors.InsufficientPrivilege:
            return False
        finally:
            conn.rollback()
        return True


def test_the_roles_can_do_their_work_and_nothing_else(app_db: Any) -> None:
    app_db.role("wf_intake")
    with psycopg.connect(app_db.installer) as owner:
        owner.execute(SCHEMA.encode())
    text = roles.sql(database=app_db.name, tables=["public.orders"])
    assert "SUPERUSER" not in text.replace("NOSUPERUSER", "")
    assert "PASSWORD" not in text
    for _ in range(2):
        run_as_administrator(app_db, text)
    with database.connect(app_db.installer, purpose="test") as owner:
        journal.install(
            owner, [TableSpec(name="public.orders", key=("id",))], capturer="capturer", recoverer="recoverer"
        )
        owner.execute("CREATE TABLE public.later (id int GENERATED ALWAYS AS IDENTITY)")
        owner.commit()
    allowed = {
        "SELECT count(*) FROM orders": {"capturer", "recoverer"},
        "SELECT count(*) FROM later": {"capturer", "recoverer"},
        "SELECT count(*) FROM reinstate.j_public__orders": {"capturer", "recoverer"},
        "SELECT * FROM reinstate.findings()": {"capturer", "recoverer"},
        "CREATE TEMP TABLE t (id int)": {"capturer", "recoverer"},
        "SELECT last_value FROM later_id_seq": {"capturer", "recoverer"},
        "UPDATE orders SET qty = 0": {"recoverer"},
        "INSERT INTO later DEFAULT VALUES": {"recoverer"},
        "SELECT setval('later_id_seq', 10)": {"recoverer"},
        "INSERT INTO reinstate.applied VALUES ('r', 's', 'h')": {"recoverer"},
        "SELECT reinstate.record_tick()": {"recoverer"},
        "DELETE FROM reinstate.applied": set(),
        "UPDATE reinstate.gap SET until = now()": set(),
        "DELETE FROM reinstate.j_public__orders": set(),
        "INSERT INTO reinstate.fenced VALUES ('a', 'b', 'c', 'd', NULL, false)": set(),
        "TRUNCATE orders": set(),
        "ALTER TABLE orders ADD COLUMN x int": set(),
        "SET session_replication_role = replica": set(),
        "CREATE TABLE public.mine (id int)": set(),
        "SELECT reinstate.note_failure('public.orders', 'XX000', '')": set(),
    }
    for statement, who in allowed.items():
        assert {r for r in ("capturer", "recoverer") if can(app_db, r, statement)} == who, statement
    rows = psycopg.connect(app_db.superuser)
    with rows:
        supers = rows.execute(
            "SELECT rolname FROM pg_roles WHERE rolname IN ('installer', 'capturer', 'recoverer')"
            " AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)"
        ).fetchall()
    assert supers == []


def test_tables_owned_by_another_role_are_journaled_through_membership(app_db: Any) -> None:
    writer, owner_dsn = app_db.role("wf_intake"), app_db.role("app_owner")
    run_as_administrator(app_db, "CREATE SCHEMA shop AUTHORIZATION app_owner")
    with psycopg.connect(owner_dsn) as owner:
        owner.execute("CREATE TABLE shop.orders (id int PRIMARY KEY)")
        owner.execute("GRANT USAGE ON SCHEMA shop TO wf_intake; GRANT SELECT, INSERT ON shop.orders TO wf_intake")
    run_as_administrator(app_db, roles.sql(database=app_db.name, tables=["shop.orders"], owner="app_owner"))
    try:
        with database.connect(app_db.installer, purpose="test") as conn:
            spec = TableSpec(name="shop.orders", key=("id",))
            journal.install(conn, [spec], capturer="capturer", recoverer="recoverer")
        with psycopg.connect(writer) as conn:
            conn.execute("INSERT INTO shop.orders VALUES (1)")
        with database.connect(app_db.recoverer, purpose="test") as conn:
            assert conn.execute("SELECT count(*) FROM reinstate.j_shop__orders").fetchone() == (1,)
            assert fence.raise_(conn, "wf_intake", "inc-1") == 1
            assert fence.leaks(conn, ["wf_intake"]) == []
            fence.lower(conn, "wf_intake", "inc-1")
        assert can(app_db, "wf_intake", "INSERT INTO shop.orders VALUES (2)")
    finally:
        run_as_administrator(app_db, "REVOKE app_owner FROM installer")


def test_names_are_quoted() -> None:
    text = roles.sql(database='my"db', tables=['s."t'], installer="In Staller", workflow_roles=("wf;x",))
    assert '"my""db"' in text
    assert '"s"."""t"' in text
    assert 'CREATE ROLE "wf;x" LOGIN' in text
    assert '"In Staller"' in text
