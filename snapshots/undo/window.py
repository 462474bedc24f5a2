"""A stretch of time for a selection, as the recorded positions around it: a time is no commit boundary."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from snapshots import position
from snapshots.errors import Incomplete
from snapshots.journal import ticks
from snapshots.model import Position


def begin(conn: Connection[Any], at: datetime) -> Position:
    """The last tick at or before ``at`` (any of our roles): everything from then on is selected. Raises
    :class:`Incomplete` when the ticks begin later."""
    found = ticks.at(conn, at)
    if found is None:
        first = ticks.first(conn)
        begins = f"begin only at {first.isoformat(timespec='seconds')}" if first else "are not there at all"
        raise Incomplete(
            f"the journal's ticks {begins}: name a later time, or select by run or transaction, or use a recovery point"
        )
    return found


def end(conn: Connection[Any], at: datetime | None = None) -> Position:
    """The first tick at or after ``at``; now, where there is none yet or ``at`` is ``None`` (any of our roles)."""
    here = position.current(conn)
    if at is None:
        return here
    row = conn.execute(
        """SELECT t.snapshot::text, t.system_id, t.timeline, t.at FROM reinstate.tick t
           WHERE t.system_id = %s AND t.timeline = %s AND t.at >= %s ORDER BY t.at, t.id LIMIT 1""",
        (here.system_id, here.timeline, at),
    ).fetchone()
    return Position(snapshot=row[0], system_id=row[1], timeline=row[2], at=row[3]) if row else here
