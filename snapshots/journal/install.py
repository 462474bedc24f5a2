"""Putting the journal on tables, and following their changes.

Everything here runs as the installer and commits by itself: one table per transaction, with a short ``lock_timeout``
and backoff, so that the app waits at most that long for us. Running it again changes nothing unless a table changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from psycopg import Connection, sql

from snapshots.errors import Refused
from snapshots.journal import ddl
from snapshots.journal.change import patiently, require_idle, run
from snapshots.journal.shape import Stored, carried_over, castable, exists, shape_of, stored
from snapshots.model import TableSpec

LONG_TRANSACTION_S = 5.0
"""A transaction open for longer on a table would make us, and then everyone behind us, wait: refused."""

_FILES = ("journal.sql", "pieces.sql", "fence.sql")
_TABLES = ("setting", "journal_table", "piece", "gap", "tick", "applied", "fenced", "trigger_off")
_READERS_CALL = (
    "findings()",
    "lost(text)",
    "app_relations()",
    "twin_bytes(text)",
    "piece_of(text, text)",
    "prune_point(timestamptz)",
    "prune_point_by_size(text, float8)",
)
_RECOVERER_CALLS = (
    "record_tick()",
    "fence(name, text)",
    "unfence(name, text)",
    "set_triggers(text, text[], boolean)",
    "tend()",
    "turn(text)",
    "note_missed(text, text, timestamptz, timestamptz)",
    "forget(text, xid8, timestamptz)",
    "prune_ticks()",
)

_RECORD = """
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS at), changed AS (
    INSERT INTO reinstate.gap (table_name, kind, detail, at, until)
    SELECT {table}, s.kind, s.detail, j.good_at, now.at
    FROM now, reinstate.journal_table j, reinstate.shape_changes({table}) s
    WHERE j.table_name = {table} AND NOT EXISTS (SELECT FROM reinstate.gap g
        WHERE g.table_name = {table} AND g.kind = s.kind AND g.until IS NULL)
), closed AS (
    UPDATE reinstate.gap g SET until = now.at FROM now WHERE g.table_name = {table} AND g.until IS NULL
)
INSERT INTO reinstate.journal_table AS j (table_name, relid, twin, columns, key, suppress, trigger_state,
    installed_at, installed_snapshot, complete_since, good_at, lost_seen, size_cap_mb, capture, system_id, seen_xid)
SELECT {table}, {relid}, {twin}, {columns}, {key}, {suppress}, reinstate.trigger_state({relid}),
       now.at, pg_current_snapshot(), now.at, now.at, reinstate.lost({twin}), {cap}, {capture},
       c.system_identifier::text, pg_snapshot_xmax(pg_current_snapshot()) FROM now, pg_control_system() c
ON CONFLICT (table_name) DO UPDATE SET relid = excluded.relid, twin = excluded.twin, columns = excluded.columns,
    key = excluded.key, suppress = excluded.suppress, trigger_state = excluded.trigger_state,
    good_at = excluded.good_at, lost_seen = excluded.lost_seen,
    size_cap_mb = excluded.size_cap_mb, capture = excluded.capture,
    system_id = excluded.system_id, seen_xid = excluded.seen_xid,
    complete_since = CASE WHEN {fresh} THEN excluded.complete_since ELSE j.complete_since END
"""


_FORGET_TICKS = """
DELETE FROM reinstate.tick t USING pg_control_system() c
WHERE t.system_id <> c.system_identifier::text OR pg_snapshot_xmax(t.snapshot) > pg_snapshot_xmax(pg_current_snapshot())
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    capturer: str
    recoverer: str
    size_cap_mb: int
    truncate_limit: int


def install(
    conn: Connection[Any],
    tables: Sequence[TableSpec],
    *,
    capturer: str,
    recoverer: str,
    dry_run: bool = False,
    size_cap_mb: int = 1024,
    truncate_limit: int = ddl.TRUNCATE_LIMIT,
    long_transaction_s: float = LONG_TRANSACTION_S,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Journal ``tables`` (role: installer), or follow their changes. Returns the SQL, in order; with ``dry_run``
    nothing is changed. ``size_cap_mb`` is per table: a larger twin stops taking rows and says so.

    Raises :class:`Refused`: not the owner, a column starting with ``rj_``, a long transaction on a table, a table
    too busy to lock. Tables done before the refusal stay journaled; running it again continues.
    """
    options = Options(capturer=capturer, recoverer=recoverer, size_cap_mb=size_cap_mb, truncate_limit=truncate_limit)
    require_idle(conn)
    try:
        _require_roles(conn, (capturer, recoverer))
        fixed = _fixed(conn, options)
        per_table = [(t, _statements(conn, t, options)) for t in tables]
    finally:
        conn.rollback()
    if dry_run:
        everything = [*fixed, *(s for _, made in per_table for s in made)]
        return [s if isinstance(s, str) else s.as_string(conn) for s in everything]
    done: list[str] = []

    def fix() -> list[str]:
        return run(conn, _fixed(conn, options))

    done += patiently(conn, "schema reinstate", fix, sleep)
    for table, _ in per_table:

        def put(table: TableSpec = table) -> list[str]:
            statements = _statements(conn, table, options)
            if statements:
                _require_short(conn, shape_of(conn, table.name).relations, table.name, long_transaction_s)
            return run(conn, statements)

        done += patiently(conn, f"table {table.name}", put, sleep)
    return done


def _require_roles(conn: Connection[Any], roles: Sequence[str]) -> None:
    for role in roles:
        if not conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
            raise Refused(f"role {role} does not exist: run the SQL of the roles command as administrator")


def _require_short(conn: Connection[Any], relations: Sequence[tuple[str, str]], table: str, limit_s: float) -> None:
    row = conn.execute(
        """SELECT a.pid, a.usename, extract(epoch FROM clock_timestamp() - a.xact_start)::float8
           FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
           JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE l.locktype = 'relation' AND l.granted AND a.datname = current_database() AND a.pid <> pg_backend_pid()
             AND n.nspname || '.' || c.relname = ANY (%s)
             AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
             AND a.xact_start < clock_timestamp() - make_interval(secs => %s)
           ORDER BY a.xact_start LIMIT 1""",
        ([f"{s}.{n}" for s, n in relations], limit_s),
    ).fetchone()
    if row:
        raise Refused(
            f"table {table}: a transaction of {row[1]} (process {row[0]}) has been writing for {row[2]:.0f} s:"
            " wait for its end, or end it"
        )


def _fixed(conn: Connection[Any], options: Options) -> list[str | sql.Composable]:
    """The objects that do not depend on a table; nothing if they are as they should be."""
    texts = [resources.files("snapshots").joinpath("sql", name).read_text(encoding="utf-8") for name in _FILES]
    version = hashlib.sha256("".join([*texts, options.capturer, options.recoverer]).encode()).hexdigest()[:16]
    made: list[str | sql.Composable] = []
    if exists(conn):
        row = conn.execute(
            """SELECT (SELECT value FROM reinstate.setting WHERE name = 'version'),
                      to_regclass('reinstate.journal_seq') IS NULL"""
        ).fetchone()
        if row and row[0] == version and not row[1]:
            return []
        if row and row[1]:
            # Somebody dropped it: its numbers must go on above all that were given.
            made.append("CREATE SEQUENCE reinstate.journal_seq AS bigint INCREMENT 2 CACHE 1")
            made.append(
                "SELECT setval('reinstate.journal_seq', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
            )
    elif not conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'reinstate'").fetchone():
        made.append(sql.SQL("CREATE SCHEMA reinstate"))
    made += texts
    both = sql.SQL(", ").join([sql.Identifier(options.capturer), sql.Identifier(options.recoverer)])
    recoverer = sql.Identifier(options.recoverer)
    made.append(sql.SQL("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA reinstate FROM PUBLIC"))
    made.append(sql.SQL("GRANT USAGE ON SCHEMA reinstate TO {}").format(both))
    made.append(
        sql.SQL("GRANT SELECT ON {} TO {}").format(
            sql.SQL(", ").join(sql.Identifier("reinstate", t) for t in _TABLES), both
        )
    )
    made.append(sql.SQL("GRANT INSERT ON reinstate.applied TO {}").format(recoverer))
    for calls, who in ((_READERS_CALL, both), (_RECOVERER_CALLS, recoverer)):
        functions = sql.SQL(", ").join(sql.SQL(f"reinstate.{c}") for c in calls)
        made.append(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(functions, who))
    made.append(
        sql.SQL(
            "INSERT INTO reinstate.setting VALUES ('installer', current_user), ('capturer', {}), ('recoverer', {}),"
            " ('version', {}) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        ).format(sql.Literal(options.capturer), sql.Literal(options.recoverer), sql.Literal(version))
    )
    return made


def _known(conn: Connection[Any], table: str, relid: int, foreign: Collection[str]) -> Stored | None:
    """What the journal remembers of a table, also under the name it had before it was renamed. Object ids of another
    server tell nothing."""
    remembered = stored(conn)
    mine = (s for s in remembered.values() if s.relid == relid and s.name not in foreign)
    return remembered.get(table) or next(mine, None)


def _statements(conn: Connection[Any], table: TableSpec, options: Options) -> list[str | sql.Composable]:
    """What has to be run to journal ``table`` as it is now; nothing if that is so already."""
    shape = shape_of(conn, table.name)
    for column in table.key:
        if column not in {c.name for c in shape.columns}:
            raise Refused(f"table {table.name} has no column {column} to be its key: correct the catalogue")
    foreign = carried_over(conn)
    known = _known(conn, table.name, shape.relid, foreign)
    twin = known.twin if known else ddl.twin_name(table.name)
    functions, marked = (
        ddl.functions(
            shape, twin, size_cap_mb=options.size_cap_mb, truncate_limit=options.truncate_limit, marked=marked
        )
        for marked in (False, True)
    )
    readers = (options.capturer, options.recoverer)
    made = hashlib.sha256(
        repr(([f.as_string(conn) for f in functions], readers, table.key, table.suppress, shape.relid)).encode()
    ).hexdigest()[:16]
    if known and _unchanged(conn, known, table.name, made):
        return []
    change = _follow(conn, known, shape, twin) if known and known.name not in foreign else None
    fresh = change is None
    statements: list[str | sql.Composable] = []
    if known and known.name in foreign:
        statements += _disown(conn, table.name)
    if known and known.name != table.name:
        rename = sql.SQL("UPDATE reinstate.{} SET table_name = {} WHERE table_name = {}")
        names = sql.Literal(table.name), sql.Literal(known.name)
        statements += [rename.format(sql.Identifier(where), *names) for where in ("journal_table", "gap")]
    if change is None:
        lost = sql.Identifier("reinstate", f"{twin}_lost")
        for name in (*_pieces(conn, twin), twin):
            statements.append(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("reinstate", name)))
        statements.append(sql.SQL("DELETE FROM reinstate.piece WHERE twin = {}").format(sql.Literal(twin)))
        statements.append(sql.SQL("DROP SEQUENCE IF EXISTS {}").format(lost))
        statements += ddl.create_twin(shape, twin)
        statements.append(sql.SQL("CREATE SEQUENCE {}").format(lost))
    else:
        statements += change
    statements += functions
    statements += ddl.access(twin, readers)
    tables = sql.SQL(", ").join(sql.Identifier(*r) for r in shape.relations)
    statements.append(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(tables))
    for relation in shape.relations:
        statements += ddl.triggers(relation, twin)
    statements.append(
        sql.SQL(_RECORD).format(
            table=sql.Literal(table.name),
            relid=sql.SQL("{}::oid").format(sql.Literal(shape.relid)),
            twin=sql.Literal(twin),
            columns=sql.SQL("{}::jsonb").format(sql.Literal(ddl.columns_json(shape.columns))),
            key=sql.SQL("{}::text[]").format(sql.Literal(list(table.key))),
            suppress=sql.SQL("{}::text[]").format(sql.Literal(list(table.suppress))),
            cap=sql.Literal(options.size_cap_mb),
            capture=sql.SQL("{}::text[]").format(sql.Literal([m.as_string(conn) for m in marked])),
            fresh=sql.Literal(fresh),
        )
    )
    statements.append(
        sql.SQL(
            "INSERT INTO reinstate.setting VALUES ({}, {}), ({}, reinstate.function_body({}))"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        ).format(*map(sql.Literal, (f"made {twin}", made, f"body {twin}", twin)))
    )
    # From here on the functions write to a new piece; until then to the twin itself.
    statements.append(sql.SQL("SELECT reinstate.turn({})").format(sql.Literal(table.name)))
    return statements


def _disown(conn: Connection[Any], table: str) -> list[str | sql.Composable]:
    """Statements that forget what was carried over with a table, said first. Its twin goes with the others that begin
    anew; gaps stay, they are times."""
    name = sql.Literal(table)
    made: list[str | sql.Composable] = [
        f"-- {' '.join(table.split())}: its journal is of another server, or of a later time of this one: begun anew",
        sql.SQL("DELETE FROM reinstate.journal_table WHERE table_name = {}").format(name),
        _FORGET_TICKS,
    ]
    row = conn.execute("SELECT to_regclass('reinstate.erased') IS NOT NULL").fetchone()
    if row and row[0]:
        made.append(sql.SQL("DELETE FROM reinstate.erased WHERE table_name = {}").format(name))
    return made


def _pieces(conn: Connection[Any], twin: str) -> list[str]:
    rows = conn.execute(
        """SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent = to_regclass(format('reinstate.%%I', %s::text)) ORDER BY i.inhrelid""",
        (twin,),
    ).fetchall()
    return [row[0] for row in rows]


def _unchanged(conn: Connection[Any], known: Stored, table: str, made: str) -> bool:
    row = conn.execute(
        """SELECT (SELECT value FROM reinstate.setting WHERE name = 'made ' || %(twin)s) = %(made)s
           AND NOT EXISTS (SELECT FROM reinstate.findings() f WHERE f.table_name = %(known)s
                           AND (f.lasting AND f.kind <> 'size-cap' OR f.kind = 'trigger-disabled'))""",
        {"twin": known.twin, "made": made, "known": known.name},
    ).fetchone()
    return known.name == table and bool(row and row[0])


def _follow(conn: Connection[Any], known: Stored, shape: ddl.Shape, twin: str) -> list[sql.Composable] | None:
    """Statements for the twin to follow its table; ``None`` when a new twin is needed."""
    row = conn.execute(
        """SELECT t.oid, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attname = 'rj_stmt')
           FROM (SELECT to_regclass(format('reinstate.%%I', %s::text)) AS oid) t""",
        (twin,),
    ).fetchone()
    if not row or row[0] is None:
        return None
    # A twin of an earlier version keeps its rows: it becomes the parent of the pieces to come.
    older = [ddl.drop_statement_number(twin)] if row[1] else []
    by_num = {c.num: c for c in known.columns}
    pairs = [(by_num[c.num].typid, c.typid) for c in shape.columns if c.num in by_num]
    by_name = {c.name: c for c in known.columns}
    pairs += [(by_name[c.name].typid, c.typid) for c in shape.columns if c.name in by_name]
    allowed = castable(conn, sorted({p for p in pairs if p[0] != p[1]}))
    follow = ddl.follow_twin(known.columns, shape.columns, twin, allowed, by_name=known.relid != shape.relid)
    return None if follow is None else [*older, *follow]
