"""Full copies of tables: what to read, piece by piece, and how one piece becomes chunks.

A piece is a stretch of pages, the same of every relation that holds rows of the table, so that it is read without a
sort and an untouched stretch gives the same chunks again. Pieces are independent: any session on the same snapshot can
read any of them, in this process or another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from psycopg import Connection, sql

from snapshots.capture import shape
from snapshots.capture.reader import Reader
from snapshots.errors import Refused
from snapshots.model import Chunk, ColumnInfo
from snapshots.points import chunks
from snapshots.store.store import Store

PROGRESS_S = 2.0
PIECE_PAGES = 4096
"""Pages of 8 KB that one piece covers, over all relations of the table together."""
MAX_ROWS = 131_072
MAX_BYTES = 16 * 1024 * 1024
"""A chunk ends with the piece, and at the latest here: memory stays bounded for any width of row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A query and the columns it gives. It holds no secret and no connection, so that it can travel."""

    table: str
    columns: tuple[ColumnInfo, ...]
    query: str


T = TypeVar("T")
Runner = Callable[[str, Sequence[Piece]], list[tuple[Chunk, ...]]]
"""Stages all pieces on the snapshot of that id and returns the chunks of each, in the order of the pieces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a capture works with: the session that holds the snapshot, readers on it, and the store."""

    conn: Connection[Any]
    readers: Readers
    store: Store


def plan(
    conn: Connection[Any], table: str, columns: Sequence[ColumnInfo], *, where: sql.Composable | None = None
) -> tuple[Piece, ...]:
    """The pieces that make up the table, in the order of its pages (role: capturer, on the snapshot). ``where`` leaves
    out rows ``t`` that do not meet it."""
    columns = chunks.stored(columns)
    if not columns:
        raise Refused(f"Table {table} has no column that can be stored; leave it out of the catalogue.")
    query = sql.SQL("SELECT {} FROM {} t WHERE {}")
    chosen, live = chunks.select_list(columns, "t"), shape.source(conn, table)
    return tuple(
        Piece(table=table, columns=columns, query=query.format(chosen, live, limit).as_string(conn))
        for limit in stretches(conn, table, where=where)
    )


def stretches(conn: Connection[Any], table: str, *, where: sql.Composable | None = None) -> tuple[sql.Composable, ...]:
    """Conditions on rows ``t``, each of which holds for the rows on some pages; together they hold for every row."""
    leaves = shape.leaves(conn, table)
    pages = max((leaf.pages for leaf in leaves), default=0)
    step = max(1, PIECE_PAGES // max(1, len(leaves)))
    starts = list(range(0, pages, step)) if all(leaf.heap for leaf in leaves) else []
    found = []
    for start in starts or [0]:
        limits = [where] if where is not None else []
        if len(starts) > 1:
            limits.append(sql.SQL("t.ctid >= {}::tid").format(sql.Literal(f"({start},0)")))
            if start != starts[-1]:
                limits.append(sql.SQL("t.ctid < {}::tid").format(sql.Literal(f"({start + step},0)")))
        found.append(sql.SQL(" AND ").join(limits) if limits else sql.SQL("true"))
    return tuple(found)


def copy(reader: Reader, piece: Piece, store: Store) -> tuple[Chunk, ...]:
    """Read one piece into the store. Memory: one chunk."""
    return tuple(keep(store, table) for table in _cut(reader.batches(piece.query, piece.columns)))


def stage(
    readers: Readers, parts: Sequence[Piece], store: Store, *, say: Callable[[str], None] = lambda _: None
) -> list[tuple[Chunk, ...]]:
    """Copy all pieces in this process: sessions read on while chunks before are packed and written. Memory: one chunk
    for each reader and each packer. ``say`` hears from time to time how far it is."""
    room = threading.BoundedSemaphore(readers.workers)
    stopped = threading.Event()
    told = [0, time.monotonic()]

    def packed(future: Future[Chunk]) -> None:
        room.release()
        if not future.cancelled() and future.exception() is not None:
            stopped.set()

    with ThreadPoolExecutor(readers.workers, thread_name_prefix="pack") as packers:

        def work(reader: Reader, part: Piece) -> list[Future[Chunk]]:
            found = []
            for table in _cut(reader.batches(part.query, part.columns)):
                room.acquire()
                if stopped.is_set():
                    room.release()
                    break
                found.append(packers.submit(keep, store, table))
                found[-1].add_done_callback(packed)
            told[0] += 1
            if time.monotonic() - told[1] > PROGRESS_S:
                told[1] = time.monotonic()
                say(f"copied {told[0]} of {len(parts)} pieces")
            return found

        return [tuple(f.result() for f in listed) for listed in readers.map(work, parts)]


def keep(store: Store, table: pa.Table) -> Chunk:
    """A table as a chunk of the store."""
    data = chunks.encode(table)
    return Chunk(sha256=store.put_chunk(data), rows=table.num_rows, bytes=len(data))


def gather(readers: Readers, parts: Sequence[Piece], *, max_bytes: int) -> pa.Table | None:
    """The rows of all pieces together; ``None`` as soon as they take more than ``max_bytes`` of memory."""
    taken = 0

    def work(reader: Reader, piece: Piece) -> list[pa.RecordBatch]:
        nonlocal taken
        held = []
        for batch in reader.batches(piece.query, piece.columns):
            taken += batch.nbytes  # a little off when two threads add at once, which does not matter
            if taken > max_bytes:
                break
            if batch.num_rows:
                held.append(batch)
        return held

    found = [batch for batches in readers.map(work, parts) for batch in batches]
    return None if taken > max_bytes else pa.Table.from_batches(found, schema=chunks.schema(parts[0].columns))


class Readers:
    """Up to ``workers`` sessions of the capturer on one snapshot, each in a thread of its own; opened when needed."""

    def __init__(self, dsn: str, snapshot_id: str, *, workers: int) -> None:
        self._dsn, self._snapshot_id = dsn, snapshot_id
        self._own = threading.local()
        self._sessions = ExitStack()
        self._opening = threading.Lock()
        self._first: Reader | None = None
        self.workers = max(1, workers)
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="capture")

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._sessions.close()

    def map(self, work: Callable[[Reader, Piece], T], parts: Sequence[Piece]) -> list[T]:
        """``work`` on each piece; results in the order of the pieces. The first error stops those not begun."""
        waiting = [self._pool.submit(self._do, work, part) for part in parts]
        try:
            return [future.result() for future in waiting]
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)

    def warm(self) -> None:
        """Begin to open the sessions now, while their caller still plans."""
        for _ in range(self.workers):
            self._pool.submit(self._reader)

    def _do(self, work: Callable[[Reader, Piece], T], part: Piece) -> T:
        return work(self._reader(), part)

    def _reader(self) -> Reader:
        """This thread's session."""
        found: Reader | None = getattr(self._own, "reader", None)
        if found is None:
            with self._opening:
                found = self._sessions.enter_context(Reader(self._dsn, self._snapshot_id, beside=self._first))
                self._first = self._first or found
            self._own.reader = found
        return found


def _cut(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches joined into tables of at most about ``MAX_ROWS`` and ``MAX_BYTES``."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if held and (rows + batch.num_rows > MAX_ROWS or size + batch.nbytes > MAX_BYTES):
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
        if batch.num_rows:
            held.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
    if held:
        yield pa.Table.from_batches(held)
