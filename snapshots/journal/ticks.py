"""Recorded positions by time: where the journal can go back to between two recovery points."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from snapshots import position
from snapshots.journal import shape
from snapshots.model import Position


def at(conn: Connection[Any], when: datetime | int) -> Position | None:
    """The last tick at or before a time, or the tick of that number (any of our roles). ``None``: there is none of this
    server and timeline."""
    if not shape.exists(conn):
        return None
    here = position.current(conn)
    row = conn.execute(
        """SELECT t.snapshot::text, t.system_id, t.timeline, t.at FROM reinstate.tick t
           WHERE t.system_id = %(system)s AND t.timeline = %(timeline)s
               AND (%(id)s::bigint IS NULL OR t.id = %(id)s) AND (%(at)s::timestamptz IS NULL OR t.at <= %(at)s)
           ORDER BY t.at DESC, t.id DESC LIMIT 1""",
        {
            "id": when if isinstance(when, int) else None,
            "at": None if isinstance(when, int) else when,
            "system": here.system_id,
            "timeline": here.timeline,
        },
    ).fetchone()
    return Position(snapshot=row[0], system_id=row[1], timeline=row[2], at=row[3]) if row else None


def first(conn: Connection[Any]) -> datetime | None:
    """Time of the oldest tick of this server and timeline (any of our roles)."""
    if not shape.exists(conn):
        return None
    here = position.current(conn)
    row = conn.execute(
        "SELECT min(t.at) FROM reinstate.tick t WHERE t.system_id = %(system)s AND t.timeline = %(timeline)s",
        {"system": here.system_id, "timeline": here.timeline},
    ).fetchone()
    return row[0] if row else None
