"""Places in the change journal: which transactions had committed.

A position is ``pg_current_snapshot()`` with the system identifier and the timeline of the server. Neither a sequence
nor a time is a commit boundary: a transaction may take its numbers and times early and commit late. Membership is
therefore always ``pg_visible_in_snapshot``. Any role may read all of it (checked by a test with an ordinary role).
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

from snapshots.errors import Refused
from snapshots.model import Position

_CURRENT = """
SELECT pg_current_snapshot()::text, c.system_identifier::text,
       CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END,
       clock_timestamp()
FROM pg_control_system() AS c
"""


def current(conn: Connection[Any]) -> Position:
    """The position of the transaction ``conn`` is in (any role). Inside a repeatable-read transaction it is the
    position of that snapshot, so that data read with it and the position agree."""
    row = conn.execute(_CURRENT).fetchone()
    assert row is not None  # noqa: S101 - the query has no condition
    return Position(snapshot=row[0], system_id=row[1], timeline=row[2], at=row[3])


def visible(position: Position, column: sql.Composable | None = None) -> sql.Composed:
    """SQL condition: the transaction in ``column`` (default ``rj_xid``) had committed at ``position``."""
    return sql.SQL("pg_visible_in_snapshot({}, {}::pg_snapshot)").format(
        column or sql.Identifier("rj_xid"), sql.Literal(position.snapshot)
    )


def after(position: Position, column: sql.Composable | None = None) -> sql.Composed:
    """SQL condition: the transaction in ``column`` committed after ``position`` (or was open across it). The first
    half repeats it in a form that an index on the column can answer."""
    field = column or sql.Identifier("rj_xid")
    return sql.SQL("({} >= pg_snapshot_xmin({}::pg_snapshot) AND NOT {})").format(
        field, sql.Literal(position.snapshot), visible(position, field)
    )


def require_same_server(conn: Connection[Any], position: Position) -> None:
    """Refuse a position of another server or timeline: its transaction numbers mean nothing here."""
    here = current(conn)
    if (here.system_id, here.timeline) != (position.system_id, position.timeline):
        raise Refused(
            f"position of {position.at.isoformat()} belongs to server {position.system_id} timeline"
            f" {position.timeline}, this is {here.system_id} timeline {here.timeline}: use a recovery point instead"
        )
