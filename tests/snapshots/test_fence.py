"""A fenced role cannot write; lowering the fence gives back exactly what was taken; what leaks is named."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from journal_desk import Desk, open_desk

from snapshots import fence
from snapshots.errors import Refused
from snapshots.journal import journal
from snapshots.model import TableSpec

pytestmark = pytest.mark.postgres

SCHEMA = """
CREATE TABLE public.orders (id int PRIMARY KEY, qty int, note text);
CREATE TABLE public.items (id int PRIMARY KEY, qty int, note text);
CREATE TABLE public."Odd.Name" (id int);
GRANT ALL ON public.orders, public."Odd.Name" TO wf_intake;
GRANT UPDATE ON public.items TO wf_intake WITH GRANT OPTION;
GRANT INSERT (id, note), UPDATE (qty), SELECT (id) ON public.items TO wf_intake;
GRANT INSERT, SELECT ON public.orders, public.items TO wf_other;
INSERT INTO public.orders SELECT n FROM generate_series(1, 5) n;
"""
TABLES = (TableSpec(name="public.orders", key=("id",)), TableSpec(name="public.items", key=("id",)))
GRANTS = """
SELECT c.relname::text, NULL, x.grantee::regrole::text, x.privilege_type, x.is_grantable, x.grantor::regrole::text
FROM pg_class c, aclexplode(c.relacl) x WHERE c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT c.relname, a.attname::text, x.grantee::regrole::text, x.privilege_type, x.is_grantable, x.grantor::regrole::text
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl) x
WHERE c.relnamespace = 'public'::regnamespace
"""


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db, SCHEMA, writers=("wf_intake", "wf_other")) as made:
        made.install(*TABLES)
        yield made


def grants(desk: Desk) -> set[tuple[Any, ...]]:
    rows = set(desk.capturer.execute(GRANTS).fetchall())
    desk.capturer.rollback()
    return rows


WRITES = (
    "INSERT INTO orders VALUES (9)",
    "UPDATE orders SET qty = 1",
    "DELETE FROM orders",
    "TRUNCATE orders",
    "INSERT INTO items (id) VALUES (9)",
    "UPDATE items SET qty = 1",
    "UPDATE items SET note = ''",
    'INSERT INTO "Odd.Name" VALUES (9)',
)


def test_a_fenced_role_cannot_write_and_gets_everything_back_exactly(desk: Desk) -> None:
    before = grants(desk)
    assert fence.raise_(desk.recoverer, "wf_intake", "inc-1") > 0
    for text in WRITES:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            desk.write(text)
    desk.write("SELECT id FROM orders")
    assert fence.leaks(desk.recoverer, ["wf_intake"]) == []
    assert {g for g in grants(desk) if g[2] != "wf_intake"} == {g for g in before if g[2] != "wf_intake"}
    assert fence.raise_(desk.recoverer, "wf_intake", "inc-1") == 0, "raising twice takes nothing more"
    assert fence.lower(desk.recoverer, "wf_intake", "inc-1") > 0
    assert grants(desk) == before
    assert fence.lower(desk.recoverer, "wf_intake", "inc-1") == 0
    assert grants(desk) == before
    for text in WRITES:
        with desk.app.transaction(force_rollback=True):
            desk.write(text)


def test_an_open_transaction_cannot_write_on_behind_the_fence(desk: Desk) -> None:
    desk.write("BEGIN")
    desk.write("UPDATE orders SET qty = 1 WHERE id = 1")
    fence.raise_(desk.recoverer, "wf_intake", "inc-1")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        desk.write("UPDATE orders SET qty = 1 WHERE id = 2")
    desk.write("ROLLBACK")
    assert desk.images("public.orders") == []


def test_two_incidents_hold_one_fence(desk: Desk) -> None:
    before = grants(desk)
    fence.raise_(desk.recoverer, "wf_intake", "inc-1")
    fence.raise_(desk.recoverer, "wf_intake", "inc-2")
    assert fence.lower(desk.recoverer, "wf_intake", "inc-1") == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        desk.write("DELETE FROM orders")
    fence.lower(desk.recoverer, "wf_intake", "inc-2")
    assert grants(desk) == before


def test_a_grant_at_the_same_moment_does_not_keep_the_fence_down(desk: Desk) -> None:
    taken: list[int] = []
    desk.owner.execute("GRANT SELECT ON orders TO wf_other")
    thread = threading.Thread(target=lambda: taken.append(fence.raise_(desk.recoverer, "wf_intake", "inc-1")))
    thread.start()
    while not desk.one(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'recoverer'"
    ):
        time.sleep(0.01)
    desk.owner.commit()
    thread.join()
    assert taken[0] > 0
    assert fence.leaks(desk.recoverer, ["wf_intake"]) == []


def test_grants_for_what_is_gone_by_then_are_skipped(desk: Desk) -> None:
    fence.raise_(desk.recoverer, "wf_intake", "inc-1")
    desk.ddl('DROP TABLE "Odd.Name"; ALTER TABLE items DROP COLUMN qty')
    fence.lower(desk.recoverer, "wf_intake", "inc-1")
    desk.write("DELETE FROM orders")
    desk.write("INSERT INTO items (id, note) VALUES (1, '')")


@pytest.mark.parametrize("role", ["installer", "capturer", "recoverer", "nobody_here"])
def test_roles_of_reinstate_and_unknown_ones_are_refused(desk: Desk, role: str) -> None:
    before = grants(desk)
    with pytest.raises(Refused, match=role):
        fence.raise_(desk.recoverer, role, "inc-1")
    assert grants(desk) == before


def test_only_the_recoverer_may_raise_a_fence(desk: Desk) -> None:
    with pytest.raises(Refused, match="permission denied"):
        fence.raise_(desk.capturer, "wf_intake", "inc-1")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        desk.write("SELECT reinstate.unfence('wf_intake', 'inc-1')")


@pytest.mark.parametrize(
    ("setup", "through"),
    [
        ("GRANT DELETE ON public.orders TO PUBLIC", "PUBLIC"),
        ("GRANT wf_other TO wf_intake", "membership in wf_other"),
        ("GRANT wf_other TO wf_intake WITH INHERIT FALSE, SET TRUE", "membership in wf_other"),
        ("GRANT installer TO wf_intake", "membership in the owner installer"),
        ("ALTER TABLE public.items OWNER TO wf_intake", "ownership"),
        ("GRANT pg_write_all_data TO wf_intake", "pg_write_all_data"),
        (
            "GRANT UPDATE ON public.orders TO wf_other WITH GRANT OPTION; SET ROLE wf_other;"
            " GRANT UPDATE ON public.orders TO wf_intake",
            "a grant by wf_other",
        ),
    ],
)
def test_what_the_fence_does_not_reach_is_named(desk: Desk, setup: str, through: str) -> None:
    with psycopg.connect(desk.db.superuser) as administrator:
        if "INHERIT" in setup and administrator.info.server_version < 160000:
            pytest.skip("memberships have no options of their own before PostgreSQL 16")
        administrator.execute(setup.encode())
    try:
        fence.raise_(desk.recoverer, "wf_intake", "inc-1")
        leaks = fence.leaks(desk.recoverer, ["wf_intake", "wf_other"])
        desk.recoverer.rollback()
        assert {leak.through for leak in leaks if leak.role == "wf_intake"} == {through}
        assert any(leak.role == "wf_other" for leak in leaks)
    finally:
        with psycopg.connect(desk.db.superuser) as administrator:
            for role in ("wf_other", "installer", "pg_write_all_data"):
                administrator.execute(f"REVOKE {role} FROM wf_intake".encode())


def test_writers_and_last_write(desk: Desk) -> None:
    start = journal.tick(desk.recoverer)
    assert fence.writers(desk.recoverer, ["wf_intake"]) == []
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 1 WHERE id = 1")
        (writer,) = fence.writers(desk.recoverer, ["wf_intake"])
        assert (writer.role, writer.pid) == ("wf_intake", desk.app.info.backend_pid)
        assert writer.state == "idle in transaction"
        assert fence.writers(desk.recoverer, ["wf_other"]) == []
    newest = fence.last_write(desk.recoverer, ["wf_intake", "wf_other"], since=start)
    assert set(newest) == {"wf_intake"}
    assert newest == fence.last_write(desk.recoverer, ["wf_intake", "wf_other"])
    assert fence.last_write(desk.recoverer, ["wf_intake"], since=journal.tick(desk.recoverer)) == {}


def test_hidden_sessions_are_not_read_as_quiet(desk: Desk) -> None:
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 1 WHERE id = 1")
        with desk.session(desk.db.dsn("wf_other")) as blind, pytest.raises(Refused, match="pg_monitor"):
            fence.writers(blind, ["wf_intake"])


def test_quiet_is_waited_for_and_not_claimed_too_early(desk: Desk) -> None:
    start = journal.tick(desk.recoverer)
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 1 WHERE id = 1")
        found = fence.wait_quiet(desk.recoverer, ["wf_intake"], since=start, settle_s=0.05, timeout_s=0.2)
        assert not found.quiet
        assert [w.role for w in found.writers] == ["wf_intake"]
    until = time.monotonic() + 0.4

    def late() -> None:
        while time.monotonic() < until:
            desk.write("UPDATE orders SET qty = 1 WHERE id = 2")
            time.sleep(0.02)

    thread = threading.Thread(target=late)
    thread.start()
    found = fence.wait_quiet(desk.recoverer, ["wf_intake"], since=start, settle_s=0.2, timeout_s=10)
    ended = time.monotonic()
    thread.join()
    assert found.quiet
    assert ended - until >= 0.1
    assert found.last_write == fence.last_write(desk.recoverer, ["wf_intake"])["wf_intake"]


TRIGGERS = """
CREATE TABLE public.orders (id int PRIMARY KEY, qty int);
GRANT ALL ON public.orders TO wf_intake;
CREATE FUNCTION public.loud() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'fired %', TG_NAME; END $$;
CREATE TRIGGER one BEFORE UPDATE ON public.orders EXECUTE FUNCTION public.loud();
CREATE TRIGGER two BEFORE UPDATE ON public.orders EXECUTE FUNCTION public.loud();
ALTER TABLE public.orders ENABLE ALWAYS TRIGGER one;
ALTER TABLE public.orders DISABLE TRIGGER two;
CREATE TRIGGER three BEFORE DELETE ON public.orders EXECUTE FUNCTION public.loud();
"""


def test_declared_triggers_are_switched_and_their_state_comes_back(app_db: Any) -> None:
    with open_desk(app_db, TRIGGERS) as desk:
        desk.install(TableSpec(name="public.orders", key=("id",), suppress=("one", "two")))
        state = "SELECT array_agg(tgname || tgenabled::text ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal"
        before = desk.one(state)
        switch = "SELECT reinstate.set_triggers('public.orders', %s, %s)"
        for _ in range(2):
            desk.recoverer.execute(switch, (["one", "two"], False))
        desk.recoverer.commit()
        desk.write("UPDATE orders SET qty = 1")
        for _ in range(2):
            desk.recoverer.execute(switch, (["one", "two"], True))
        desk.recoverer.commit()
        assert desk.one(state) == before
        for wrong in ("three", "rj_insert", "none"):
            with pytest.raises(psycopg.DatabaseError, match="not one that the catalogue declares"):
                desk.recoverer.execute(switch, ([wrong], False))
            desk.recoverer.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            desk.capturer.execute(switch, (["one"], False))
        desk.capturer.rollback()
        journal.tick(desk.recoverer)
        assert desk.gaps() == []
