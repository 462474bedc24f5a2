"""A point's rows into a database: streamed from the store as CSV blocks that pyarrow makes, taken in by COPY."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from psycopg import Connection, errors, pq, sql

from snapshots.errors import Refused
from snapshots.model import TableManifest
from snapshots.points import chunks, reading
from snapshots.points.errors import Damaged, ShapeChanged
from snapshots.restore.frame import Frame, names, settle
from snapshots.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Block = tuple[int, bytes]
"""A number of rows, and their CSV."""
TEMP_BUFFERS = "128MB"
"""Server memory at most for what is compared; the default of 8 MB would make every look at it a read."""


@contextmanager
def transaction(conn: Connection[Any], *, repeatable: bool = False) -> Iterator[None]:
    """One transaction with settled output, whatever the database's defaults: what waits for a lock must see what was
    committed meanwhile. Refuses a connection that is already in one: its end would not be ours."""
    if conn.info.transaction_status != pq.TransactionStatus.IDLE:
        raise Refused("The connection is inside a transaction; commit or roll back before comparing with a point.")
    with suppress(errors.InvalidParameterValue, errors.FeatureNotSupported), conn.transaction():
        # Only before a session's first temporary table; later it stays as it is.
        conn.execute(sql.SQL("SET temp_buffers = {}").format(sql.Literal(TEMP_BUFFERS)))
    with conn.transaction():
        level = sql.SQL("REPEATABLE READ" if repeatable else "READ COMMITTED")
        conn.execute(sql.SQL("SET TRANSACTION ISOLATION LEVEL {}, READ WRITE").format(level))
        settle(conn)
        yield


def load(
    conn: Connection[Any],
    into: sql.Composable,
    manifest: TableManifest,
    store: Store,
    *,
    keys: pa.Table | None = None,
    app: str | None = None,
    ready: Sequence[Block] | None = None,
) -> int:
    """Append the rows of ``manifest`` (those with ``keys``, where given) to ``into``, whose columns have the manifest's
    names and types; returns how many. ``ready`` is what :func:`blocks` gave. Memory: a few chunks. Raises
    :class:`Damaged` and the errors of the store."""
    columns = chunks.stored(manifest.columns)
    if not columns:
        raise ShapeChanged(f"Table {manifest.name} has no column that can be stored; leave it out of the catalogue.")
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(into, names(c.name for c in columns))
    count = 0
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for rows, block in blocks(manifest, store, keys=keys, app=app) if ready is None else ready:
            copy.write(block)
            count += rows
    if keys is None and count != manifest.rows and (app is None or count > manifest.rows):
        raise Damaged(f"Table {manifest.name} has {count} rows in its chunks, not {manifest.rows}; use another point.")
    return count


def blocks(
    manifest: TableManifest, store: Store, *, keys: pa.Table | None = None, app: str | None = None
) -> Iterator[Block]:
    """The rows that :func:`load` sends. Any thread may read them."""
    columns = chunks.stored(manifest.columns)
    for batch in reading.batches(store, manifest, keys=keys, app=app):
        yield batch.num_rows, chunks.csv_blocks(batch, columns)


def stage(
    conn: Connection[Any],
    frame: Frame,
    store: Store,
    *,
    keys: pa.Table | None = None,
    app: str | None = None,
    ready: Sequence[Block] | None = None,
) -> int:
    """The point's rows of one table (those with ``keys``) in its temporary table ``point``; returns how many."""
    assert frame.manifest is not None  # noqa: S101 - frames without one are never staged
    point = frame.temp("point")
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(point))
    conn.execute(
        sql.SQL("CREATE TEMP TABLE {} AS SELECT {} FROM {} t WITH NO DATA").format(point, frame.values("t"), frame.live)
    )
    count = load(conn, point, frame.manifest, store, keys=keys, app=app, ready=ready)
    conn.execute(sql.SQL("ANALYZE {}").format(point))
    return count
