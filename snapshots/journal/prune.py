"""Forgetting old changes without ever claiming to know them: retention and size cap.

What is forgotten are whole transactions, all those a tick had seen committed; ``complete_since`` moves to that tick.
Pieces of a twin that hold nothing younger are dropped; only from the one across the border are rows deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import Connection, sql

from snapshots.errors import Refused
from snapshots.journal.shape import Stored, stored

ATTEMPTS = 6
TARGET_SHARE = 0.7
"""Of the cap: pruning for size goes down to this, so that it is not needed again at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What was forgotten of one table, or would be."""

    table: str
    rows: int
    complete_since: datetime


def prune(
    conn: Connection[Any],
    *,
    retention: timedelta,
    dry_run: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Pruned]:
    """Forget transactions older than ``retention``, and more where a twin is over its size cap (role: recoverer or
    installer; commits by itself; with ``dry_run`` any of ours, and nothing is changed). Returns the tables that lost
    rows. The app never waits; raises :class:`Refused` when readers keep a twin too busy, or when another session
    changes the journal."""
    if conn.execute("SELECT to_regclass('reinstate.piece') IS NOT NULL").fetchone() != (True,):
        conn.rollback()
        raise Refused("there is no journal to prune, or it is of an earlier version: run journal install")
    if dry_run:
        found = [
            Pruned(table=table.name, rows=rows, complete_since=point[0])
            for table in stored(conn).values()
            if (point := _point(conn, table, retention)) and (rows := _rows_before(conn, table, point[1]))
        ]
        conn.rollback()
        return found
    row = conn.execute("SELECT pg_try_advisory_lock(hashtextextended('reinstate.change', 0))").fetchone()
    conn.commit()
    if not row or not row[0]:
        raise Refused("the journal is being installed or pruned by another session: try again when it is done")
    done = []
    try:
        for table in stored(conn).values():
            point = _point(conn, table, retention)
            conn.commit()
            if point and (rows := _forget(conn, table.name, point, sleep)):
                done.append(Pruned(table=table.name, rows=rows, complete_since=point[0]))
        conn.execute("SELECT reinstate.prune_ticks()")
        conn.commit()
    finally:
        conn.rollback()
        conn.execute("SELECT pg_advisory_unlock(hashtextextended('reinstate.change', 0))")
        conn.commit()
    return done


def _rows_before(conn: Connection[Any], table: Stored, xid: int) -> int:
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE rj_xid < %s::text::xid8").format(
            sql.Identifier("reinstate", table.twin)
        ),
        (xid,),
    ).fetchone()
    return int(row[0]) if row else 0


def _point(conn: Connection[Any], table: Stored, retention: timedelta) -> tuple[datetime, int] | None:
    """The tick to forget up to: by age, or later if the size asks for it."""
    row = conn.execute(
        """SELECT at, before_xid::text::bigint FROM (
               SELECT * FROM reinstate.prune_point(clock_timestamp() - %s)
               UNION ALL SELECT * FROM reinstate.prune_point_by_size(%s, %s)) AS points ORDER BY at DESC LIMIT 1""",
        (retention, table.name, TARGET_SHARE),
    ).fetchone()
    return (row[0], row[1]) if row else None


def _forget(conn: Connection[Any], table: str, point: tuple[datetime, int], sleep: Callable[[float], None]) -> int:
    at, xid = point
    for attempt in range(ATTEMPTS):
        try:
            row = conn.execute("SELECT reinstate.forget(%s, %s::text::xid8, %s)", (table, xid, at)).fetchone()
            conn.commit()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            conn.rollback()
            sleep(0.1 * 2**attempt)
        else:
            return int(row[0]) if row else 0
    raise Refused(f"journal of {table} is too busy to prune: no lock in {ATTEMPTS} attempts: try again later")
