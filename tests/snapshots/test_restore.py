"""A restore by difference: exact, whole or not at all, within its caps, and blunt about later work."""

import threading
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
from snapshots.model import Applied, RecoveryPoint, TableSpec
from snapshots.points.errors import Busy, CapPassed, StepApplied, WouldBreak
from snapshots.restore import diff, restore
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres
NAMES = ("shop.customers", "shop.orders", "shop.log")
WIDE = restore.Caps(max_deleted_share=1.0)
WRECK = (
    "UPDATE shop.orders SET total = 0 WHERE id <= 60",
    "DELETE FROM shop.orders WHERE id BETWEEN 61 AND 70 OR customer_id = 3",
    "DELETE FROM shop.customers WHERE id = 3",
    "INSERT INTO shop.customers (email) VALUES ('c3@example.com')",
    "INSERT INTO shop.orders (customer_id, total) SELECT max(id), 5 FROM shop.customers",
    "DELETE FROM shop.log WHERE line = 'line 1'",
    "INSERT INTO shop.log VALUES (NULL, '')",
)


@pytest.fixture
def app(app_db: Any) -> Any:
    build(app_db)
    return app_db


def _restore(
    app: Any,
    point: RecoveryPoint,
    store: Store,
    tables: tuple[TableSpec, ...] = TABLES,
    *,
    step: str = "restore",
    plan_hash: str = "h",
    **options: Any,
) -> Applied:
    with database.connect(app.recoverer, purpose="test", lock_timeout_s=0.5) as conn:
        return restore.apply(
            conn, point, store, tables, recovery_id="r1", step=step, plan_hash=plan_hash, **({"caps": WIDE} | options)
        )


def _scalar(app: Any, query: str) -> Any:
    with psycopg.connect(app.installer) as conn:
        row = conn.execute(query.encode()).fetchone()
        return row[0] if row else None


def test_wrecked_tables_come_back_exactly(app: Any, tmp_path: Path) -> None:
    """Identity values, generated columns, swapped unique values, suppressed triggers, a bag; and it is journaled."""
    before = image(app, *NAMES)
    point, store = take(app, tmp_path)
    write(app, *WRECK)
    assert image(app, *NAMES) != before
    applied = _restore(app, point, store)
    assert image(app, *NAMES) == before
    assert applied.detail["tables"]["shop.orders"] == {"delete": 1, "update": 57, "insert": 19}
    assert _scalar(app, "SELECT count(*) FROM reinstate.applied WHERE recovery_id = 'r1'") == 1
    assert _scalar(app, "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'orders_touch'") == "O"
    with database.connect(app.capturer, purpose="test") as conn:
        lost = diff.would_lose(conn, point, store)
        assert lost.rows == 0
        assert "recoverer" in {a.actor for a in lost.actors}


def test_restore_twice_changes_nothing(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, *WRECK)
    first = _restore(app, point, store)
    write(app, "UPDATE shop.orders SET total = 9 WHERE id = 1")
    assert _restore(app, point, store) == first, "a step that is done is not done again"
    assert _scalar(app, "SELECT total FROM shop.orders WHERE id = 1") == 9
    with pytest.raises(StepApplied, match="restore of recovery r1"):
        _restore(app, point, store, plan_hash="other")
    second = _restore(app, point, store, step="again")
    assert second.detail["tables"]["shop.orders"] == {"delete": 0, "update": 1, "insert": 0}


def test_sequences_never_move_backward(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, "INSERT INTO shop.orders (customer_id, total) SELECT 1, 1 FROM generate_series(1, 50)")
    _restore(app, point, store)
    assert _scalar(app, "SELECT nextval('shop.orders_id_seq')") == 251
    write(app, "ALTER SEQUENCE shop.orders_id_seq RESTART")
    applied = _restore(app, point, store, step="again")
    assert applied.detail["sequences"] == ["shop.orders_id_seq"]
    assert _scalar(app, "SELECT nextval('shop.orders_id_seq')") == 201


def test_control_a_whole_point_loses_legitimate_work(app: Any, tmp_path: Path) -> None:
    """Why it is never chosen automatically: orders and edits made since are gone, exactly as many as it said."""
    point, store = take(app, tmp_path)
    write(
        app,
        "UPDATE shop.orders SET total = 0 WHERE id <= 60",  # the damage
        "INSERT INTO shop.orders (customer_id, total, note) SELECT 1, 5, '\"legit\"' FROM generate_series(1, 7)",
        "UPDATE shop.orders SET note = '\"legit\"' WHERE id BETWEEN 101 AND 105",
    )
    with database.connect(app.capturer, purpose="test") as conn:
        loss = diff.would_lose(conn, point, store)
    assert _scalar(app, "SELECT count(*) FROM shop.orders WHERE note = '\"legit\"'") == 12
    _restore(app, point, store)
    assert _scalar(app, "SELECT count(*) FROM shop.orders WHERE note = '\"legit\"'") == 0
    assert loss.rows == 60 + 12


@pytest.mark.parametrize(
    ("caps", "named"),
    [
        (restore.Caps(max_deleted_share=0.01), r"delete 30 of 230 rows of shop\.orders"),
        (restore.Caps(max_deleted_rows=29), "cap"),
        (restore.Caps(max_changed_rows=29), "change 30 rows"),
    ],
)
def test_caps_stop_it_before_anything_changes(app: Any, tmp_path: Path, caps: restore.Caps, named: str) -> None:
    point, store = take(app, tmp_path)
    write(app, "INSERT INTO shop.orders (customer_id, total) SELECT 1, 1 FROM generate_series(1, 30)")
    before = image(app, *NAMES)
    with pytest.raises(CapPassed, match=named):
        _restore(app, point, store, caps=caps)
    assert image(app, *NAMES) == before
    assert _scalar(app, "SELECT count(*) FROM reinstate.applied") == 0


def test_drift_from_the_approved_diff_stops_it(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, "UPDATE shop.orders SET total = 0 WHERE id <= 5")
    with database.connect(app.capturer, purpose="test") as conn:
        shown = diff.diff(conn, point, store)
    write(app, "UPDATE shop.orders SET total = 0 WHERE id <= 40")
    with pytest.raises(CapPassed, match="drifted"):
        _restore(app, point, store, expected=shown, caps=replace(WIDE, drift_rows=34))
    _restore(app, point, store, expected=shown, caps=replace(WIDE, drift_rows=35))


def test_rows_of_other_tables_are_never_erased_on_the_way(app: Any, tmp_path: Path) -> None:
    write(
        app,
        "CREATE TABLE shop.files (id int PRIMARY KEY, order_id int REFERENCES shop.orders (id) ON DELETE CASCADE)",
        "GRANT SELECT ON shop.files TO recoverer",
    )
    point, store = take(app, tmp_path)
    write(app, "INSERT INTO shop.orders (customer_id, total) VALUES (1, 1)", "INSERT INTO shop.files VALUES (1, 201)")
    with pytest.raises(WouldBreak, match=r"erase 1 rows of shop\.files"):
        _restore(app, point, store)
    assert _scalar(app, "SELECT count(*) FROM shop.files") == 1


def test_a_child_left_without_parent_is_refused(app: Any, tmp_path: Path) -> None:
    """One table alone; also where only the catalogue knows of the relation."""
    point, store = take(app, tmp_path)
    write(app, *WRECK)
    before = image(app, *NAMES)
    with pytest.raises(WouldBreak, match="orders"):
        _restore(app, point, store, (CUSTOMERS,))
    write(app, "ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_id_fkey")
    with pytest.raises(WouldBreak, match=r"shop\.orders would lose their shop\.customers"):
        _restore(app, point, store, (ORDERS,))
    assert image(app, *NAMES) == before


def test_a_child_moves_to_another_parent(app: Any, tmp_path: Path) -> None:
    """The parent can be deleted only after its child was updated: the second order of work."""
    before = image(app, *NAMES)
    point, store = take(app, tmp_path)
    write(
        app,
        "INSERT INTO shop.customers (email) VALUES ('new@example.com')",
        "ALTER TABLE shop.orders DISABLE TRIGGER orders_touch",
        "UPDATE shop.orders SET customer_id = 21 WHERE id = 8",
        "ALTER TABLE shop.orders ENABLE TRIGGER orders_touch",
    )
    _restore(app, point, store)
    assert image(app, *NAMES) == before


def test_rows_that_exchanged_unique_values_come_back(app: Any, tmp_path: Path) -> None:
    """No sequence of single updates can do it; the customers are replaced while their orders stand."""
    before = image(app, *NAMES)
    point, store = take(app, tmp_path)
    write(
        app,
        "UPDATE shop.customers SET email = 'x' WHERE id = 1",
        "UPDATE shop.customers SET email = 'c1@example.com' WHERE id = 2",
        "UPDATE shop.customers SET email = 'c2@example.com' WHERE id = 1",
    )
    _restore(app, point, store)
    assert image(app, *NAMES) == before


def test_partitions_odd_names_and_wide_keys(app: Any, tmp_path: Path) -> None:
    """Rows that moved to another partition move back; no name is taken for SQL or for a parameter."""
    spec = TableSpec(name='shop.Odd%s"{}', key=("100%", "select"))
    write(
        app,
        'CREATE TABLE shop."Odd%s""{}" ("100%" int, "select" text, "{a}" int, PRIMARY KEY ("100%", "select", "{a}"),'
        ' UNIQUE ("100%", "select", "{a}")) PARTITION BY LIST ("{a}")',
        'CREATE TABLE shop.odd_1 PARTITION OF shop."Odd%s""{}" FOR VALUES IN (1)',
        'CREATE TABLE shop.odd_2 PARTITION OF shop."Odd%s""{}" FOR VALUES IN (2)',
        'INSERT INTO shop."Odd%s""{}" SELECT n, \'%s\', 1 + n % 2 FROM generate_series(1, 50) n',
        'GRANT SELECT ON shop."Odd%s""{}" TO capturer',
        'GRANT ALL ON shop."Odd%s""{}" TO recoverer',
    )
    for key in (("100%", "select", "{a}"), ()):
        spec = TableSpec(name='shop.Odd%s"{}', key=key)
        before = image(app, 'shop."Odd%s""{}"')
        point, store = take(app, tmp_path, tables=[spec])
        assert point.tables[0].key == key
        write(
            app, 'UPDATE shop."Odd%s""{}" SET "{a}" = 3 - "{a}" WHERE "100%" < 9', "DELETE FROM shop.odd_1 WHERE true"
        )
        with database.connect(app.capturer, purpose="test") as conn:
            assert diff.diff(conn, point, store)[0].rows
        _restore(app, point, store, (spec,), step=repr(key))
        assert image(app, 'shop."Odd%s""{}"') == before


def test_the_same_step_twice_at_once_is_done_once(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, *WRECK)
    done: list[Applied] = []
    threads = [threading.Thread(target=lambda: done.append(_restore(app, point, store))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    assert done[0] == done[1]


CHANGES = st.lists(
    st.tuples(st.sampled_from(["move", "edit", "delete", "insert", "forget", "log"]), st.integers(1, 25)), max_size=12
)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES)
def test_any_mixture_of_later_work_is_taken_back(
    changes: list[tuple[str, int]], module_app_db: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    app = module_app_db
    write(app, "DROP SCHEMA IF EXISTS shop CASCADE")
    build(app)
    before = image(app, *NAMES)
    point, store = take(app, tmp_path_factory.mktemp("store"))
    statements = {
        "move": "UPDATE shop.orders SET customer_id = (SELECT max(id) FROM shop.customers) WHERE id % 25 = {n}",
        "edit": "UPDATE shop.customers SET email = 'e{n}' || id WHERE id = {n}",
        "delete": "DELETE FROM shop.orders WHERE customer_id = {n}",
        "insert": "INSERT INTO shop.customers (email) VALUES ('c' || {n} || '@example.org') ON CONFLICT DO NOTHING",
        "forget": "DELETE FROM shop.customers c WHERE id = {n} AND NOT EXISTS"
        " (SELECT FROM shop.orders WHERE customer_id = c.id)",
        "log": "DELETE FROM shop.log WHERE line = 'line ' || {n} % 4",
    }
    write(app, *(statements[kind].format(n=n) for kind, n in changes))
    _restore(app, point, store, step=point.id)
    assert image(app, *NAMES) == before


def test_a_trigger_that_was_not_declared_undoes_the_attempt(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, *WRECK)
    before = image(app, *NAMES)
    with pytest.raises(WouldBreak, match="trigger"):
        _restore(app, point, store, (CUSTOMERS, replace(ORDERS, suppress=()), LOG))
    assert image(app, *NAMES) == before


def test_a_writer_that_holds_a_row_makes_it_wait_then_give_up(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    with psycopg.connect(app.installer) as writer:
        writer.execute("UPDATE shop.orders SET total = 1 WHERE id = 1")
        with pytest.raises(Busy, match="try again"):
            _restore(app, point, store)
    _restore(app, point, store)


def test_writes_during_the_restore_come_after_it(app: Any, tmp_path: Path) -> None:
    """A concurrent writer either is seen under the lock or waits for it; nothing slips in between."""
    point, store = take(app, tmp_path)
    write(app, *WRECK)
    stop = threading.Event()
    done: list[int] = []

    def keep_writing() -> None:
        with psycopg.connect(app.installer, autocommit=True) as conn:
            while not stop.is_set():
                conn.execute("INSERT INTO shop.log VALUES (now(), 'burst') ")
                done.append(1)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        applied = _restore(app, point, store, caps=restore.Caps(max_deleted_rows=10**6, max_deleted_share=1.0))
    finally:
        stop.set()
        writer.join()
    left = _scalar(app, "SELECT count(*) FROM shop.log WHERE line = 'burst'")
    assert left + applied.detail["tables"]["shop.log"]["delete"] == len(done) + 1


def test_a_role_without_rights_is_told_what_to_do(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, *WRECK)
    with database.connect(app.capturer, purpose="test") as conn, pytest.raises(Refused, match="reinstate roles"):
        restore.apply(conn, point, store, TABLES, recovery_id="r", step="s", plan_hash="h")
