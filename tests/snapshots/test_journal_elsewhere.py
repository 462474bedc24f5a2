"""A journal that a logical copy carried to another server says so, is good for no position, and begins anew."""

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from journal_desk import ORDERS, Desk, open_desk

from estate.estate import default_cache
from estate.postgres_programs import DEFAULT_VERSION, installation
from snapshots import database
from snapshots.errors import Incomplete, Refused
from snapshots.journal import journal, ticks
from snapshots.model import JournalTx, Position
from snapshots.restore import diff
from tests.conftest import AppDb, PgServer, drop_app_db, make_app_db, throwaway_server

pytestmark = pytest.mark.postgres
NAME = "public.orders"
FAR = 5_000_000
CLIENTS = "CREATE TABLE public.clients (id int PRIMARY KEY); GRANT SELECT ON public.clients TO capturer"

AHEAD = f"""
CREATE FUNCTION pg_temp.ahead(n xid8) RETURNS xid8 LANGUAGE sql AS $$ SELECT (n::text::bigint + {FAR})::text::xid8 $$;
CREATE FUNCTION pg_temp.ahead(s pg_snapshot) RETURNS pg_snapshot LANGUAGE sql AS $$
    SELECT (pg_temp.ahead(pg_snapshot_xmin(s)) || ':' || pg_temp.ahead(pg_snapshot_xmax(s)) || ':')::pg_snapshot $$;
UPDATE reinstate.j_public__orders SET rj_xid = pg_temp.ahead(rj_xid);
UPDATE reinstate.piece SET closed_xid = pg_temp.ahead(closed_xid);
UPDATE reinstate.tick SET snapshot = pg_temp.ahead(snapshot);
UPDATE reinstate.journal_table SET installed_snapshot = pg_temp.ahead(installed_snapshot),
    seen_xid = pg_temp.ahead(seen_xid);
"""
"""What a copy of rows brings: the numbers of a server that has come further than this one."""
ELSEWHERE = "UPDATE reinstate.tick SET system_id = '1'; UPDATE reinstate.journal_table SET system_id = '1';"
"""A server whose numbers this one has passed."""
OTHER_OIDS = "UPDATE reinstate.journal_table SET relid = 4294967295"


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db) as made:
        made.install()
        journal.tick(made.recoverer)
        made.write("UPDATE orders SET qty = 0 WHERE id < 3")
        journal.tick(made.recoverer)
        yield made


def transactions(desk: Desk, since: Position) -> list[JournalTx]:
    found = journal.transactions(desk.capturer, since=since)
    desk.capturer.rollback()
    return found


@pytest.mark.parametrize("copied", [AHEAD, ELSEWHERE, AHEAD + ELSEWHERE, AHEAD + ELSEWHERE + OTHER_OIDS])
def test_it_is_no_good_until_it_begins_anew(desk: Desk, copied: str) -> None:
    desk.ddl(copied)
    assert desk.kinds() == {(NAME, "other-server")}
    after = journal.tick(desk.recoverer)
    desk.write("UPDATE orders SET qty = 7 WHERE id = 5")
    for _ in range(2):
        journal.tick(desk.recoverer)
    assert desk.kinds(since=after) == {(NAME, "other-server")}
    with pytest.raises(Incomplete, match="run journal install again, which begins anew"):
        journal.require_complete(desk.capturer, since=after, tables=[NAME])
    desk.capturer.rollback()
    with pytest.raises(Refused, match=r"does not reach back to .*other-server"):
        diff.diff(desk.capturer, after, None, [NAME])

    shown = desk.install(dry_run=True)
    said = [s for s in shown if s.startswith("-- public.orders: ")]
    assert said == ["-- public.orders: its journal is of another server, or of a later time of this one: begun anew"]
    assert desk.install() == shown
    assert desk.install() == []
    assert desk.images() == []
    assert desk.kinds(since=after) == {(NAME, "other-server"), (NAME, "not-yet-journaled")}
    begun = journal.tick(desk.recoverer)
    desk.write("UPDATE orders SET qty = 8 WHERE id = 5")
    journal.tick(desk.recoverer)
    assert desk.gaps(since=begun) == []
    assert [t.rows for t in transactions(desk, begun)] == [2]
    (found,) = diff.diff(desk.capturer, begun, None, [NAME])
    assert (found.changed, found.rows) == (1, 1)
    assert [(p.table, p.rows) for p in journal.prune(desk.recoverer, retention=timedelta(0))] == [(NAME, 2)]


@pytest.fixture
def other_server() -> Iterator[PgServer]:
    with throwaway_server("reinstate-other-") as server:
        yield server


def copy_over(source: AppDb, target: AppDb, folder: Path) -> None:
    """By ``pg_dump`` and ``pg_restore``."""
    version = int(os.environ.get("REINSTATE_TEST_POSTGRES") or DEFAULT_VERSION)
    programs, file = installation(version, cache=default_cache()) / "bin", str(folder / "dump")
    if not (programs / "pg_dump").exists():
        pytest.skip("this version comes without pg_dump")
    subprocess.run([programs / "pg_dump", "-Fc", "-f", file, source.superuser], check=True)
    subprocess.run([programs / "pg_restore", "-d", target.superuser, file], check=True)


def moved(desk: Desk, db: AppDb) -> Desk:
    """The desk over another database."""
    db.role("wf_intake")
    connect = desk.stack.enter_context
    return Desk(
        db=db,
        owner=connect(database.connect(db.installer, purpose="test")),
        app=connect(psycopg.connect(db.dsn("wf_intake"), autocommit=True)),
        recoverer=connect(database.connect(db.recoverer, purpose="test")),
        capturer=connect(database.connect(db.capturer, purpose="test")),
        stack=desk.stack,
    )


def test_a_real_dump_on_another_server(desk: Desk, other_server: PgServer, tmp_path: Path) -> None:
    burn = "DO $$ BEGIN FOR n IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    desk.app.execute(burn)
    desk.write("UPDATE orders SET qty = 0 WHERE id = 4")
    journal.tick(desk.recoverer)
    there = make_app_db(other_server, "app")
    new = moved(desk, there)
    copy_over(desk.db, there, tmp_path)
    assert new.images() != []
    assert new.kinds() == {(NAME, "other-server")}
    begun = journal.tick(new.recoverer)
    assert transactions(new, begun) != [], "what was there before counts as written since"
    with pytest.raises(Refused, match="other-server"):
        diff.diff(new.capturer, begun, None, [NAME])
    new.app.execute(burn)
    journal.tick(new.recoverer)
    assert new.kinds() == {(NAME, "other-server")}
    assert new.install()[0].startswith("-- public.orders: ")
    begun = journal.tick(new.recoverer)
    new.write("UPDATE orders SET qty = 1 WHERE id = 4")
    assert new.gaps(since=begun) == []
    assert [t.rows for t in transactions(new, begun)] == [2]
    assert new.images() == [("U", "o", 4), ("U", "n", 4)]


def test_a_real_dump_on_the_same_server_goes_on_after_a_gap(desk: Desk, pg: PgServer, tmp_path: Path) -> None:
    there = make_app_db(pg, "app_again")
    try:
        new = moved(desk, there)
        copy_over(desk.db, there, tmp_path)
        before = journal.tick(new.recoverer)
        new.install()
        begun = journal.tick(new.recoverer)
        new.write("UPDATE orders SET qty = 1 WHERE id = 4")
        assert len(new.images()) == 6
        assert [t.rows for t in transactions(new, before)] == [2]
        assert new.gaps(since=before) != []
        assert new.gaps(since=begun) == []
        for connection in (new.owner, new.app, new.recoverer, new.capturer):
            connection.close()
    finally:
        drop_app_db(there)


def test_what_a_tick_has_found_stays_when_the_numbers_have_gone_past(desk: Desk) -> None:
    desk.ddl(AHEAD)
    journal.tick(desk.recoverer)
    desk.ddl("UPDATE reinstate.journal_table SET seen_xid = '3'")
    journal.tick(desk.recoverer)
    assert desk.kinds() == {(NAME, "other-server")}
    desk.install()
    assert desk.status().gaps == ()


def test_each_table_begins_anew_for_itself_and_ticks_of_elsewhere_go(desk: Desk) -> None:
    desk.ddl(CLIENTS)
    clients = type(ORDERS)(name="public.clients", key=("id",))
    desk.install(ORDERS, clients)
    desk.ddl(
        AHEAD + "CREATE TABLE reinstate.erased (table_name text); INSERT INTO reinstate.erased VALUES"
        " ('public.orders'), ('public.clients');"
        " GRANT SELECT ON reinstate.erased TO capturer"
    )
    assert desk.kinds() == {(NAME, "other-server"), ("public.clients", "other-server")}
    desk.install(clients)
    assert {k for k in desk.kinds() if k[1] == "other-server"} == {(NAME, "other-server")}
    assert ticks.at(desk.capturer, 1) is None
    desk.capturer.rollback()
    assert desk.one("SELECT array_agg(table_name) FROM reinstate.erased") == [NAME]


def test_a_server_that_goes_on_after_its_own_backup_keeps_its_journal(desk: Desk) -> None:
    """Another timeline of the same server: the numbers go on where the images end."""
    desk.ddl("UPDATE reinstate.tick SET timeline = 99")
    assert desk.gaps() == []
    assert desk.install() == []
    assert len(desk.images()) == 4


def test_a_journal_of_the_version_before_is_known_by_its_ticks(desk: Desk) -> None:
    old = "UPDATE reinstate.journal_table SET system_id = NULL, seen_xid = NULL; DELETE FROM reinstate.setting"
    desk.ddl(f"{old} WHERE name = 'version'")
    desk.install()
    assert (desk.gaps(), len(desk.images())) == ([], 4)
    for copied in (AHEAD, ELSEWHERE):
        desk.write("UPDATE orders SET qty = 0 WHERE id < 3")
        journal.tick(desk.recoverer)
        desk.ddl(f"{copied}; {old} WHERE name = 'version'")
        desk.install()
        assert desk.images() == []
