"""Installing shows its SQL, waits for nobody, changes nothing twice; removing leaves nothing."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from journal_desk import ORDERS, Desk, open_desk

from snapshots.errors import Refused
from snapshots.journal import journal
from snapshots.journal.ddl import twin_name
from snapshots.model import TableSpec

pytestmark = pytest.mark.postgres

CATALOGUE = """
SELECT 'class', oid::text, relname::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|inf)'
UNION ALL SELECT 'trigger', oid::text, tgname::text FROM pg_trigger
UNION ALL SELECT 'function', oid::text, proname::text FROM pg_proc
    WHERE pronamespace::regnamespace::text !~ '^(pg_|inf)'
UNION ALL SELECT 'schema', oid::text, nspname::text FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
UNION ALL SELECT 'acl', oid::text, relacl::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|inf)'
ORDER BY 1, 2, 3
"""


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db) as made:
        yield made


def catalogue(desk: Desk) -> list[Any]:
    rows = desk.owner.execute(CATALOGUE).fetchall()
    desk.owner.rollback()
    return rows


def test_dry_run_prints_what_a_real_run_does_and_changes_nothing(desk: Desk) -> None:
    before = catalogue(desk)
    shown = desk.install(dry_run=True)
    assert catalogue(desk) == before
    assert shown == desk.install()
    assert catalogue(desk) != before
    assert desk.install(dry_run=True) == []
    text = "\n".join(shown)
    assert "SECURITY DEFINER SET search_path = pg_catalog, pg_temp" in text
    assert 'ENABLE ALWAYS TRIGGER "rj_update"' in text


def test_installing_twice_changes_nothing(desk: Desk) -> None:
    desk.install()
    before = catalogue(desk)
    assert desk.install() == []
    assert catalogue(desk) == before
    assert desk.gaps() == []


def test_removing_leaves_nothing_and_says_what_it_was(desk: Desk) -> None:
    with psycopg.connect(desk.db.superuser) as administrator:
        administrator.execute("DROP SCHEMA reinstate")
    before = catalogue(desk)
    desk.install()
    desk.write("UPDATE orders SET qty = 0")
    removed = journal.remove(desk.owner)
    assert catalogue(desk) == before
    assert "trigger rj_update on public.orders" in removed
    assert "table reinstate.j_public__orders" in removed
    assert removed[-1] == "schema reinstate"
    assert desk.write("UPDATE orders SET qty = 1") == 5
    assert journal.remove(desk.owner) == []


def test_a_fenced_role_keeps_the_journal_from_being_removed(desk: Desk) -> None:
    desk.install()
    desk.recoverer.execute("SELECT reinstate.fence('wf_intake', 'inc-1')")
    desk.recoverer.commit()
    with pytest.raises(Refused, match="wf_intake is still fenced"):
        journal.remove(desk.owner)


@pytest.mark.parametrize(
    ("schema", "spec", "message"),
    [
        ("CREATE TABLE public.t (id int, rj_seq int)", TableSpec(name="public.t", key=("id",)), "column rj_seq"),
        ("CREATE TABLE public.t (id int)", TableSpec(name="public.t", key=("nr",)), "no column nr"),
        ("CREATE TABLE public.t (id int)", TableSpec(name="public.u", key=()), "does not exist"),
        ("CREATE VIEW public.t AS SELECT 1 AS id", TableSpec(name="public.t", key=()), "not an ordinary table"),
        (
            "CREATE TABLE public.t (id int); CREATE TABLE public.u () INHERITS (public.t)",
            TableSpec(name="public.t", key=()),
            "inheritance children",
        ),
    ],
)
def test_tables_that_cannot_be_journaled_are_refused_by_name(
    desk: Desk, schema: str, spec: TableSpec, message: str
) -> None:
    desk.ddl(schema)
    before = catalogue(desk)
    with pytest.raises(Refused, match=message):
        desk.install(ORDERS, spec)
    assert catalogue(desk) == before


def test_only_the_owner_may_install(desk: Desk) -> None:
    with pytest.raises(Refused, match="does not belong to recoverer"):
        journal.install(desk.recoverer, [ORDERS], capturer="capturer", recoverer="recoverer")
    with pytest.raises(Refused, match="role nobody_here does not exist"):
        journal.install(desk.owner, [ORDERS], capturer="nobody_here", recoverer="recoverer")


def test_a_trigger_of_the_app_with_our_name_is_not_replaced(desk: Desk) -> None:
    desk.ddl(
        "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER rj_insert AFTER INSERT ON orders EXECUTE FUNCTION mine()"
    )
    with pytest.raises(Refused, match="rj_insert"):
        desk.install()


def test_refused_while_a_long_transaction_writes_to_the_table(desk: Desk) -> None:
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
        time.sleep(0.3)
        with pytest.raises(Refused, match=r"transaction of wf_intake .*has been writing"):
            desk.install(long_transaction_s=0.2)
    desk.install(long_transaction_s=0.2)


def test_a_busy_table_is_not_waited_for_and_the_app_hardly_waits_for_us(desk: Desk) -> None:
    pauses: list[float] = []
    longest = 0.0
    other = desk.session(desk.db.dsn("wf_intake"), autocommit=True)
    done = threading.Event()

    def traffic() -> None:
        nonlocal longest
        while not done.is_set():
            start = time.monotonic()
            other.execute("UPDATE orders SET qty = 0 WHERE id = 2")
            longest = max(longest, time.monotonic() - start)

    thread = threading.Thread(target=traffic)
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
        thread.start()
        with pytest.raises(Refused, match="too busy"):
            desk.install(sleep=pauses.append, long_transaction_s=60)
        done.set()
        thread.join()
    assert pauses == sorted(pauses)
    assert len(pauses) == 7
    assert longest < 2
    desk.install()


def test_old_sessions_follow_a_new_function(desk: Desk) -> None:
    desk.install()
    desk.write("UPDATE orders SET qty = 1 WHERE id = 1")
    desk.ddl("ALTER TABLE orders ADD COLUMN extra int DEFAULT 3")
    desk.install()
    desk.write("UPDATE orders SET extra = 4 WHERE id = 1")
    assert desk.images(columns=("id", "extra"))[-2:] == [("U", "o", 1, 3), ("U", "n", 1, 4)]


def test_twin_names_are_plain_and_unique() -> None:
    names = ["a.b", "a.b_c", "a_b.c", "a__b.c", "a.b__c", "A.b", 'a."b"', "a." + "x" * 63, "a." + "x" * 62 + "y"]
    twins = [twin_name(n) for n in names]
    assert len(set(twins)) == len(names)
    assert all(len(t + "_truncate") <= 63 for t in twins)
    assert twin_name("public.order_items") == "j_public__order_items"
