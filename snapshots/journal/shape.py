"""What the catalogues of the database say about a table to be journaled, and what the journal remembers of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from snapshots.errors import Refused
from snapshots.journal.ddl import Column, Shape

OTHER_SERVER = "other-server"
"""Kind of the gap of a table whose images carry the transaction numbers of another server."""

_RELATIONS = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, pg_has_role(current_user, c.relowner, 'USAGE'),
       (SELECT string_agg(t.tgname, ', ') FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        JOIN pg_namespace f ON f.oid = p.pronamespace
        WHERE t.tgrelid = c.oid AND f.nspname <> 'reinstate' AND starts_with(t.tgname, 'rj_')),
       EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AND c.relkind <> 'p', c.relpersistence::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = %(name)s OR c.oid IN (
    SELECT p.relid FROM pg_class r JOIN pg_namespace s ON s.oid = r.relnamespace
    CROSS JOIN LATERAL pg_partition_tree(r.oid) p WHERE s.nspname || '.' || r.relname = %(name)s)
ORDER BY n.nspname || '.' || c.relname <> %(name)s, n.nspname, c.relname
"""

# A domain's base type: its checks belong to the app, and a journal must not fail on them.
_COLUMNS = """
WITH RECURSIVE base AS (
    SELECT a.attnum, a.attname, a.atttypid AS declared, a.atttypid AS typid, a.attcollation
    FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    UNION ALL
    SELECT b.attnum, b.attname, b.declared, t.typbasetype, b.attcollation
    FROM base b JOIN pg_type t ON t.oid = b.typid WHERE t.typtype = 'd'
)
SELECT b.attname, format_type(b.typid, -1), b.attnum::int, b.declared::bigint, cn.nspname, co.collname
FROM base b JOIN pg_type t ON t.oid = b.typid
LEFT JOIN pg_collation co ON co.oid = b.attcollation AND b.attcollation <> t.typcollation
LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
WHERE t.typtype <> 'd' ORDER BY b.attnum
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A row of ``reinstate.journal_table``."""

    name: str
    relid: int
    twin: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    suppress: tuple[str, ...]
    size_cap_mb: int
    installed_at: datetime
    complete_since: datetime
    good_at: datetime


def exists(conn: Connection[Any]) -> bool:
    """Whether the journal's own objects are there (any role)."""
    row = conn.execute(
        """SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                          WHERE n.nspname = 'reinstate' AND c.relname = 'journal_table')"""
    ).fetchone()
    return bool(row and row[0])


def stored(conn: Connection[Any]) -> dict[str, Stored]:
    """Journaled tables by name; empty where nothing is installed (role: any of ours)."""
    if not exists(conn):
        return {}
    rows = conn.execute(
        """SELECT table_name, relid, twin, columns, key, suppress, size_cap_mb, installed_at, complete_since, good_at
           FROM reinstate.journal_table ORDER BY table_name"""
    ).fetchall()
    return {
        r[0]: Stored(
            name=r[0],
            relid=r[1],
            twin=r[2],
            columns=tuple(Column(name=c["name"], type=c["type"], num=c["num"], typid=c["typid"]) for c in r[3]),
            key=tuple(r[4]),
            suppress=tuple(r[5]),
            size_cap_mb=r[6],
            installed_at=r[7],
            complete_since=r[8],
            good_at=r[9],
        )
        for r in rows
    }


def carried_over(conn: Connection[Any]) -> frozenset[str]:
    """Journaled tables whose images carry the transaction numbers of another server, or of a later time of this one
    (role: any of ours): no position says anything about them."""
    if not exists(conn):
        return frozenset()
    query = "SELECT table_name FROM reinstate.findings() WHERE kind = %s"
    rows = conn.execute(query, (OTHER_SERVER,)).fetchall()
    return frozenset(row[0] for row in rows)


def shape_of(conn: Connection[Any], table: str) -> Shape:
    """The shape of ``table`` (role: installer). Raises :class:`Refused` where a journal cannot be put on it."""
    # With nothing but pg_catalog in the path, every name the catalogue functions print is qualified.
    conn.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    relations = conn.execute(_RELATIONS, {"name": table}).fetchall()
    if not relations:
        raise Refused(f"table {table} does not exist in database {conn.info.dbname}: check the catalogue")
    for _, schema, name, kind, owned, foreign_triggers, inherited, persistence in relations:
        what = f"table {schema}.{name}"
        if kind not in ("r", "p"):
            raise Refused(f"{what} is not an ordinary table: only tables and partitions can be journaled")
        if persistence == "t":
            raise Refused(f"{what} is temporary: it cannot be journaled")
        if not owned:
            raise Refused(f"{what} does not belong to {conn.info.user}: run the SQL of the roles command first")
        if inherited:
            raise Refused(f"{what} has inheritance children: declare each of them, or use partitions")
        if foreign_triggers:
            raise Refused(f"{what} has triggers of its own called {foreign_triggers}: rename them")
    columns = tuple(
        Column(name=r[0], type=r[1], num=r[2], typid=r[3], collation=(r[4], r[5]) if r[5] else None)
        for r in conn.execute(_COLUMNS, (relations[0][0],)).fetchall()
    )
    if taken := [c.name for c in columns if c.name.startswith("rj_")]:
        raise Refused(f"table {table} has a column {taken[0]}: names starting with rj_ belong to the journal")
    return Shape(
        name=table,
        relid=relations[0][0],
        columns=columns,
        relations=tuple((r[1], r[2]) for r in relations),
    )


def castable(conn: Connection[Any], pairs: Sequence[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """The type changes that keep every old value: those with an implicit cast."""
    if not pairs:
        return frozenset()
    rows = conn.execute(
        """SELECT p.source, p.target FROM unnest(%s::bigint[], %s::bigint[]) AS p(source, target)
           WHERE EXISTS (SELECT FROM pg_cast c WHERE c.castsource = p.source::oid AND c.casttarget = p.target::oid
                         AND c.castcontext = 'i')""",
        ([p[0] for p in pairs], [p[1] for p in pairs]),
    ).fetchall()
    return frozenset((r[0], r[1]) for r in rows)
