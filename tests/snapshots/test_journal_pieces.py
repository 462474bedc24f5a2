"""Twins lie in pieces by time: begun at ticks while nobody waits, sealed, dropped whole, never lost in silence."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from journal_desk import ORDERS, Desk, open_desk

from snapshots.journal import journal
from snapshots.model import Position

pytestmark = pytest.mark.postgres
NAME = "public.orders"
EVER = datetime.min.replace(tzinfo=UTC)
OLD = Path(__file__).parent / "old_journal" / "installed.sql"
MUCH = "INSERT INTO orders SELECT n, 1, 1, repeat('x', 100) FROM generate_series({0}, {0} + 999) n"
"""More than a piece holds under a cap of 1 MB."""


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db) as made:
        made.install(size_cap_mb=1)
        journal.tick(made.recoverer)
        yield made


def pieces(desk: Desk) -> list[tuple[Any, ...]]:
    """Number, whether closed, whether sealed."""
    rows = desk.capturer.execute(
        "SELECT number, closed_at IS NOT NULL, sealed_at IS NOT NULL FROM reinstate.piece ORDER BY number"
    ).fetchall()
    desk.capturer.rollback()
    return rows


def turn(desk: Desk) -> str | None:
    row = desk.recoverer.execute("SELECT reinstate.turn(%s)", (NAME,)).fetchone()
    desk.recoverer.commit()
    return row[0] if row else None


def xids(desk: Desk, since: Position | datetime) -> list[int]:
    found = [t.xid for t in journal.transactions(desk.capturer, since=since)]
    desk.capturer.rollback()
    return found


def test_a_tick_begins_a_new_piece_when_one_is_large_and_seals_it_when_its_writers_ended(desk: Desk) -> None:
    assert pieces(desk) == [(1, False, False)]
    other = desk.session(desk.db.dsn("wf_intake"))
    other.execute("UPDATE orders SET qty = 0 WHERE id = 1")
    desk.write(MUCH.format(1000))
    journal.tick(desk.recoverer)
    assert pieces(desk) == [(1, True, False), (2, False, False)]
    desk.write("UPDATE orders SET qty = 0 WHERE id = 2")
    other.execute("UPDATE orders SET qty = 0 WHERE id = 3")
    journal.tick(desk.recoverer)
    assert pieces(desk)[0] == (1, True, False)
    other.commit()
    journal.tick(desk.recoverer)
    assert pieces(desk) == [(1, True, True), (2, False, False)]
    index = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'reinstate' AND tablename = 'j_public__orders$1'"
    assert desk.one(index) == 3
    assert [i[2] for i in desk.images() if i[2] < 10] == [1, 1, 2, 2, 3, 3]
    assert desk.gaps() == []
    assert desk.install(size_cap_mb=1) == []
    assert desk.status(NAME).tables[0].pieces == 2


def test_old_pieces_cost_a_look_by_transaction_run_or_order_nothing(desk: Desk) -> None:
    desk.write("SELECT set_config('reinstate.run', 'r1', false)")
    for n in range(2, 6):
        desk.write(MUCH.format(n * 1000))
        journal.tick(desk.recoverer)
    journal.tick(desk.recoverer)
    desk.write("SELECT set_config('reinstate.run', 'r2', false)")
    first = desk.one("SELECT max(rj_seq) FROM reinstate.j_public__orders")
    desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
    with desk.app.transaction():
        xid = int(desk.app.execute("SELECT pg_current_xact_id()::text").fetchone()[0])  # type: ignore[index]
    for condition in (f"rj_xid >= '{xid}'::xid8", "rj_run = 'r2'", f"rj_seq > {first}"):
        plan = desk.capturer.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM reinstate.j_public__orders WHERE {condition}".encode()
        ).fetchone()
        desk.capturer.rollback()
        assert plan is not None
        sealed = [
            p for p in plan[0][0]["Plan"]["Plans"] if p.get("Relation Name", "$5")[-2:] in ("$1", "$2", "$3", "$4")
        ]
        assert len(sealed) == 4
        assert {p["Node Type"] for p in sealed} <= {"Index Scan", "Bitmap Heap Scan", "Index Only Scan"}, condition


def test_nobody_waits_for_a_new_piece(desk: Desk) -> None:
    desk.write("SET statement_timeout = '2s'")
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
        desk.recoverer.execute("SELECT reinstate.turn(%s)", (NAME,))
        desk.write("UPDATE orders SET qty = 0 WHERE id = 2")
        desk.recoverer.commit()
        desk.write("UPDATE orders SET qty = 0 WHERE id = 3")
    assert [i[2] for i in desk.images()] == [1, 1, 2, 2, 3, 3]


def test_a_new_piece_does_not_hide_that_triggers_were_touched(desk: Desk) -> None:
    desk.ddl("ALTER TABLE orders DISABLE TRIGGER rj_update; ALTER TABLE orders ENABLE ALWAYS TRIGGER rj_update")
    assert turn(desk) is None
    assert desk.kinds() == {(NAME, "trigger-disabled")}
    journal.tick(desk.recoverer)
    assert turn(desk) == "j_public__orders$2"
    after = journal.tick(desk.recoverer)
    assert len(desk.gaps()) == 1
    assert desk.gaps(since=after) == []
    desk.ddl(
        "CREATE OR REPLACE FUNCTION reinstate.j_public__orders() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'"
    )
    assert turn(desk) is None
    journal.tick(desk.recoverer)
    assert turn(desk) is None, "a lasting change is left to install"
    assert "function-changed" in {k for _, k in desk.kinds()}


def test_pruning_drops_whole_pieces_and_thins_the_one_across_the_border(desk: Desk) -> None:
    desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
    turn(desk)
    desk.write("UPDATE orders SET qty = 0 WHERE id = 2")
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 3")
        mark = journal.tick(desk.recoverer)
        turn(desk)
        desk.write("UPDATE orders SET qty = 0 WHERE id = 4")
    kept = xids(desk, mark)
    desk.owner.execute("UPDATE reinstate.tick SET at = at - interval '2 days'")
    desk.owner.commit()
    (pruned,) = journal.prune(desk.recoverer, retention=timedelta(days=1))
    assert pruned.rows == 4
    assert [p[0] for p in pieces(desk)] == [2, 3]
    assert desk.one("SELECT to_regclass('reinstate.\"j_public__orders$1\"')") is None
    assert xids(desk, EVER) == kept
    assert [i[2] for i in desk.images()] == [3, 3, 4, 4]
    assert len(kept) == 1, "one transaction, whole, over two pieces"


def test_a_closed_piece_with_a_late_row_is_not_dropped(desk: Desk) -> None:
    """A session may still have had the old function when the piece was closed."""
    desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
    turn(desk)
    mark = journal.tick(desk.recoverer)
    desk.ddl(
        'INSERT INTO reinstate."j_public__orders$1" SELECT 9, qty, total, note, rj_seq + 10, pg_current_xact_id(),'
        ' clock_timestamp(), rj_op, rj_side, rj_actor, rj_app, rj_run FROM reinstate."j_public__orders$1" LIMIT 1'
    )
    (pruned,) = journal.prune(desk.recoverer, retention=timedelta(0))
    assert (pruned.rows, pruned.complete_since) == (2, mark.at)
    assert [i[2] for i in desk.images()] == [9]
    assert [p[0] for p in pieces(desk)] == [1, 2]


def test_pieces_dropped_for_their_size_make_room_again(desk: Desk) -> None:
    for n in range(2, 9):
        desk.write(MUCH.format(n * 1000))
        desk.write(f"DELETE FROM orders WHERE id >= {n * 1000}")
        journal.tick(desk.recoverer)
    assert desk.kinds() == {(NAME, "size-cap")}
    before = len(pieces(desk))
    (shown,) = journal.prune(desk.capturer, retention=timedelta(days=30), dry_run=True)
    assert journal.prune(desk.recoverer, retention=timedelta(days=30)) == [shown]
    assert 1 < len(pieces(desk)) < before
    assert desk.status().tables[0].bytes < 0.8 * 1024 * 1024
    journal.tick(desk.recoverer)
    after = journal.tick(desk.recoverer)
    desk.write("UPDATE orders SET qty = 5 WHERE id = 1")
    assert len(xids(desk, after)) == 1
    assert desk.gaps(since=after) == []


@pytest.mark.parametrize(
    "change",
    [
        'DROP TABLE reinstate."j_public__orders$1"',
        'ALTER TABLE reinstate."j_public__orders$1" NO INHERIT reinstate.j_public__orders',
    ],
)
def test_a_lost_piece_is_a_gap_of_its_time_only(desk: Desk, change: str) -> None:
    before = journal.tick(desk.recoverer)
    desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
    turn(desk)
    journal.tick(desk.recoverer)
    assert desk.gaps() == []
    desk.ddl(change)
    assert desk.kinds() == {(NAME, "history-missing")}
    journal.tick(desk.recoverer)
    (gap,) = desk.gaps(since=before)
    assert (gap.kind, gap.until is not None, gap.at <= before.at) == ("history-missing", True, True)
    after = journal.tick(desk.recoverer)
    assert desk.gaps(since=after) == []
    desk.write("UPDATE orders SET qty = 0 WHERE id = 2")
    assert [i[2] for i in desk.images()] == [2, 2]


def test_followed_columns_reach_every_piece(desk: Desk) -> None:
    desk.write("UPDATE orders SET qty = 7 WHERE id = 1")
    turn(desk)
    desk.write("UPDATE orders SET qty = 8 WHERE id = 1")
    desk.ddl("ALTER TABLE orders ALTER qty TYPE bigint; ALTER TABLE orders RENAME note TO remark")
    desk.ddl("ALTER TABLE orders ADD COLUMN extra int; ALTER TABLE orders DROP total")
    desk.install(size_cap_mb=1)
    desk.write("UPDATE orders SET qty = 3000000000, extra = 1 WHERE id = 1")
    assert desk.images(columns=("qty", "remark", "extra")) == [
        ("U", "o", 1, "old", None),
        ("U", "n", 7, "old", None),
        ("U", "o", 7, "old", None),
        ("U", "n", 8, "old", None),
        ("U", "o", 8, "old", None),
        ("U", "n", 3000000000, "old", 1),
    ]
    assert desk.install(size_cap_mb=1) == []
    assert desk.status(NAME).gaps == ()


def test_a_journal_of_before_the_pieces_is_followed_without_loss(app_db: Any) -> None:
    with open_desk(app_db) as desk:
        desk.ddl(OLD.read_text(encoding="utf-8"))
        first = journal.tick(desk.recoverer)
        desk.write("UPDATE orders SET qty = 100 WHERE id < 3")
        assert desk.one("SELECT count(*) FROM reinstate.j_public__orders WHERE rj_stmt > 0") == 4
        with desk.app.transaction():
            desk.write("SELECT set_config('reinstate.run', 'r1', true)")
            desk.write("INSERT INTO orders VALUES (6, 6)")
        assert desk.install()
        desk.write("UPDATE orders SET qty = 200 WHERE id = 1")
        assert desk.images(columns=("id", "qty")) == [
            ("U", "o", 1, 1),
            ("U", "o", 2, 2),
            ("U", "n", 1, 100),
            ("U", "n", 2, 100),
            ("I", "n", 6, 6),
            ("U", "o", 1, 100),
            ("U", "n", 1, 200),
        ]
        found = journal.transactions(desk.capturer, since=first)
        assert [(t.actor, t.run, t.rows) for t in found] == [
            ("wf_intake", None, 4),
            ("wf_intake", "r1", 1),
            ("wf_intake", None, 2),
        ]
        desk.capturer.rollback()
        assert desk.gaps(since=first) == []
        assert desk.install() == []
        journal.tick(desk.recoverer)
        (pruned,) = journal.prune(desk.recoverer, retention=timedelta(0))
        assert pruned.rows == 7
        assert desk.images() == []
        desk.install(ORDERS, size_cap_mb=5)
        desk.write("DELETE FROM orders WHERE id = 6")
        assert desk.images() == [("D", "o", 6)]
