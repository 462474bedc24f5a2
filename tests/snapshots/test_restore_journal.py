"""A restore by the journal: exact to the tick, whatever happened in between, and refused where it has doubts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from point_desk import CUSTOMERS, LOG, ORDERS, TABLES, build, image, take, write

from snapshots import database
from snapshots.errors import Refused
from snapshots.journal import journal, ticks
from snapshots.model import Applied, Position, RecoveryPoint, TableSpec
from snapshots.points.errors import CapPassed, WouldBreak
from snapshots.restore import diff, restore
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres
KEYED = (CUSTOMERS, ORDERS)
NAMES = ("shop.customers", "shop.orders")
WIDE = restore.Caps(max_deleted_share=1.0)


@pytest.fixture
def app(app_db: Any) -> Any:
    build(app_db)
    return app_db


def _tick(app: Any) -> Position:
    with database.connect(app.recoverer, purpose="test") as conn:
        return journal.tick(conn)


def _back(
    app: Any,
    target: Position | RecoveryPoint,
    tables: Sequence[TableSpec] = KEYED,
    store: Store | None = None,
    **options: Any,
) -> Applied:
    with database.connect(app.recoverer, purpose="test", lock_timeout_s=0.5) as conn:
        step = f"s{len(str(target))}{options.get('source')}"
        return restore.apply(
            conn, target, store, tables, recovery_id="r1", **({"step": step, "plan_hash": "h", "caps": WIDE} | options)
        )


def _plan(app: Any, target: Any, tables: Sequence[TableSpec] = KEYED, store: Store | None = None, **o: Any) -> Any:
    with database.connect(app.capturer, purpose="test") as conn:
        return restore.plan(conn, target, store, tables, **o)


def _rows(app: Any, query: str) -> list[Any]:
    with psycopg.connect(app.superuser) as conn:
        return conn.execute(query.encode()).fetchall()


def test_every_kind_of_later_work_is_taken_back(app: Any) -> None:
    write(app, "UPDATE shop.orders SET total = 3 WHERE id = 3")
    then, before = _tick(app), image(app, *NAMES)
    for statement in (
        "UPDATE shop.orders SET total = 0 WHERE id <= 60",
        "UPDATE shop.orders SET total = 1, note = '{}' WHERE id BETWEEN 50 AND 80",
        "DELETE FROM shop.orders WHERE id BETWEEN 70 AND 90",
        "INSERT INTO shop.customers (email) VALUES ('new@example.com')",
        "INSERT INTO shop.orders (customer_id, total) VALUES (21, 5)",
        "UPDATE shop.orders SET total = 6 WHERE id = 201",
        "DELETE FROM shop.orders WHERE id = 201",
        "UPDATE shop.customers SET email = 'x' WHERE id = 1",
    ):
        write(app, statement)
    shown = _plan(app, then)
    assert {t.table: (t.how, t.added, t.changed, t.deleted) for t in shown.tables} == {
        "shop.customers": ("journal", 1, 1, 0),
        "shop.orders": ("journal", 0, 69, 21),
    }
    done = _back(app, then, expected=shown.tables)
    assert image(app, *NAMES) == before
    assert (done.detail["how"]["shop.orders"], done.detail["point"]) == ("journal", None)
    assert [t.rows for t in _plan(app, then).tables] == [0, 0]


def test_it_is_journaled_under_its_own_name(app: Any) -> None:
    then = _tick(app)
    write(app, "UPDATE shop.orders SET total = 0 WHERE id <= 5")
    wrecked = _tick(app)
    bad = image(app, *NAMES)
    _back(app, then)
    with database.connect(app.recoverer, purpose="test") as conn:
        (mine,) = journal.transactions(conn, since=wrecked)
    assert (mine.actor, mine.run, mine.rows) == ("recoverer", "r1", 10)
    _back(app, wrecked, step="again")
    assert image(app, *NAMES) == bad, "a restore can be taken back like anything else"


def test_what_ends_where_it_began_is_no_difference(app: Any) -> None:
    write(app, "ALTER TABLE shop.orders DISABLE TRIGGER orders_touch")
    then, before = _tick(app), image(app, *NAMES)
    write(app, "UPDATE shop.orders SET total = total WHERE id = 1")
    for total in ("9", "2.20"):
        write(app, f"UPDATE shop.orders SET total = {total} WHERE id = 2")
    write(app, "INSERT INTO shop.orders (id, customer_id, total) VALUES (900, 1, 1)")
    write(app, "DELETE FROM shop.orders WHERE id = 900")
    write(
        app,
        "CREATE TEMP TABLE kept AS SELECT * FROM shop.orders WHERE id = 4",
        "DELETE FROM shop.orders WHERE id = 4",
        "INSERT INTO shop.orders SELECT * FROM kept",
    )
    assert image(app, *NAMES) == before
    assert [t.rows for t in _plan(app, then).tables] == [0, 0]


def test_a_trigger_that_updates_the_row_again(app: Any) -> None:
    """The inner statement journals first, so that the order of the images lies."""
    write(
        app,
        "CREATE FUNCTION shop.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE shop.customers SET email = email || '!' WHERE id = NEW.id; RETURN NULL; END $$",
        "CREATE TRIGGER twice AFTER UPDATE ON shop.customers FOR EACH ROW WHEN (pg_trigger_depth() = 0)"
        " EXECUTE FUNCTION shop.again()",
    )
    spec = replace(CUSTOMERS, suppress=("twice",))
    with database.connect(app.installer, purpose="test") as conn:
        journal.install(conn, [spec, ORDERS], capturer="capturer", recoverer="recoverer")
    then, before = _tick(app), image(app, *NAMES)
    write(app, "UPDATE shop.customers SET email = 'y' || id WHERE id <= 5")
    write(app, "UPDATE shop.customers SET email = 'z' || id WHERE id <= 3")
    _back(app, then, (spec, ORDERS))
    assert image(app, *NAMES) == before
    write(app, "UPDATE shop.customers SET email = 'y' || id WHERE id <= 5")
    _back(app, then, (CUSTOMERS, ORDERS), step="fires")
    assert image(app, *NAMES) == before, "where the trigger fires, rows are replaced instead"
    write(app, "CREATE TRIGGER thrice AFTER INSERT ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.again()")
    write(app, "UPDATE shop.customers SET email = 'y' || id WHERE id <= 5")
    damaged = image(app, *NAMES)
    with pytest.raises(WouldBreak, match="still differ"):
        _back(app, then, (CUSTOMERS, ORDERS), step="fires more")
    assert image(app, *NAMES) == damaged


def test_a_transaction_open_across_the_tick_is_later_work(app: Any) -> None:
    before = image(app, *NAMES)
    with psycopg.connect(app.installer) as slow:
        slow.execute("UPDATE shop.orders SET total = 0 WHERE id = 1")
        then = _tick(app)
    _back(app, then)
    assert image(app, *NAMES) == before


def test_what_comes_between_look_and_lock_is_taken_back_too(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    then, before = _tick(app), image(app, *NAMES)
    write(app, "UPDATE shop.orders SET total = 0 WHERE id <= 5")
    look = restore._write

    def later(*arguments: Any, **options: Any) -> Applied:
        write(app, "UPDATE shop.orders SET total = 1 WHERE id BETWEEN 4 AND 8", "DELETE FROM shop.orders WHERE id = 1")
        write(app, "INSERT INTO shop.orders (customer_id, total) VALUES (1, 7)")
        return look(*arguments, **options)

    monkeypatch.setattr(restore, "_write", later)
    done = _back(app, then)
    assert image(app, *NAMES) == before
    assert done.detail["tables"]["shop.orders"] == {"delete": 1, "update": 7, "insert": 1}


def test_a_cap_is_a_share_of_the_rows_under_the_lock(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    then, look = _tick(app), restore._write

    def later(*arguments: Any, **options: Any) -> Applied:
        write(app, "INSERT INTO shop.orders (customer_id, total) SELECT 1, 7 FROM generate_series(1, 300)")
        return look(*arguments, **options)

    monkeypatch.setattr(restore, "_write", later)
    with pytest.raises(CapPassed, match="delete 300 of 500 rows"):
        _back(app, then, caps=restore.Caps(max_deleted_share=0.5))
    with pytest.raises(CapPassed, match="delete 600 of 800 rows"):
        _back(app, then, caps=restore.Caps(max_deleted_share=0.7))
    assert _back(app, then, caps=restore.Caps(max_deleted_share=0.9)).detail["tables"]["shop.orders"]["delete"] == 900


def test_without_a_journal_only_what_was_seen_is_touched(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned rows are looked at again under the lock; what others wrote to other rows comes after the restore."""
    point, store = take(app, tmp_path, tables=KEYED)
    before = image(app, *NAMES)
    write(app, "UPDATE shop.orders SET total = 0 WHERE id <= 5", "DELETE FROM shop.orders WHERE id = 9")
    look = restore._write

    def later(*arguments: Any, **options: Any) -> Applied:
        write(app, "UPDATE shop.orders SET total = 1 WHERE id = 4", "DELETE FROM shop.orders WHERE id = 5")
        write(app, "INSERT INTO shop.orders (customer_id, total) VALUES (1, 7)")
        return look(*arguments, **options)

    monkeypatch.setattr(restore, "_write", later)
    done = _back(app, point, store=store, source="scan")
    assert done.detail["how"] == {"shop.customers": "scan", "shop.orders": "scan"}
    assert done.detail["tables"]["shop.orders"] == {"delete": 0, "update": 4, "insert": 2}
    write(app, "DELETE FROM shop.orders WHERE id = 201")
    assert image(app, *NAMES) == before


def test_a_journal_that_missed_something_is_not_believed(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path, tables=KEYED)
    before = image(app, *NAMES)
    write(app, "UPDATE shop.orders SET total = 0 WHERE id <= 5")
    write(app, "UPDATE shop.orders SET total = 1 WHERE id <= 3")
    twin = _rows(app, "SELECT twin FROM reinstate.journal_table WHERE table_name = 'shop.orders'")[0][0]
    with psycopg.connect(app.superuser) as conn:
        conn.execute(f"DELETE FROM reinstate.{twin} WHERE id = 2 AND total = 1".encode())
    with pytest.raises(Refused, match="missed changes of 1 rows"):
        _plan(app, point, store=store)
    damaged = image(app, *NAMES)
    with pytest.raises(Refused, match="journal missed changes"):
        _back(app, point, store=store, source="journal")
    assert image(app, *NAMES) == damaged
    _back(app, point, store=store, source="scan")
    assert image(app, *NAMES) == before


def test_beyond_the_reach_of_the_journal(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    then, before = _tick(app), image(app, *NAMES)
    write(app, "ALTER TABLE shop.orders DISABLE TRIGGER rj_update", "UPDATE shop.orders SET total = 0 WHERE id = 1")
    with pytest.raises(Refused, match=r"journal of shop\.orders does not reach back"):
        _plan(app, then)
    with pytest.raises(Refused, match=r"journal of shop\.log does not reach back"):
        _plan(app, then, [LOG])
    with pytest.raises(Refused, match="does not reach back"):
        _back(app, replace(then, system_id="1"))
    assert {t.table: t.how for t in _plan(app, point, TABLES, store).tables} == {
        "shop.customers": "journal",
        "shop.orders": "scan",
        "shop.log": "compare",
    }
    _back(app, point, TABLES, store)
    assert image(app, *NAMES) == before


def test_ticks_are_found_by_time_and_number(app: Any) -> None:
    first, second = _tick(app), _tick(app)
    with database.connect(app.capturer, purpose="test") as conn:
        assert ticks.at(conn, second.at) == second
        assert ticks.at(conn, first.at) == first
        oldest = ticks.first(conn)
        assert oldest is not None
        assert oldest <= first.at
        assert ticks.at(conn, 10**9) is None


def test_circles_of_references_are_closed(app: Any) -> None:
    write(
        app,
        "CREATE TABLE shop.teams (id int PRIMARY KEY, lead int)",
        "CREATE TABLE shop.people (id int PRIMARY KEY, team int NOT NULL REFERENCES shop.teams, boss int"
        " REFERENCES shop.people)",
        "ALTER TABLE shop.teams ADD FOREIGN KEY (lead) REFERENCES shop.people",
        "INSERT INTO shop.teams SELECT n FROM generate_series(1, 3) n",
        "INSERT INTO shop.people SELECT n, 1 + n % 3, nullif(n - 1, 0) FROM generate_series(1, 9) n",
        "UPDATE shop.teams SET lead = id",
        "GRANT ALL ON shop.teams, shop.people TO recoverer",
        "GRANT SELECT ON shop.teams, shop.people TO capturer",
    )
    tables = [TableSpec(name=f"shop.{n}", key=("id",)) for n in ("teams", "people")]
    with database.connect(app.installer, purpose="test") as conn:
        journal.install(conn, tables, capturer="capturer", recoverer="recoverer")
    then, before = _tick(app), image(app, "shop.teams", "shop.people")
    write(app, "UPDATE shop.teams SET lead = NULL", "DELETE FROM shop.people", "DELETE FROM shop.teams")
    _back(app, then, tables)
    assert image(app, "shop.teams", "shop.people") == before
    write(
        app,
        "INSERT INTO shop.teams VALUES (9, NULL)",
        "INSERT INTO shop.people VALUES (90, 9, 90), (91, 9, 90)",
        "UPDATE shop.teams SET lead = 90 WHERE id = 9",
        "UPDATE shop.teams SET lead = 91 WHERE id = 1",
    )
    _back(app, then, tables, step="again")
    assert image(app, "shop.teams", "shop.people") == before


@pytest.mark.parametrize("on_delete", ["NO ACTION", "RESTRICT", "CASCADE", "SET NULL"])
def test_references_and_unique_values_that_block_each_other_come_back(app: Any, on_delete: str) -> None:
    """The parent must be there before its child names it, and the children exchange unique values: no order of single
    statements leads back."""
    write(
        app,
        "CREATE TABLE shop.racks (id int PRIMARY KEY, label text UNIQUE)",
        "CREATE TABLE shop.boxes (id int PRIMARY KEY, rack int, u int UNIQUE,"
        f" FOREIGN KEY (rack) REFERENCES shop.racks ON DELETE {on_delete})",
        "INSERT INTO shop.racks VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "INSERT INTO shop.boxes VALUES (10, 1, 1), (11, 2, 2), (12, 3, 3)",
        "GRANT ALL ON shop.racks, shop.boxes TO recoverer",
        "GRANT SELECT ON shop.racks, shop.boxes TO capturer",
    )
    tables = [TableSpec(name=f"shop.{n}", key=("id",)) for n in ("racks", "boxes")]
    with database.connect(app.installer, purpose="test") as conn:
        journal.install(conn, tables, capturer="capturer", recoverer="recoverer")
    then, before = _tick(app), image(app, "shop.racks", "shop.boxes")
    write(
        app,
        "INSERT INTO shop.racks VALUES (4, 'd')",
        "UPDATE shop.boxes SET rack = 2 WHERE id = 10",
        "UPDATE shop.boxes SET rack = 4 WHERE id = 12",
        "DELETE FROM shop.racks WHERE id IN (1, 3)",
        "UPDATE shop.racks SET label = 'a' WHERE id = 2",
        "UPDATE shop.boxes SET u = 9 WHERE id = 11",
        "UPDATE shop.boxes SET u = 2 WHERE id = 10",
        "UPDATE shop.boxes SET u = 1 WHERE id = 11",
    )
    _back(app, then, tables)
    assert image(app, "shop.racks", "shop.boxes") == before


def test_what_would_bend_the_rows_is_refused_before_anything_is_touched(app: Any) -> None:
    then = _tick(app)
    write(app, "UPDATE shop.orders SET total = 0 WHERE id = 1")
    damaged = image(app, *NAMES)
    strange = replace(ORDERS, undeclared_triggers=("audit",))
    assert "not declared" in _plan(app, then, (CUSTOMERS, strange)).problems[0]
    with pytest.raises(Refused, match="not declared"):
        _back(app, then, (CUSTOMERS, strange))
    write(app, "CREATE RULE quiet AS ON DELETE TO shop.customers DO INSTEAD NOTHING")
    assert "Rule quiet" in _plan(app, then).problems[0]
    with pytest.raises(Refused, match="Rule quiet"):
        _back(app, then)
    write(app, "DROP RULE quiet ON shop.customers", "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY")
    with pytest.raises(Refused, match=r"(?i)row.security"):
        _back(app, then)
    write(app, "ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY")
    assert image(app, *NAMES) == damaged


def test_materialised_views_follow_or_are_named(app: Any) -> None:
    then = _tick(app)
    write(
        app,
        "CREATE MATERIALIZED VIEW shop.sums AS SELECT sum(total) AS s FROM shop.orders",
        "CREATE VIEW shop.halves AS SELECT s / 2 AS h FROM shop.sums",
        "CREATE MATERIALIZED VIEW shop.quarters AS SELECT h / 2 AS q FROM shop.halves",
        "UPDATE shop.orders SET total = 0",
    )
    write(app, "REFRESH MATERIALIZED VIEW shop.sums")
    assert _plan(app, then).views == ("shop.sums", "shop.quarters")
    done = _back(app, then)
    assert done.detail["stale"] == ["shop.sums", "shop.quarters"]
    with psycopg.connect(app.superuser) as conn:
        conn.execute("GRANT installer TO recoverer")
    try:
        write(app, "UPDATE shop.orders SET total = 0")
        done = _back(app, then, step="again")
        assert "stale" not in done.detail
        assert _rows(app, "SELECT s > 0 FROM shop.sums") == [(True,)]
    finally:
        with psycopg.connect(app.superuser) as conn:
            conn.execute("REVOKE installer FROM recoverer")


def test_nothing_temporary_stays_in_the_session(app: Any) -> None:
    then = _tick(app)
    write(app, "UPDATE shop.orders SET total = 0 WHERE id <= 5")
    with database.connect(app.recoverer, purpose="test") as conn:
        diff.diff(conn, then, None)
        restore.plan(conn, then, None, KEYED)
        restore.apply(conn, then, None, KEYED, recovery_id="r", step="s", plan_hash="h", caps=WIDE)
        left = conn.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'reinstate_%' AND relpersistence = 't'")
        assert left.fetchone() == (0,)


CHANGES = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["edit", "move", "delete", "insert", "back", "again"]), st.integers(1, 12)),
        min_size=1,
        max_size=4,
    ),
    max_size=6,
)
STATEMENTS = {
    "edit": "UPDATE shop.orders SET total = total + {n} WHERE id % 12 = {n} % 12",
    "move": "UPDATE shop.orders SET customer_id = 1 + {n} WHERE id % 5 = {n} % 5",
    "delete": "DELETE FROM shop.orders WHERE id % 30 = {n}",
    "insert": "INSERT INTO shop.orders (id, customer_id, total) SELECT i, {n}, 1 FROM generate_series(1, 200) i"
    " WHERE i % 30 = {n} ON CONFLICT (id) DO UPDATE SET total = 99",
    "back": "UPDATE shop.orders SET total = id * 1.10 WHERE id % 12 = {n} % 12",
    "again": "INSERT INTO shop.customers (email) VALUES ('n{n}') ON CONFLICT (email) DO UPDATE SET email = 'm{n}'",
}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES)
def test_any_mixture_of_transactions(changes: list[list[tuple[str, int]]], module_app_db: Any) -> None:
    app = module_app_db
    write(app, "DROP SCHEMA IF EXISTS shop CASCADE", "DROP SCHEMA IF EXISTS reinstate CASCADE")
    build(app)
    then, before = _tick(app), image(app, *NAMES)
    for transaction in changes:
        try:
            write(app, *(STATEMENTS[kind].format(n=n) for kind, n in transaction))
        except psycopg.errors.UniqueViolation:
            continue
    _back(app, then)
    assert image(app, *NAMES) == before
