"""What must hold before a restore touches anything, the locks it takes, and the views it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import Connection, sql

from snapshots import database, locks, position
from snapshots.capture.shape import Relation
from snapshots.errors import Refused
from snapshots.journal import journal
from snapshots.model import Position, TableSpec
from snapshots.restore.frame import Frame
from snapshots.restore.lost_table import absent


def here(conn: Connection[Any]) -> Position:
    return position.current(conn)


def problems(conn: Connection[Any], tables: Sequence[TableSpec], made: Sequence[Frame]) -> tuple[str, ...]:
    """Why a restore of these tables must not run, each with the next step (any role that reads the catalogue)."""
    found = [
        f"Triggers {', '.join(t.undeclared_triggers)} of {t.name} are not declared; say in the catalogue whether they "
        "are suppressed."
        for t in tables
        if t.undeclared_triggers
    ]
    for frame in made:
        for (what,) in conn.execute(
            "SELECT 'Rule ' || quote_ident(r.rulename) FROM pg_rewrite r"
            " WHERE r.ev_class = %(oid)s AND r.ev_type <> '1' AND r.ev_enabled <> 'D'"
            " UNION ALL SELECT 'Row security' WHERE row_security_active(%(oid)s::oid)",
            {"oid": frame.oid},
        ):
            found.append(
                f"{what} of {frame.name} would change or hide what a restore writes; "
                "let the role bypass it, or restore into a copy."
            )
    return tuple(found)


def lock(conn: Connection[Any], frames: Mapping[str, Frame], relations: Sequence[Relation]) -> None:
    """Keep writers off the tables and, where the role may, off those that reference them, in one fixed order; readers
    go on. One order for all, so that two restores never wait for each other."""
    wanted = set(frames)
    for relation in relations:
        if relation.parent in frames and relation.child not in frames and _may_lock(conn, relation.child):
            wanted.add(relation.child)
        if relation.child in frames and relation.parent not in frames and _may_lock(conn, relation.parent):
            wanted.add(relation.parent)
    locks.take(conn, wanted, patient=True)


def _may_lock(conn: Connection[Any], table: str) -> bool:
    row = conn.execute(
        "SELECT has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname = %s",
        (table,),
    ).fetchone()
    return bool(row and row[0])


def refuse_new_gaps(conn: Connection[Any], since: Position, tables: Sequence[str]) -> None:
    """Raise :class:`Refused` when the journal of a table may have missed something since the look."""
    for gap in journal.gaps(conn, since=since, tables=tables):
        raise Refused(f"The journal of {gap.table} has a gap since the plan ({gap.kind}: {gap.detail}); plan again.")


def views(conn: Connection[Any], made: Sequence[Frame]) -> tuple[str, ...]:
    """Materialised views that depend on the tables, on whatever path, those first that others build on."""
    rows = conn.execute(
        "WITH RECURSIVE above AS (SELECT unnest(%s::oid[]) AS oid, 0 AS depth UNION"
        " SELECT r.ev_class, a.depth + 1 FROM above a"
        "  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.oid"
        "   AND d.classid = 'pg_rewrite'::regclass"
        "  JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> a.oid WHERE a.depth < 20)"
        " SELECT n.nspname || '.' || c.relname FROM above a JOIN pg_class c ON c.oid = a.oid AND c.relkind = 'm'"
        " JOIN pg_namespace n ON n.oid = c.relnamespace GROUP BY 1 ORDER BY max(a.depth), 1",
        ([f.oid for f in made],),
    ).fetchall()
    return tuple(r[0] for r in rows)


def refresh(conn: Connection[Any], views: Sequence[str]) -> tuple[str, ...]:
    """Refresh the views, each in a transaction of its own; names of those that could not be, which are stale until
    their owner does. Never raises for what the database says: the rows are committed by then."""
    stale = []
    for view in views:
        try:
            with conn.transaction():
                conn.execute("SET LOCAL statement_timeout = 0")
                if not absent(conn, view):
                    conn.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(database.qualified(view)))
        except psycopg.Error:
            stale.append(view)
    return tuple(stale)
