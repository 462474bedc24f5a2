"""What changed in a table since a point, as a delta over the point's chunks.

Two ways: by the journal, at the cost of the changes; by the rows' own transaction numbers, at the cost of one scan.
Either gives ``None`` where it cannot vouch for the result, or where a full copy is the better one; the caller then
copies the table in full. See docs/design.md ("The data engine").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from psycopg import Connection, sql

from snapshots import position
from snapshots.capture import keysets, pieces, shape, touched
from snapshots.capture.pieces import Work
from snapshots.errors import Refused
from snapshots.journal import journal
from snapshots.journal import shape as journal_shape
from snapshots.model import Chunk, ColumnInfo, Position, TableManifest, TableSpec
from snapshots.points import chunks, reading
from snapshots.points.reading import GONE
from snapshots.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Method = Literal["journal", "scan"]
MAX_SHARE = 0.2
"""Deltas with more rows than this share of the table, all of them together, give way to a full copy."""
MAX_BYTES = 64 * 1024 * 1024
"""And so do changes that would take more memory than this."""
MIN_ROWS = 1_000
"""Below so many rows the share does not count."""
MAX_DELTAS = 8
"""More deltas over one table are merged into one."""
GONE_COLUMN = ColumnInfo(name=GONE, type="boolean", not_null=True, generated=False, identity="")
CHANGED = sql.Identifier("pg_temp", "reinstate_changed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Now:
    """A table as the snapshot shows it."""

    spec: TableSpec
    columns: tuple[ColumnInfo, ...]
    key: tuple[str, ...]
    leaves: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What became of a table since ``base``; without a ``delta`` nothing did. It needs no connection any more."""

    base: TableManifest
    table: Now
    rows: int
    method: Method
    delta: pa.Table | None = None


def now(conn: Connection[Any], spec: TableSpec) -> Now:
    """Role: capturer, on the snapshot."""
    columns = shape.columns(conn, spec.name)
    kept = {c.name for c in chunks.stored(columns)}
    key = shape.usable_key(conn, spec.name, spec.key) if set(spec.key) <= kept else ()
    leaves = tuple(leaf.oid for leaf in shape.leaves(conn, spec.name))
    return Now(spec=spec, columns=columns, key=key, leaves=leaves)


def leans(table: Now, base: TableManifest) -> bool:
    """Whether a delta over ``base`` can say what ``table`` is: same columns, same key, and keys that texts can tell."""
    then = [(c.name, c.type, c.generated) for c in base.columns]
    return [(c.name, c.type, c.generated) for c in table.columns] == then and table.key == base.key


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What the journal holds of one table since a position: ``images`` rows in its twin, and by how many rows the table
    grew."""

    twin: sql.Identifier
    images: int
    net: int


def journaled(conn: Connection[Any], here: Sequence[Now], since: Position) -> dict[str, Seen]:
    """The tables whose journal has no gap since ``since``, and whose columns are as they were. Few queries for all."""
    names = [t.spec.name for t in here if t.key]
    try:
        holes = {gap.table for gap in journal.gaps(conn, since=since, tables=names)} if names else {"*"}
    except Refused:  # another server: its transaction numbers mean nothing here
        holes = {"*"}
    moved = touched.altered(conn, [oid for t in here for oid in t.leaves], since) if "*" not in holes else frozenset()
    whole = [t.spec.name for t in here if t.key and not holes & {"*", t.spec.name} and moved.isdisjoint(t.leaves)]
    if not whole:
        return {}
    known = journal_shape.stored(conn)
    twins = {name: sql.Identifier("reinstate", known[name].twin) for name in whole}
    counts = sql.SQL(" UNION ALL ").join(
        sql.SQL(
            "SELECT {}::text, count(*), coalesce(sum(CASE rj_side WHEN 'n' THEN 1 ELSE -1 END), 0)::bigint"
            " FROM {} WHERE {}"
        ).format(sql.Literal(name), twin, position.after(since))
        for name, twin in twins.items()
    )
    return {n: Seen(twin=twins[n], images=images, net=net) for n, images, net in conn.execute(counts).fetchall()}


def by_journal(work: Work, table: Now, base: TableManifest, since: Position, seen: Seen) -> Change | None:
    """The table from its journal; ``seen`` comes from :func:`journaled` for ``since``, the position of ``base``."""
    if not set(table.leaves) <= set(base.leaves):
        return None
    if not seen.images:
        return Change(base=base, table=table, rows=base.rows, method="journal")
    rows = base.rows + seen.net
    if not reading.comparable(table.columns, table.key) or not _worth(base, seen.images // 2, rows):
        return None
    changed = touched.keep(work.conn, touched.keys_after(table.spec, seen.twin, since), CHANGED)
    if not _worth(base, changed, rows):
        return None
    return Change(base=base, table=table, rows=rows, method="journal", delta=_joined(work.conn, table))


def by_scan(work: Work, table: Now, base: TableManifest, since: Position) -> Change | None:
    """The table from the rows' own transaction numbers: changed rows by one scan, then by counting whether rows of the
    point are gone, and only if so which."""
    try:
        condition = touched.written_since(work.conn, base, since, alias="t")
    except touched.NotComparable:
        condition = None
    if condition is None:
        return None
    parts = pieces.plan(work.conn, base.name, table.columns, where=condition)
    changed = pieces.gather(work.readers, parts, max_bytes=MAX_BYTES)
    counted = work.conn.execute(sql.SQL("SELECT count(*) FROM {}").format(shape.source(work.conn, base.name)))
    rows = int((counted.fetchone() or (0,))[0])
    if changed is not None and not changed.num_rows and rows == base.rows:
        return Change(base=base, table=table, rows=base.rows, method="scan")
    if changed is None or not reading.comparable(table.columns, table.key) or not _worth(base, changed.num_rows, rows):
        return None
    gone = keysets.gone(work, base, changed, rows)
    if gone is None:
        return None
    return Change(base=base, table=table, rows=rows, method="scan", delta=_delta(changed, gone, table))


def _worth(base: TableManifest, changed: int, rows: int) -> bool:
    held = changed + sum(d.rows for d in base.deltas)
    return held <= max(MIN_ROWS, MAX_SHARE * max(rows, base.rows))


def _joined(conn: Connection[Any], table: Now) -> pa.Table:
    """The delta for the keys in ``CHANGED``: the key as live has it, of a row that is gone as the journal has it."""
    import pyarrow as pa

    parts = [
        sql.SQL("coalesce({}, {})").format(chunks.value(c, "t"), chunks.value(c, "k"))
        if c.name in table.key
        else chunks.value(c, "t")
        for c in chunks.stored(table.columns)
    ]
    query = sql.SQL(
        "COPY (SELECT {absent} IS NULL, {columns} FROM {changed} k LEFT JOIN {live} t ON {same}) TO STDOUT (FORMAT csv)"
    ).format(
        absent=sql.Identifier("t", table.key[0]),
        columns=sql.SQL(", ").join(parts),
        changed=CHANGED,
        live=shape.source(conn, table.spec.name),
        same=touched.same(table.key, "t", "k"),
    )
    columns = (GONE_COLUMN, *chunks.stored(table.columns))
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        return pa.Table.from_batches(list(chunks.from_csv(copy, columns)), schema=chunks.schema(columns))


def _delta(changed: pa.Table, gone: pa.Table, table: Now) -> pa.Table:
    """Rows that are there, then keys of rows that are gone with nulls beside them."""
    import pyarrow as pa

    layout = chunks.schema((GONE_COLUMN, *chunks.stored(table.columns)))

    def flagged(rows: pa.Table, flag: bool) -> pa.Table:
        count = rows.num_rows
        columns = [
            rows.column(f.name) if f.name in rows.column_names else pa.nulls(count, f.type) for f in list(layout)[1:]
        ]
        return pa.Table.from_arrays([pa.repeat(pa.scalar(flag), count), *columns], schema=layout)

    return pa.concat_tables([flagged(changed, False), flagged(gone, True)])


def finished(store: Store, change: Change) -> TableManifest:
    """The base with the change's delta in the store and over it; with all deltas merged into one when they are many."""
    deltas: Sequence[Chunk] = change.base.deltas
    if change.delta is not None and change.delta.num_rows:
        deltas = (*deltas, pieces.keep(store, change.delta))
    made = replace(
        change.base,
        columns=change.table.columns,
        rows=change.rows,
        deltas=tuple(deltas),
        leaves=change.table.leaves,
        method=change.method,
        fingerprint=(),
    )
    if len(deltas) > MAX_DELTAS:
        made = replace(made, deltas=(pieces.keep(store, reading.merged(store, made)),))
    return made
