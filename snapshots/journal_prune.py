"""Forgetting old changes without ever claiming to know them: retention and size cap.

What is forgotten are whole transactions, all those a tick had seen committed; ``complete_since`` moves to that tick.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import Connection, sql

from snapshots.errors import Refused
from snapshots.journal_shape import stored

ATTEMPTS = 6
TARGET_SHARE = 0.7
"""Of the cap: pruning for size goes down to this, so that it is not needed again at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    table: str
    rows: int
    complete_since: datetime


def prune(conn: Connection[Any], *, retention: timedelta, sleep: Callable[[float], None] = time.sleep) -> list[Pruned]:
    """Forget transactions older than ``retention``, and more where a twin is over its size cap (role: recoverer or
    installer; commits by itself). Returns the tables that lost rows. Raises :class:`Refused` when a twin is too busy
    to swap (the app waits at most 300 ms for each attempt) or another session changes the journal."""
    done = []
    row = conn.execute("SELECT pg_try_advisory_lock(hashtextextended('reinstate.change', 0))").fetchone()
    conn.commit()
    if not row or not row[0]:
        raise Refused("the journal is being installed or pruned by another session: try again when it is done")
    try:
        for table in stored(conn).values():
            point = _point(conn, table.twin, table.size_cap_mb, retention)
            conn.commit()
            if point and _rows_before(conn, table.twin, point[1]):
                rows = _swap(conn, table.name, point, sleep)
                done.append(Pruned(table=table.name, rows=rows, complete_since=point[0]))
            elif point:
                conn.execute("SELECT reinstate.prune_mark(%s, %s)", (table.name, point[0]))
                conn.commit()
        conn.execute("SELECT reinstate.prune_ticks()")
        conn.commit()
    finally:
        conn.rollback()
        conn.execute("SELECT pg_advisory_unlock(hashtextextended('reinstate.change', 0))")
        conn.commit()
    return done


def _rows_before(conn: Connection[Any], twin: str, xid: int) -> bool:
    row = conn.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE rj_xid < %s::text::xid8)").format(
            sql.Identifier("reinstate", twin)
        ),
        (xid,),
    ).fetchone()
    conn.commit()
    return bool(row and row[0])


def _point(conn: Connection[Any], twin: str, cap_mb: int, retention: timedelta) -> tuple[datetime, int] | None:
    """The tick to forget up to: by age, or later if the size asks for it."""
    name = sql.Identifier("reinstate", twin)
    row = conn.execute(
        sql.SQL("SELECT clock_timestamp(), pg_relation_size({}::regclass)").format(sql.Literal(name.as_string(conn)))
    ).fetchone()
    now, size = row or (datetime.now(UTC), 0)
    before = now - retention
    if size > cap_mb * 1024 * 1024:
        share = 1 - TARGET_SHARE * cap_mb * 1024 * 1024 / size
        cut = conn.execute(
            sql.SQL(
                "SELECT max(rj_at) FROM (SELECT rj_at FROM {0} ORDER BY rj_xid"
                " LIMIT (SELECT ceil(count(*) * %s)::bigint FROM {0})) AS oldest"
            ).format(name),
            (share,),
        ).fetchone()
        if cut and cut[0]:
            # The first tick after the oldest rows that must go.
            row = conn.execute("SELECT min(at) FROM reinstate.tick WHERE at >= %s", (cut[0],)).fetchone()
            before = max(before, row[0] if row and row[0] else now)
    row = conn.execute("SELECT at, before_xid::text::bigint FROM reinstate.prune_point(%s)", (before,)).fetchone()
    return (row[0], row[1]) if row else None


def _swap(conn: Connection[Any], table: str, point: tuple[datetime, int], sleep: Callable[[float], None]) -> int:
    at, xid = point
    row = conn.execute("SELECT reinstate.prune_copy(%s, %s::text::xid8)", (table, xid)).fetchone()
    conn.commit()
    copied = row[0] if row else None
    for attempt in range(ATTEMPTS):
        try:
            row = conn.execute(
                "SELECT reinstate.prune_swap(%s, %s::text::xid8, %s, %s)", (table, xid, at, copied)
            ).fetchone()
            conn.commit()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            conn.rollback()
            sleep(0.1 * 2**attempt)
        else:
            return int(row[0]) if row else 0
    raise Refused(f"journal of {table} is too busy to prune: no lock in {ATTEMPTS} attempts: try again later")
