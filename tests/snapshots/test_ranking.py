"""Which place to go back to: evidence decides what is safe, the journal what it would lose."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from snapshots import database
from snapshots.journal import journal
from snapshots.model import Position, RecoveryPoint
from snapshots.points import points, ranking
from snapshots.points.ranking import Choice, Start
from tests.snapshots import point_desk as desk

TABLES = ("shop.customers", "shop.orders")


def tick(app: Any) -> Position:
    with database.connect(app.recoverer, purpose="test") as conn:
        return journal.tick(conn)


def wrote(app: Any, statement: str, *, run: str | None = None) -> int:
    with psycopg.connect(app.installer) as conn:
        conn.execute("SELECT set_config('reinstate.run', %s, true)", (run or "",))
        conn.execute(statement.encode())
        row = conn.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        return int(row[0])


def ranked(app: Any, found: list[RecoveryPoint], start: Start, **options: Any) -> tuple[Choice, ...]:
    with database.connect(app.recoverer, purpose="test") as conn:
        return ranking.rank(conn, found, start, TABLES, **options)


@pytest.mark.postgres
def test_what_loses_least_and_is_safe_comes_first(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db)
    tables = desk.TABLES[:2]
    first, store = desk.take(app_db, tmp_path, tables=tables)
    wrote(app_db, "UPDATE shop.orders SET note = '{}' WHERE id <= 7", run="R1")
    unverified, _ = desk.take(app_db, tmp_path, tables=tables, passed=False)
    wrote(app_db, "INSERT INTO shop.customers (email) VALUES ('new@example.com')")
    last = tick(app_db)
    wrote(app_db, "UPDATE shop.orders SET note = NULL WHERE id = 9", run="R2")
    bad = wrote(app_db, "UPDATE shop.orders SET total = 0 WHERE id <= 50", run="BAD")
    late, _ = desk.take(app_db, tmp_path, tables=tables)
    found = list(points.listing(store, "desk").points)
    start = Start(at=late.taken_at - timedelta(microseconds=1), xid=bad, bad_xids=frozenset([bad]))

    choices = ranked(app_db, found, start)
    assert [c.id for c in choices] == [last.at.isoformat(), first.id, unverified.id, late.id]
    by_id = {c.id: c for c in choices}
    at_tick, at_first = by_id[last.at.isoformat()], by_id[first.id]
    assert (at_tick.kind, at_tick.safe, at_tick.lost, at_tick.damage) == ("tick", True, 1, 50)
    assert (at_first.verified, at_first.lost, at_first.tables) == (True, 9, {"shop.orders": 8, "shop.customers": 1})
    assert [(a.actor, a.rows, a.transactions) for a in at_first.actors] == [("installer", 9, 3)]
    assert [(r.run, r.rows, r.bad) for r in at_first.runs] == [("BAD", 50, True), ("R1", 7, False), ("R2", 1, False)]
    assert by_id[unverified.id].safe
    assert any("not verified" in r for r in by_id[unverified.id].reasons)
    assert not by_id[late.id].safe
    assert "holds the first bad transaction" in by_id[late.id].reasons

    clock = ranked(app_db, found, Start(at=first.taken_at))
    assert [c.id for c in clock if c.safe] == []
    assert all("taken after the incident began: it may hold the damage" in c.reasons for c in clock)


@pytest.mark.postgres
def test_an_open_transaction_of_the_damage_is_not_in_an_earlier_snapshot(app_db: Any, tmp_path: Path) -> None:
    """Numbers are taken early and committed late: only the snapshot tells what a point holds."""
    desk.build(app_db)
    with psycopg.connect(app_db.installer) as bad:
        row = bad.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        bad.execute("UPDATE shop.orders SET total = 0")
        during, store = desk.take(app_db, tmp_path, tables=desk.TABLES[:2])
        bad.commit()
    after, _ = desk.take(app_db, tmp_path, tables=desk.TABLES[:2])
    start = Start(at=during.taken_at - timedelta(seconds=9), xid=row[0], bad_xids=frozenset([row[0]]))
    choices = ranked(app_db, list(points.listing(store, "desk").points), start)
    assert {c.id: c.safe for c in choices if c.kind == "point"} == {during.id: True, after.id: False}
    [safe] = [c for c in choices if c.id == during.id]
    assert (safe.lost, safe.damage) == (0, 200)
    with database.connect(app_db.recoverer, purpose="test") as conn:
        for point in (during, after):
            for xid in (*range(row[0] - 3, row[0] + 3), 1):
                assert ranking.seen_by(point.position, xid) == points.contains(conn, point.position, xid)


@pytest.mark.postgres
def test_without_a_journal_the_best_point_is_compared(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db, journal=False)
    older, store = desk.take(app_db, tmp_path)
    newer, _ = desk.take(app_db, tmp_path)
    elsewhere = replace(newer, id="0", position=replace(newer.position, system_id="1"))
    asked: list[str] = []

    def compare(point: RecoveryPoint) -> dict[str, int]:
        asked.append(point.id)
        return {"shop.orders": 3}

    found = [*points.listing(store, "desk").points, elsewhere]
    start = Start(at=newer.taken_at + timedelta(seconds=1))
    choices = ranked(app_db, found, start, compare=compare)
    assert asked == [choices[0].id] == [newer.id]
    assert (choices[0].lost, choices[0].tables) == (3, {"shop.orders": 3})
    assert {c.id: c.lost for c in choices[1:]} == {older.id: None, "0": None}
    assert ranking.UNKNOWN in choices[1].reasons


@pytest.mark.postgres
def test_a_tick_over_a_gap_cannot_be_restored_and_is_said_so(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db)
    point, _ = desk.take(app_db, tmp_path, tables=desk.TABLES[:2])
    last = tick(app_db)
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("ALTER TABLE shop.orders DISABLE TRIGGER rj_update")
    tick(app_db)
    start = Start(at=last.at + timedelta(microseconds=1))
    choices = ranked(app_db, [point], start)
    assert [(c.kind, c.safe) for c in choices] == [("point", True), ("tick", False)]
    assert any("has a gap" in r for r in choices[1].reasons)
    assert any(r.startswith("loses at least") for r in choices[0].reasons)
