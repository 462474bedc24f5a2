"""Positions are commit boundaries, ticks find what nobody reported, and pruning never claims what it forgot."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from journal_desk import ORDERS, Desk, open_desk

from snapshots import position
from snapshots.errors import Incomplete, Refused
from snapshots.journal import journal
from snapshots.model import Position

pytestmark = pytest.mark.postgres
NAME = "public.orders"
EVER = datetime.min.replace(tzinfo=UTC)


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    with open_desk(app_db) as made:
        made.install()
        journal.tick(made.recoverer)
        yield made


def xids(desk: Desk, since: Position | datetime, **options: Any) -> list[int]:
    found = [t.xid for t in journal.transactions(desk.capturer, since=since, **options)]
    desk.capturer.rollback()
    return found


def current_xid(desk: Desk) -> int:
    row = desk.app.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


def test_a_transaction_open_across_the_mark_counts_as_after_it(desk: Desk) -> None:
    other = desk.session(desk.db.dsn("wf_intake"), autocommit=True)
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
        across = current_xid(desk)
        other.execute("UPDATE orders SET qty = 0 WHERE id = 2")
        mark = journal.tick(desk.recoverer)
        by_snapshot = position.current(desk.capturer)
        desk.capturer.rollback()
    for since in (mark, by_snapshot):
        assert xids(desk, since) == [across]
    assert across not in xids(desk, mark.at), "its writes are older than the mark: a time is no commit boundary"
    assert len(xids(desk, EVER)) == 2
    assert xids(desk, journal.tick(desk.recoverer)) == []


def test_transactions_tell_actor_run_rows_and_keys(desk: Desk) -> None:
    start = journal.tick(desk.recoverer)
    with desk.app.transaction():
        desk.write("SELECT set_config('reinstate.run', 'r1', true)")
        desk.write("UPDATE orders SET qty = 0 WHERE id < 3")
        desk.write("SELECT set_config('reinstate.run', 'r2', true)")
        desk.write("DELETE FROM orders WHERE id = 5")
        xid = current_xid(desk)
    one, two = journal.transactions(desk.capturer, since=start, with_keys=True)
    assert (one.xid, one.actor, one.run, one.rows, one.tables) == (xid, "wf_intake", "r1", 4, (NAME,))
    assert one.keys == {NAME: (("1",), ("2",))}
    assert (two.xid, two.run, two.keys) == (xid, "r2", {NAME: (("5",),)})
    assert one.first_at <= one.last_at <= two.first_at
    assert xids(desk, start, runs=["r2"]) == [xid]
    assert xids(desk, start, actors=["someone"]) == []
    assert xids(desk, start, xids=[xid]) == [xid, xid]
    assert xids(desk, start, tables=["public.other"]) == []


def test_a_position_of_another_server_is_refused(desk: Desk) -> None:
    here = position.current(desk.app)
    foreign = Position(snapshot=here.snapshot, system_id="1", timeline=here.timeline, at=here.at)
    with pytest.raises(Refused, match="belongs to server 1"):
        journal.transactions(desk.capturer, since=foreign)
    with pytest.raises(Refused, match="belongs to server 1"):
        journal.gaps(desk.capturer, since=foreign)


def test_a_disabled_trigger_is_a_gap_from_the_last_good_tick_until_found(desk: Desk) -> None:
    before = journal.tick(desk.recoverer)
    desk.ddl("ALTER TABLE orders DISABLE TRIGGER rj_update")
    desk.write("UPDATE orders SET qty = 0")
    assert desk.kinds() == {(NAME, "trigger-disabled")}
    desk.ddl("ALTER TABLE orders ENABLE ALWAYS TRIGGER rj_update")
    assert desk.kinds() == {(NAME, "trigger-disabled")}, "found although it looks as before"
    desk.write("UPDATE orders SET qty = 1 WHERE id = 1")
    after = journal.tick(desk.recoverer)
    (gap,) = desk.gaps()
    assert (gap.table, gap.kind, gap.at, gap.until) == (NAME, "trigger-disabled", before.at, after.at)
    assert desk.gaps(since=before) == [gap]
    with pytest.raises(Incomplete, match="trigger-disabled") as caught:
        journal.require_complete(desk.capturer, since=before, tables=[NAME])
    assert caught.value.gap == gap
    later = journal.tick(desk.recoverer)
    assert desk.gaps(since=later) == []
    journal.require_complete(desk.capturer, since=later, tables=[NAME])
    assert len(desk.gaps()) == 1


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        "ALTER TABLE orders ENABLE TRIGGER rj_insert",
        "DROP TRIGGER rj_delete ON orders",
        "CREATE OR REPLACE FUNCTION reinstate.j_public__orders() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'",
    ],
)
def test_every_way_to_silence_a_trigger_is_found_and_healed(desk: Desk, change: str) -> None:
    desk.ddl(change)
    desk.write("UPDATE orders SET qty = 0")
    journal.tick(desk.recoverer)
    kinds = desk.kinds()
    assert {t for t, _ in kinds} == {NAME}
    journal.tick(desk.recoverer)
    assert {g.kind for g in desk.status().gaps} & {"trigger-disabled", "trigger-missing", "function-changed"}
    assert desk.install()
    desk.write("UPDATE orders SET qty = 0")
    after = journal.tick(desk.recoverer)
    assert desk.gaps(since=after) == []
    assert desk.status(NAME).gaps == ()


def test_a_rolled_back_ddl_is_no_gap(desk: Desk) -> None:
    desk.owner.execute("ALTER TABLE orders DISABLE TRIGGER rj_update")
    desk.owner.rollback()
    journal.tick(desk.recoverer)
    assert desk.gaps() == []


def test_a_gap_stays_open_while_a_transaction_that_lost_something_is_open(desk: Desk) -> None:
    desk.ddl(f"REVOKE INSERT ON {desk.piece()} FROM installer")
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
        desk.ddl(f"GRANT INSERT ON {desk.piece()} TO installer")
        for _ in range(3):
            mark = journal.tick(desk.recoverer)
        assert desk.kinds(since=mark) == {(NAME, "capture-failed")}
    assert {g.kind for g in desk.gaps(since=mark)} == {"capture-failed"}
    after = journal.tick(desk.recoverer)
    assert desk.gaps(since=journal.tick(desk.recoverer)) == []
    assert all(g.until == after.at for g in desk.gaps())


def test_a_second_loss_that_found_the_gap_open_keeps_it_open(desk: Desk) -> None:
    """It wrote no row of its own, so only the counter and the bound of the tick tell of it."""
    desk.ddl(f"REVOKE INSERT ON {desk.piece()} FROM installer")
    desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 2")
        desk.ddl(f"GRANT INSERT ON {desk.piece()} TO installer")
        assert desk.one("SELECT count(*) FROM reinstate.gap") == 1
        for _ in range(3):
            mark = journal.tick(desk.recoverer)
        assert desk.kinds(since=mark) == {(NAME, "capture-failed")}
    assert desk.kinds(since=mark) == {(NAME, "capture-failed")}
    journal.tick(desk.recoverer)
    assert desk.gaps(since=journal.tick(desk.recoverer)) == []


def test_ranges_before_the_journal_and_unknown_tables_are_gaps(desk: Desk) -> None:
    assert desk.kinds(since=EVER) == {(NAME, "not-yet-journaled")}
    assert desk.kinds(tables=["public.items", NAME]) == {("public.items", "not-journaled")}
    assert desk.status(NAME, "public.items").missing == ("public.items",)


def test_status_counts(desk: Desk) -> None:
    mark = journal.tick(desk.recoverer)
    desk.write("UPDATE orders SET qty = 0")
    desk.owner.execute(f"ANALYZE {desk.piece()}")
    desk.owner.commit()
    status = desk.status(NAME)
    (table,) = status.tables
    assert (status.installed, status.last_tick, status.missing, status.gaps) == (True, mark.at, (), ())
    assert (table.table, table.rows, table.size_cap_mb) == (NAME, 10, 1024)
    assert table.bytes > 0


def test_pruning_forgets_whole_transactions_and_says_so(desk: Desk) -> None:
    desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 2")
        across = current_xid(desk)
        first = journal.tick(desk.recoverer)
    desk.write("UPDATE orders SET qty = 0 WHERE id = 3")
    kept = xids(desk, first)
    assert kept[0] == across
    (pruned,) = journal.prune(desk.recoverer, retention=timedelta(0))
    assert pruned.table == NAME
    assert xids(desk, EVER) == kept
    assert desk.kinds(since=EVER) == {(NAME, "pruned")}
    assert pruned.complete_since == first.at
    assert desk.gaps(since=first) == []
    # The app's open session goes on with the new twin, and readers may read it.
    desk.write("UPDATE orders SET qty = 0 WHERE id = 4")
    assert desk.images()[-1] == ("U", "n", 4)
    assert desk.kinds(since=pruned.complete_since) == set()
    assert journal.prune(desk.recoverer, retention=timedelta(days=1)) == []
    assert desk.install() == []


def test_pruning_by_size_opens_the_journal_again(app_db: Any) -> None:
    with open_desk(app_db) as desk:
        desk.install(ORDERS, size_cap_mb=1)
        for _ in range(4):
            desk.write("INSERT INTO orders SELECT n, 1, 1, repeat('x', 100) FROM generate_series(1000, 3999) n")
            desk.write("DELETE FROM orders WHERE id >= 1000")
            journal.tick(desk.recoverer)
        assert desk.kinds() == {(NAME, "size-cap")}
        (pruned,) = journal.prune(desk.recoverer, retention=timedelta(days=30))
        assert pruned.rows > 0
        assert desk.status().tables[0].bytes < 1024 * 1024
        journal.tick(desk.recoverer)
        after = journal.tick(desk.recoverer)
        desk.write("UPDATE orders SET qty = 0")
        assert len(xids(desk, after)) == 1
        assert desk.gaps(since=after) == []


def test_ticks_and_closed_gaps_do_not_pile_up(desk: Desk) -> None:
    desk.ddl("ALTER TABLE orders DISABLE TRIGGER rj_update; ALTER TABLE orders ENABLE ALWAYS TRIGGER rj_update")
    for _ in range(5):
        last = journal.tick(desk.recoverer)
    assert len(desk.gaps()) == 1
    assert journal.prune(desk.recoverer, retention=timedelta(0)) == []
    assert desk.one("SELECT array_agg(at) FROM reinstate.tick") == [last.at]
    assert desk.gaps() == []
    assert desk.kinds(since=EVER) == {(NAME, "pruned")}


def test_one_change_of_the_journal_at_a_time(desk: Desk) -> None:
    with desk.owner.transaction():
        desk.owner.execute("SELECT pg_advisory_xact_lock(hashtextextended('reinstate.change', 0))")
        with pytest.raises(Refused, match="another session"):
            journal.prune(desk.recoverer, retention=timedelta(0))
    assert journal.prune(desk.recoverer, retention=timedelta(0)) == []


def test_pruning_waits_for_readers_of_the_journal_and_never_for_the_app(desk: Desk) -> None:
    desk.write("UPDATE orders SET qty = 0 WHERE id = 1")
    journal.tick(desk.recoverer)
    with desk.app.transaction():
        desk.write("UPDATE orders SET qty = 0 WHERE id = 2")
        desk.capturer.execute("SELECT FROM reinstate.j_public__orders LIMIT 1")
        with pytest.raises(Refused, match="too busy"):
            journal.prune(desk.recoverer, retention=timedelta(0), sleep=lambda _: None)
        desk.capturer.rollback()
        (pruned,) = journal.prune(desk.recoverer, retention=timedelta(0), sleep=lambda _: None)
        assert pruned.rows == 2
        desk.write("UPDATE orders SET qty = 1 WHERE id = 2")
    assert [i[2] for i in desk.images()] == [2, 2, 2, 2]


def test_a_dry_run_of_pruning_counts_and_changes_nothing(desk: Desk) -> None:
    desk.write("UPDATE orders SET qty = 0")
    mark = journal.tick(desk.recoverer)
    (shown,) = journal.prune(desk.capturer, retention=timedelta(0), dry_run=True)
    assert (shown.table, shown.rows, shown.complete_since) == (NAME, 10, mark.at)
    assert len(desk.images()) == 10
    assert desk.kinds(since=EVER) == {(NAME, "not-yet-journaled")}
    assert journal.prune(desk.recoverer, retention=timedelta(0)) == [shown]
