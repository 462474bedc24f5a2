"""The journal's row images as immutable Parquet segments, so that history survives the database and the journal's own
pruning.

A segment holds the columns of a twin as :func:`chunks.select_list` gives them, ordered by ``rj_seq``: images of
transactions that had not committed at ``since`` and had at the point's position. A table whose journal has a gap in
that stretch gives none: a segment never claims what it does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from snapshots import position
from snapshots.capture import shape
from snapshots.journal import journal
from snapshots.journal import shape as journal_shape
from snapshots.model import Position, Segment, TableSpec
from snapshots.points import chunks
from snapshots.points.errors import Damaged
from snapshots.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

MAX_BYTES = 32 * 1024 * 1024
WRITERS = 4
MERGE_BELOW = 8 * 1024 * 1024
"""Segments of fewer bytes than this are put together by :func:`compact`."""


def export(
    conn: Connection[Any], specs: Sequence[TableSpec], since: Position | None, store: Store
) -> tuple[Segment, ...]:
    """Store the images of the journaled tables after ``since`` as the snapshot of ``conn`` shows them (role: capturer,
    in a settled transaction). Without ``since`` there is nothing to continue: no segment. Memory: one segment.

    Raises :class:`Refused` when ``since`` is of another server.
    """
    if since is None:
        return ()
    known = journal_shape.stored(conn)
    wanted = [s.name for s in specs if s.name in known]
    if not wanted:
        return ()
    holes = {gap.table for gap in journal.gaps(conn, since=since, tables=wanted)}
    found: list[Future[Segment]] = []
    with ThreadPoolExecutor(WRITERS) as writers:
        for name in wanted:
            if holes & {name, "*"}:
                continue
            for table in _images(conn, known[name].twin, since):
                found.append(writers.submit(_kept, store, name, table, since))
                if len(found) > WRITERS:
                    found[-WRITERS].result()  # no more of them in memory than that
    return tuple(written.result() for written in found)


def _kept(store: Store, name: str, table: pa.Table, since: Position) -> Segment:
    data = chunks.encode(table)
    return Segment(table=name, sha256=store.put_chunk(data), rows=table.num_rows, bytes=len(data), since=since)


def rows(store: Store, segment: Segment) -> pa.Table:
    """The images of a segment, ordered by ``rj_seq``. Raises :class:`Damaged`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = store.read_chunk(segment.sha256)
    try:
        table = pq.read_table(pa.BufferReader(data), partitioning=None, use_threads=False)
    except pa.ArrowException as error:
        raise Damaged(
            f"Segment {segment.sha256} of {segment.table} is not readable ({type(error).__name__}); "
            "restore the store from its copy."
        ) from error
    if table.num_rows != segment.rows:
        raise Damaged(
            f"Segment {segment.sha256} of {segment.table} holds {table.num_rows} rows, not {segment.rows}; "
            "restore the store from its copy."
        )
    return table


def compact(store: Store, segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The same images in fewer segments: neighbours of one table and one layout that are small become one, which
    begins where the first of them began. Large ones stay as they are."""

    by_table: dict[str, list[Segment]] = {}
    for segment in segments:
        by_table.setdefault(segment.table, []).append(segment)
    made: list[Segment] = []
    for table, listed in by_table.items():
        held: list[tuple[Segment, pa.Table]] = []
        for segment in listed:
            if segment.bytes >= MERGE_BELOW:
                made += _joined(store, table, held)
                made.append(segment)
                held = []
                continue
            images = rows(store, segment)
            if held and (
                not images.schema.equals(held[0][1].schema)
                or sum(s.bytes for s, _ in held) + segment.bytes > MERGE_BELOW
            ):
                made += _joined(store, table, held)
                held = []
            held.append((segment, images))
        made += _joined(store, table, held)
    return tuple(made)


def _joined(store: Store, table: str, held: Sequence[tuple[Segment, pa.Table]]) -> list[Segment]:
    import pyarrow as pa

    if len(held) < 2:
        return [segment for segment, _ in held]
    whole = pa.concat_tables([images for _, images in held]).sort_by("rj_seq")
    return [_kept(store, table, whole, held[0][0].since)]


def _images(conn: Connection[Any], twin: str, since: Position) -> Iterator[pa.Table]:
    import pyarrow as pa

    columns = shape.columns(conn, f"reinstate.{twin}")
    query = sql.SQL("COPY (SELECT {} FROM {} t WHERE {} ORDER BY t.rj_seq) TO STDOUT (FORMAT csv)").format(
        chunks.select_list(columns, "t"),
        sql.Identifier("reinstate", twin),
        position.after(since, sql.Identifier("t", "rj_xid")),
    )
    held: list[pa.RecordBatch] = []
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        for batch in chunks.from_csv(copy, columns):
            held.append(batch)
            if sum(b.nbytes for b in held) >= MAX_BYTES:
                yield pa.Table.from_batches(held)
                held = []
    if held:
        yield pa.Table.from_batches(held)
