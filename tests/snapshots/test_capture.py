"""A recovery point is consistent: one snapshot for rows, position and suites, and the logic that ran at that moment."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from point_desk import HASH, LOG, ORDERS, TABLES, WORKFLOWS, Told, build, run_of, take, write

from platforms.base import RunState
from snapshots import database
from snapshots.capture import capture
from snapshots.errors import Refused, Unreachable
from snapshots.model import RecoveryPoint
from snapshots.points import chunks, points
from snapshots.points.errors import LogicMoved, WorkflowMissing
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres


@pytest.fixture
def app(app_db: Any) -> Any:
    build(app_db, journal=False)
    return app_db


def _rows(point: RecoveryPoint, store: Store, table: str) -> list[tuple[Any, ...]]:
    manifest = next(t for t in point.tables if t.name == table)
    columns = chunks.stored(manifest.columns)
    return [
        row
        for c in manifest.chunks
        for row in zip(*(a.to_pylist() for a in chunks.open_(store.read_chunk(c.sha256), columns).columns), strict=True)
    ]


def test_a_point_holds_logic_rows_types_and_sequences(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    assert points.load(store, "desk", point.id) == point
    assert point.verified
    by_key = {w.workflow: w for w in point.workflows}
    assert (by_key["order-intake"].active, by_key["order-intake"].version_hash) == (True, HASH)
    assert (by_key["stock-sync"].active, by_key["stock-sync"].definition) == (False, {"nodes": ["draft"]})
    running, paused = by_key["order-intake"], by_key["stock-sync"]
    hook = {"kind": "webhook", "node": "hook", "method": "POST", "path": "/orders", "schedule": None}
    assert (running.entries, running.calls, running.credentials) == ((hook,), ("w9",), ("desk",))
    assert (running.saved_hash, running.saved) == ("d" * 64, {"nodes": ["draft"]})
    assert (paused.saved_hash, paused.saved) == (None, None)
    orders = next(t for t in point.tables if t.name == "shop.orders")
    assert {c.name: c.type for c in orders.columns}["total"] == "numeric(12,2)"
    assert [row[0] for row in _rows(point, store, "shop.orders")] == list(range(1, 201))
    assert point.sequences == {"shop.customers_id_seq": 20, "shop.orders_id_seq": 200}
    log = next(t for t in point.tables if t.name == "shop.log")
    assert (log.key, log.rows) == ((), 12)


def test_unchanged_tables_share_their_chunks(app: Any, tmp_path: Path) -> None:
    first, _ = take(app, tmp_path)
    write(app, "INSERT INTO shop.log VALUES (now(), 'later')")
    second, _ = take(app, tmp_path)
    assert first.id != second.id
    same = [a.name for a, b in zip(first.tables, second.tables, strict=True) if a.chunks == b.chunks]
    assert same == ["shop.customers", "shop.orders"]


def test_suites_see_the_very_rows_that_are_captured(app: Any, tmp_path: Path) -> None:
    """Writes after the snapshot reach neither the chunks nor the verification."""
    seen: dict[str, int] = {}

    def verify(snapshot_id: str) -> dict[str, Any]:
        write(app, "DELETE FROM shop.log")
        with psycopg.connect(app.capturer) as conn:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            conn.execute(f"SET TRANSACTION SNAPSHOT '{snapshot_id}'")
            row = conn.execute("SELECT count(*) FROM shop.log").fetchone()
            seen["log"] = row[0] if row else 0
        assert not Store(str(tmp_path)).point_ids("desk"), "published before it was verified"
        return {"passed": False, "failed": ["totals"]}

    point = capture.capture(app.capturer, TABLES, WORKFLOWS, Told(), Store(str(tmp_path)), app="desk", verify=verify)
    assert seen["log"] == 12
    assert not point.verified
    assert points.load(Store(str(tmp_path)), "desk", point.id).verification == {"passed": False, "failed": ["totals"]}


def test_a_broken_suite_publishes_nothing(app: Any, tmp_path: Path) -> None:
    def verify(_: str) -> dict[str, Any]:
        raise RuntimeError("suite orders.json is broken")

    store = Store(str(tmp_path))
    with pytest.raises(RuntimeError, match=r"orders\.json"):
        capture.capture(app.capturer, TABLES, WORKFLOWS, Told(), store, app="desk", verify=verify)
    assert store.point_ids("desk") == []


def test_position_and_rows_are_of_one_snapshot(app: Any, tmp_path: Path) -> None:
    """A transaction open across the capture is neither in the rows nor in the position, although it began before."""
    with psycopg.connect(app.installer) as open_one:
        open_one.execute("INSERT INTO shop.log VALUES (now(), 'open')")
        row = open_one.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row
        before, store = take(app, tmp_path)
    after, _ = take(app, tmp_path)
    with database.connect(app.capturer, purpose="test") as conn:
        assert not points.contains(conn, before.position, row[0])
        assert points.contains(conn, after.position, row[0])
        assert points.contains(conn, before.position, row[0] - 1)
        assert points.latest_verified(store, "desk") == after
        assert points.latest_verified(store, "desk", admits=points.lacks(conn, row[0])) == before
        elsewhere = replace(after, position=replace(after.position, system_id="1"))
        assert not points.lacks(conn, row[0])(elsewhere)
    lines = [[line for _, line in _rows(p, store, "shop.log")].count("open") for p in (before, after)]
    assert lines == [0, 1]


def test_logic_that_changes_in_between_is_captured_again(app: Any, tmp_path: Path) -> None:
    platform = Told()

    def publish(reads: int) -> None:
        if reads == 2:
            platform.live["w1"] = "b" * 64

    platform.after_read = publish
    point = capture.capture(app.capturer, TABLES, WORKFLOWS, platform, Store(str(tmp_path)), app="desk")
    assert next(w for w in point.workflows if w.workflow == "order-intake").version_hash == "b" * 64
    assert platform.reads == 4
    assert point.verification is None


def test_logic_that_never_rests_is_a_clear_error(app: Any, tmp_path: Path) -> None:
    platform = Told()
    platform.after_read = lambda reads: platform.live.update(w2=HASH if reads % 2 else None)
    store = Store(str(tmp_path))
    with pytest.raises(LogicMoved, match="stock-sync"):
        capture.capture(app.capturer, TABLES, WORKFLOWS, platform, store, app="desk", attempts=2)
    assert store.point_ids("desk") == []


def test_runs_that_may_have_been_in_flight_are_listed(app: Any, tmp_path: Path) -> None:
    platform = Told()
    platform.in_flight = [run_of("w1", "7"), run_of("w9", "8"), run_of("w2", "9", RunState.WAITING)]
    platform.ended = [run_of("w1", "10", RunState.SUCCESS)]
    point = capture.capture(app.capturer, TABLES, WORKFLOWS, platform, Store(str(tmp_path)), app="desk")
    assert point.in_flight == ("10", "7", "9")


def test_bad_input_is_named_and_publishes_nothing(app: Any, tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    def attempt(dsn: str, tables: Any = TABLES, workflows: Any = WORKFLOWS) -> None:
        capture.capture(dsn, tables, workflows, Told(), store, app="desk")

    with pytest.raises(WorkflowMissing, match="Payment"):
        attempt(app.capturer, workflows={"payment": "Payment"})
    with pytest.raises(Refused, match=r"shop\.nothing"):
        attempt(app.capturer, tables=[type(LOG)(name="shop.nothing", key=())])
    with pytest.raises(Unreachable):
        attempt(app.capturer.replace("test-capturer", "wrong"))
    assert store.point_ids("desk") == []


def test_hidden_rows_are_an_error_not_a_smaller_point(app: Any, tmp_path: Path) -> None:
    write(
        app,
        "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON shop.orders TO capturer USING (id < 10)",
    )
    with pytest.raises(Refused, match="row-level security"):
        take(app, tmp_path, tables=[ORDERS])


def test_two_captures_at_once(app: Any, tmp_path: Path) -> None:
    taken: list[RecoveryPoint] = []
    threads = [threading.Thread(target=lambda: taken.append(take(app, tmp_path)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = Store(str(tmp_path))
    assert store.point_ids("desk") == sorted(p.id for p in taken)
    assert len(taken) == 2
    assert all(points.audit(store, p) == () for p in taken)


def test_nobody_rewrites_a_table_under_its_readers(app_db: Any, tmp_path: Path) -> None:
    """A rewrite or a TRUNCATE does not wait for snapshots: the lock must be there before the snapshot is."""
    build(app_db)
    tried: list[str] = []

    def verify(_: str) -> dict[str, Any]:
        with psycopg.connect(app_db.installer) as conn:
            twin = conn.execute("SELECT twin FROM reinstate.journal_table WHERE table_name = 'shop.orders'").fetchone()
            assert twin
            for table in ("shop.orders", "shop.log", f"reinstate.{twin[0]}"):
                conn.rollback()
                try:
                    conn.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT".encode())
                except psycopg.errors.LockNotAvailable:
                    tried.append(table)
            conn.rollback()
            conn.execute("UPDATE shop.orders SET total = 0 WHERE id = 1")  # work goes on
        return {"passed": True}

    capture.capture(app_db.capturer, TABLES, WORKFLOWS, Told(), Store(str(tmp_path)), app="desk", verify=verify)
    assert len(tried) == 3


def test_a_truncate_before_the_snapshot_is_waited_for(app: Any, tmp_path: Path) -> None:
    """One that holds its lock when the capture begins is wholly in the point, or not at all."""
    with psycopg.connect(app.installer) as busy:
        busy.execute("TRUNCATE shop.log")
        taken: list[RecoveryPoint] = []
        capturing = threading.Thread(target=lambda: taken.append(take(app, tmp_path)[0]))
        capturing.start()
        with psycopg.connect(app.superuser, autocommit=True) as watch:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'shop.log'::regclass"
            while (row := watch.execute(waiting).fetchone()) and not row[0]:
                threading.Event().wait(0.02)
        busy.execute("INSERT INTO shop.log VALUES (now(), 'after')")
        busy.commit()
        capturing.join()
    assert [line for _, line in _rows(taken[0], Store(str(tmp_path)), "shop.log")] == ["after"]
