"""A point's rows beside the live ones: loaded into temporary tables, compared exactly, inside one transaction.

The comparison is of row images (``record_image_eq``), so that 1.1 and 1.10, 0 and -0 or two spellings of a JSON value
are different. Rows are matched by key; a table without a usable key is compared as a bag: the n-th copy of a row here
against the n-th copy there (a multiset difference, as ``EXCEPT ALL``, which many types do not support).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, pq, sql

from . import chunks, shape
from .errors import Refused
from .model import ColumnInfo, TableManifest
from .point_errors import Damaged, ShapeChanged
from .store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """One table of a point in the current transaction. ``rows`` holds the point's rows, ``changes`` what differs."""

    manifest: TableManifest
    columns: tuple[ColumnInfo, ...]
    key: tuple[str, ...]
    live: sql.Composable
    rows: sql.Identifier
    changes: sql.Identifier


@contextmanager
def transaction(conn: Connection[Any], *, repeatable: bool = False) -> Iterator[None]:
    """One transaction with settled output. Refuses a connection that is already in one: its end would not be ours."""
    if conn.info.transaction_status != pq.TransactionStatus.IDLE:
        raise Refused("The connection is inside a transaction; commit or roll back before comparing with a point.")
    with conn.transaction():
        if repeatable:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        chunks.settle(conn)
        yield


def stage(conn: Connection[Any], manifest: TableManifest, store: Store, *, number: int) -> Staged:
    """Load the point's rows into a temporary table that ends with the transaction (role: reads the table, ``TEMP``).

    Memory: one chunk. Raises :class:`ShapeChanged`, :class:`Damaged` and the errors of the store.
    """
    changed = shape.differences(conn, manifest)
    if changed:
        raise ShapeChanged(
            f"Table {manifest.name} no longer fits the point: {'; '.join(changed)}; migrate it back first."
        )
    columns = chunks.stored(manifest.columns)
    live = shape.source(conn, manifest.name)
    rows = sql.Identifier("pg_temp", f"reinstate_point_{number}")
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(rows))
    conn.execute(
        sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {} FROM {} t WITH NO DATA").format(
            rows, names(columns, "t"), live
        )
    )
    load(conn, rows, manifest, store)
    conn.execute(sql.SQL("ANALYZE {}").format(rows))
    return Staged(
        manifest=manifest,
        columns=columns,
        key=shape.usable_key(conn, manifest.name, manifest.key),
        live=live,
        rows=rows,
        changes=sql.Identifier("pg_temp", f"reinstate_change_{number}"),
    )


def load(conn: Connection[Any], target: sql.Composable, manifest: TableManifest, store: Store) -> None:
    """Append all rows of ``manifest`` to ``target``, whose columns have the manifest's names and types."""
    columns = chunks.stored(manifest.columns)
    if not columns:
        raise ShapeChanged(f"Table {manifest.name} has no column that can be stored; leave it out of the catalogue.")
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(target, names(columns))
    count = 0
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for chunk in manifest.chunks:
            try:
                for row in chunks.decode(store.read_chunk(chunk.sha256), columns):
                    copy.write_row(row)
                    count += 1
            except ValueError as error:
                raise Damaged(f"Chunk {chunk.sha256} of {manifest.name}: {error}; use another point.") from error
    if count != manifest.rows:
        raise Damaged(f"Table {manifest.name} has {count} rows in its chunks, not {manifest.rows}; use another point.")


def compare(conn: Connection[Any], staged: Staged) -> dict[str, int]:
    """Write the differing rows into ``staged.changes`` and count them by kind, seen from the point: ``added`` (live
    only), ``changed``, ``deleted`` (in the point only). Each names the live row and the point's row by ``ctid``, which
    holds as long as the live table is locked or the snapshot is."""
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(staged.changes))
    query = _by_key(staged) if staged.key else _as_bag(staged)
    conn.execute(sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS {}").format(staged.changes, query))
    conn.execute(sql.SQL("ANALYZE {}").format(staged.changes))
    counted = conn.execute(sql.SQL("SELECT kind, count(*) FROM {} GROUP BY kind").format(staged.changes)).fetchall()
    return {"added": 0, "changed": 0, "deleted": 0} | {str(kind): int(count) for kind, count in counted}


def names(columns: tuple[ColumnInfo, ...], alias: str | None = None) -> sql.Composable:
    """``a, b`` or ``t.a, t.b``."""
    prefix = (alias,) if alias else ()
    return sql.SQL(", ").join(sql.Identifier(*prefix, c.name) for c in columns)


_DIFFERING = (
    "SELECT CASE WHEN p.ctid IS NULL THEN 'added' WHEN l.ctid IS NULL THEN 'deleted' ELSE 'changed' END AS kind,"
    " l.tableoid AS live_table, l.ctid AS live_row, p.ctid AS point_row"
    " FROM {live} l FULL JOIN {rows} p ON {same} WHERE l.ctid IS NULL OR p.ctid IS NULL OR {unlike}"
)


def _by_key(staged: Staged) -> sql.Composable:
    return sql.SQL(_DIFFERING).format(
        live=staged.live,
        rows=staged.rows,
        same=sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("l", c), sql.Identifier("p", c)) for c in staged.key
        ),
        unlike=sql.SQL("record_image_ne(ROW({}), ROW({}))").format(
            names(staged.columns, "l"), names(staged.columns, "p")
        ),
    )


def _as_bag(staged: Staged) -> sql.Composable:
    body = chunks.row_text(staged.columns, "t")
    numbered = sql.SQL(
        "(SELECT t.tableoid, t.ctid, {body} AS body, row_number() OVER (PARTITION BY {body}) AS n FROM {side} t)"
    )
    return sql.SQL(_DIFFERING).format(
        live=numbered.format(body=body, side=staged.live),
        rows=numbered.format(body=body, side=staged.rows),
        same=sql.SQL("l.body = p.body AND l.n = p.n"),
        unlike=sql.SQL("false"),
    )
