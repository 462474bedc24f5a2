"""Which rows changed since a position: keys from the journal, or from the rows' own transaction numbers.

Both answers are supersets: a key in them may have its old row again. What is not in them, and not in :func:`gone`, is
as it was. Reasons and limits stand in docs/design.md ("The data engine").

Every function works in the caller's transaction, whose snapshot is the end of the stretch, and makes temporary tables
that end with it; the role reads the tables and may create temporary ones (capturer or recoverer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection, sql

from snapshots import database, position
from snapshots.capture import shape
from snapshots.errors import Refused
from snapshots.journal import journal
from snapshots.journal import shape as journal_shape
from snapshots.model import ColumnInfo, Position, TableManifest, TableSpec
from snapshots.points import chunks, reading
from snapshots.store.store import Store

REACH = 2**31 - 2_000_000
"""Transactions after which numbers of 32 bits no longer tell old from new; the rest is for those begun meanwhile."""


class NotComparable(Refused):
    """Transaction numbers of the position mean nothing here, or tell nothing about this table; read all its rows."""


def by_journal(conn: Connection[Any], spec: TableSpec, since: Position, *, into: sql.Identifier) -> int:
    """Make the temporary table ``into``: the key columns of rows that transactions after ``since`` wrote, each key
    once. Returns the number of keys. The cost is that of the changes.

    Raises :class:`Incomplete` when the journal has a gap there and :class:`NotComparable` for a table without a key.
    """
    if not spec.key:
        raise NotComparable(f"Table {spec.name} has no key; read all its rows.")
    journal.require_complete(conn, since=since, tables=[spec.name])
    return keep(conn, keys_after(spec, twin(conn, spec.name), since), into)


def keys_after(spec: TableSpec, twin: sql.Identifier, since: Position) -> sql.Composed:
    """Query: the keys in the twin's images after ``since``, each once."""
    return sql.SQL("SELECT DISTINCT {} FROM {} WHERE {}").format(names(spec.key), twin, position.after(since))


def by_rows(conn: Connection[Any], manifest: TableManifest, since: Position, *, into: sql.Identifier) -> int:
    """Make the temporary table ``into``: the key columns of live rows that were written after ``since``, or may have
    been. ``manifest`` is the table as a point at ``since`` (or before) holds it. Rows deleted since are not in it: see
    :func:`gone`. Returns the number of keys. The cost is one scan of the table, in parallel where the server can.

    Raises :class:`NotComparable`.
    """
    if not manifest.key:
        raise NotComparable(f"Table {manifest.name} has no key; read all its rows.")
    condition = written_since(conn, manifest, since, alias="t")
    query = sql.SQL("SELECT {} FROM {} t").format(names(manifest.key, "t"), shape.source(conn, manifest.name))
    if condition is not None:
        query += sql.SQL(" WHERE {}").format(condition)
    return keep(conn, query, into)


def written_since(
    conn: Connection[Any], manifest: TableManifest, since: Position, *, alias: str
) -> sql.Composed | None:
    """SQL condition on a row ``alias`` of the table: written after ``since``, or perhaps. ``None``: every row counts,
    because the table's columns were altered meanwhile. Raises :class:`NotComparable`."""
    require_comparable(conn, manifest, since)
    if reshaped(conn, manifest.name, since):
        return None
    fresh = recent(sql.Identifier(alias, "xmin"), since.snapshot)
    if {leaf.oid for leaf in shape.leaves(conn, manifest.name)} <= set(manifest.leaves):
        return fresh
    return sql.SQL("({} OR {}.tableoid <> ALL ({}::oid[]))").format(
        fresh, sql.Identifier(alias), sql.Literal(list(manifest.leaves))
    )


def recent(xid: sql.Composable, snapshot: str) -> sql.Composed:
    """SQL condition: the 32-bit transaction number ``xid`` is not older than the oldest transaction that was open at
    ``snapshot``, which began less than 2^31 transactions ago. Numbers from before the last wrap may count as recent.

    By ``age``, although it keeps the planner from reading in parallel: one process is faster with it than two are with
    numbers made from the text of ``xid``."""
    return sql.SQL("age({}) <= age(pg_snapshot_xmin({}::pg_snapshot)::xid)").format(xid, sql.Literal(snapshot))


def require_comparable(conn: Connection[Any], manifest: TableManifest, since: Position) -> None:
    """Raise :class:`NotComparable` unless row versions of the table can be set against ``since``."""
    what = f"The rows of {manifest.name} cannot be compared with the position of {since.at.isoformat()}"
    try:
        position.require_same_server(conn, since)
    except Refused as error:
        raise NotComparable(f"{what}: {error}") from error
    row = conn.execute(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric - pg_snapshot_xmin(s)::text::numeric,"
        " pg_snapshot_xmax(pg_current_snapshot()) >= pg_snapshot_xmax(s) FROM (SELECT %s::pg_snapshot) AS p(s)",
        (since.snapshot,),
    ).fetchone()
    passed, forward = (int(row[0]), bool(row[1])) if row else (0, False)
    if not forward:
        raise NotComparable(f"{what}: this server is behind it, as after going back to an old copy; read all its rows.")
    if passed >= REACH:
        raise NotComparable(f"{what}: {passed} transactions lie between; read all its rows.")
    if not manifest.leaves:
        raise NotComparable(f"{what}: the point does not say which relations it read; take a new point.")
    for leaf in shape.leaves(conn, manifest.name):
        if not leaf.heap:
            raise NotComparable(f"{what}: {leaf.name} is not an ordinary table; read all its rows.")


def reshaped(conn: Connection[Any], table: str, since: Position) -> bool:
    """Whether a column of the table or of one of its leaves was altered after ``since`` (or may have been): its values
    can then differ although no row was written, as with a column that was dropped and added again."""
    row = conn.execute("SELECT %s::regclass::oid", (database.qualified(table).as_string(conn),)).fetchone()
    return bool(altered(conn, [*(leaf.oid for leaf in shape.leaves(conn, table)), *(row or ())], since))


def altered(conn: Connection[Any], relations: Sequence[int], since: Position) -> frozenset[int]:
    """Those of the ``relations`` (object ids) that have a column that was altered after ``since``, or may have been."""
    rows = conn.execute(
        "SELECT DISTINCT a.attrelid FROM pg_attribute a WHERE a.attrelid = ANY (%s::oid[]) AND a.attnum > 0"
        " AND age(a.xmin) <= age((pg_snapshot_xmin(%s::pg_snapshot))::xid)",
        (list(relations), since.snapshot),
    ).fetchall()
    return frozenset(int(oid) for (oid,) in rows)


def gone(
    conn: Connection[Any],
    store: Store,
    manifest: TableManifest,
    *,
    touched: sql.Identifier,
    into: sql.Identifier,
    app: str | None = None,
) -> int:
    """Make the temporary table ``into``: the keys of the point's rows that live no longer has. ``touched`` is what
    :func:`by_rows` made. Returns their number.

    The numbers of rows are compared first; only where rows are missing are the point's keys loaded beside the live
    ones. ``app`` as for :func:`reading.batches`.
    """
    columns = key_columns(manifest)
    conn.execute(
        sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            into, names(manifest.key), shape.source(conn, manifest.name)
        )
    )
    if not missing(conn, store, manifest, touched=touched, app=app):
        return 0
    staged = sql.Identifier("pg_temp", "reinstate_point_keys")
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(staged))
    conn.execute(sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT * FROM {} WITH NO DATA").format(staged, into))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(staged, names(manifest.key))
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in reading.batches(store, manifest, columns=manifest.key, app=app):
            copy.write(chunks.csv_blocks(batch, columns))
    conn.execute(sql.SQL("ANALYZE {}").format(staged))
    absent = sql.SQL(
        "INSERT INTO {into} SELECT {keys} FROM {staged} s WHERE NOT EXISTS (SELECT FROM {live} t WHERE {same})"
    ).format(
        into=into,
        keys=names(manifest.key, "s"),
        staged=staged,
        live=shape.source(conn, manifest.name),
        same=same(manifest.key, "t", "s"),
    )
    count = conn.execute(absent).rowcount
    conn.execute(sql.SQL("DROP TABLE {}").format(staged))
    conn.execute(sql.SQL("ANALYZE {}").format(into))
    return count


def missing(
    conn: Connection[Any],
    store: Store,
    manifest: TableManifest,
    *,
    touched: sql.Identifier,
    app: str | None = None,
) -> int:
    """How many of the point's rows live no longer has, by counting: the point's rows and what is new since, less what
    there is."""
    import pyarrow as pa

    columns = key_columns(manifest)
    query = sql.SQL("COPY (SELECT {} FROM {} t) TO STDOUT (FORMAT csv)").format(
        chunks.select_list(columns, "t"), touched
    )
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        batches = list(chunks.from_csv(copy, columns))
    asked = pa.Table.from_batches(batches, schema=chunks.schema(columns))
    known = sum(b.num_rows for b in reading.batches(store, manifest, columns=manifest.key, keys=asked, app=app))
    then = manifest.rows
    if app is not None:
        then = sum(b.num_rows for b in reading.batches(store, manifest, columns=manifest.key, app=app))
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(shape.source(conn, manifest.name))).fetchone()
    return int(then + asked.num_rows - known) - (int(row[0]) if row else 0)


def twin(conn: Connection[Any], table: str) -> sql.Identifier:
    """The table's twin. Raises :class:`Refused` when it is not journaled."""
    known = journal_shape.stored(conn).get(table)
    if known is None:
        raise Refused(f"Table {table} is not journaled; run `reinstate journal install`.")
    return sql.Identifier("reinstate", known.twin)


def key_columns(manifest: TableManifest) -> tuple[ColumnInfo, ...]:
    """The key's columns, in the order of the key."""
    by_name = {c.name: c for c in manifest.columns}
    return tuple(by_name[name] for name in manifest.key)


def names(columns: Sequence[str], alias: str | None = None) -> sql.Composed:
    """``a, b`` or ``t.a, t.b``."""
    prefix = (alias,) if alias else ()
    return sql.SQL(", ").join(sql.Identifier(*prefix, c) for c in columns)


def same(key: Sequence[str], left: str, right: str) -> sql.Composed:
    """``l.a = r.a AND l.b = r.b``."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, c), sql.Identifier(right, c)) for c in key
    )


def keep(conn: Connection[Any], query: sql.Composed, into: sql.Identifier) -> int:
    """Make ``into`` of what ``query`` gives, until the transaction ends, and return the number of rows."""
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(into))
    count = conn.execute(sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS {}").format(into, query)).rowcount
    conn.execute(sql.SQL("ANALYZE {}").format(into))
    return count
