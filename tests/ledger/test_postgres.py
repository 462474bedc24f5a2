"""The same promises on PostgreSQL, as an ordinary role."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from ledger import Ledger
from ledger.errors import LeaseHeld, Unreachable
from tests.conftest import AppDb

pytestmark = pytest.mark.postgres

APPEND = """
import sys
from ledger import Ledger
with Ledger(sys.argv[1]) as ledger:
    for i in range(int(sys.argv[2])):
        ledger.append("x", app=sys.argv[3], body={"i": i})
"""

FORK = """
import os, sys
from ledger import Ledger
ledger = Ledger(sys.argv[1])
ledger.append("x", app="parent")
child = os.fork()
for i in range(20):
    ledger.append("x", app="child" if child == 0 else "parent", body={"i": i})
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def on_pg(app_db: AppDb, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(app_db.installer, head=tmp_path / "ledger.head") as ledger:
        yield ledger


def test_appends_chain_and_verify(on_pg: Ledger, app_db: AppDb) -> None:
    made = [on_pg.append("x", app="desk", incident="I", body={"i": i, "t": "a\x00ü"}) for i in range(3)]
    with Ledger(app_db.installer) as again:
        assert again.id == on_pg.id
        assert again.entries(incident="I") == made
        assert again.verify() == []
    assert on_pg.verify() == []
    assert "test-installer" not in repr(on_pg) + on_pg.name


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entry SET body = '{}' WHERE seq = 1",
        "DELETE FROM ledger_entry WHERE seq = 2",
        "TRUNCATE ledger_entry",
        "UPDATE ledger_meta SET value = 'x'",
        "DELETE FROM ledger_meta",
    ],
)
def test_the_database_itself_refuses_even_its_owner(on_pg: Ledger, app_db: AppDb, statement: str) -> None:
    on_pg.append("x", app="desk")
    on_pg.append("x", app="desk")
    with psycopg.connect(app_db.installer) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute(sql.SQL(statement))  # type: ignore[arg-type]
    assert on_pg.verify() == []


def test_a_disabled_trigger_and_what_it_let_through_are_found(on_pg: Ledger, app_db: AppDb) -> None:
    for _ in range(4):
        on_pg.append("x", app="desk")
    with psycopg.connect(app_db.installer) as connection:
        connection.execute("ALTER TABLE ledger_entry DISABLE TRIGGER ledger_entry_no_change")
        connection.execute("UPDATE ledger_entry SET body = '{\"a\":1}' WHERE seq = 2")
        connection.execute("DELETE FROM ledger_entry WHERE seq > 3")
    assert on_pg.verify() == [
        "trigger ledger_entry_no_change: gone or changed",
        "entry 2: altered, its content does not give its hash",
        "entry 4: missing from the end: the head file knows entry 4",
    ]


def test_processes_appending_at_once_make_one_chain(on_pg: Ledger, app_db: AppDb) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, app_db.installer, "15", f"app{i}"]) for i in range(4)]
    assert [w.wait(timeout=60) for w in writers] == [0] * 4
    assert on_pg.verify() == []
    for i in range(4):
        assert [e.body["i"] for e in on_pg.entries(app=f"app{i}")] == list(range(15))
    assert on_pg.head()[0] == 60


def test_opening_at_once_makes_one_ledger(app_db: AppDb) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, app_db.installer, "1", "a"]) for _ in range(3)]
    assert [w.wait(timeout=60) for w in writers] == [0] * 3
    with Ledger(app_db.installer) as ledger:
        assert (ledger.head()[0], ledger.verify()) == (3, [])


def test_a_fork_does_not_share_a_connection(on_pg: Ledger, app_db: AppDb) -> None:
    subprocess.run([sys.executable, "-c", FORK, app_db.installer], check=True, timeout=60)
    assert [len(on_pg.entries(app=a)) for a in ("parent", "child")] == [21, 20]
    assert on_pg.verify() == []


def test_one_lease_per_app(on_pg: Ledger, app_db: AppDb) -> None:
    with Ledger(app_db.installer) as other:
        with on_pg.lease("desk", "R1", ttl_s=60) as lease:
            with pytest.raises(LeaseHeld, match="R1"):
                other.lease("desk", "R2")
            lease.renew()
            on_pg.append("x", app="desk", lease=lease)
        with other.lease("desk", "R2") as second:
            assert second.fencing == lease.fencing + 1


def test_an_unreachable_server_is_one_line_without_the_password() -> None:
    with pytest.raises(Unreachable) as raised:
        Ledger("postgresql://me:hunter22@127.0.0.1:1/ledger?connect_timeout=1")
    assert "hunter22" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_connection_cut_in_between_is_made_anew(on_pg: Ledger, app_db: AppDb) -> None:
    on_pg.append("x", app="desk")
    with psycopg.connect(app_db.superuser, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert on_pg.append("x", app="desk").seq == 2
