"""Full copies of tables: what to read, piece by piece, and how one piece becomes chunks.

A piece is a stretch of pages, the same of every relation that holds rows of the table, so that it is read without a
sort and an untouched stretch gives the same chunks again. Pieces are independent: any session on the same snapshot can
read any of them, in this process or another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from psycopg import Connection, sql

from . import chunks, shape
from .errors import Refused
from .model import Chunk, ColumnInfo
from .reader import Reader
from .store import Store

PIECE_PAGES = 4096
"""Pages of 8 KB that one piece covers, over all relations of the table together."""
MAX_ROWS = 131_072
MAX_BYTES = 32 * 1024 * 1024
"""A chunk ends with the piece, and at the latest here: memory stays bounded for any width of row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A query and the columns it gives. It holds no secret and no connection, so that it can travel."""

    table: str
    columns: tuple[ColumnInfo, ...]
    query: str


Runner = Callable[[str, Sequence[Piece]], list[tuple[Chunk, ...]]]
"""Stages all pieces on the snapshot of that id and returns the chunks of each, in the order of the pieces."""


def plan(conn: Connection[Any], table: str, columns: Sequence[ColumnInfo]) -> tuple[Piece, ...]:
    """The pieces that make up the table, in the order of its pages (role: capturer, on the snapshot)."""
    columns = chunks.stored(columns)
    if not columns:
        raise Refused(f"Table {table} has no column that can be stored; leave it out of the catalogue.")
    query = sql.SQL("SELECT {} FROM {} t").format(chunks.select_list(columns, "t"), shape.source(conn, table))
    leaves = shape.leaves(conn, table)
    pages = max((leaf.pages for leaf in leaves), default=0)
    step = max(1, PIECE_PAGES // max(1, len(leaves)))
    starts = list(range(0, pages, step)) if all(leaf.heap for leaf in leaves) else []
    found = []
    for start in starts or [0]:
        text = query
        if len(starts) > 1:
            text += sql.SQL(" WHERE t.ctid >= {}::tid").format(sql.Literal(f"({start},0)"))
            if start != starts[-1]:
                text += sql.SQL(" AND t.ctid < {}::tid").format(sql.Literal(f"({start + step},0)"))
        found.append(Piece(table=table, columns=columns, query=text.as_string(conn)))
    return tuple(found)


def copy(reader: Reader, piece: Piece, store: Store) -> tuple[Chunk, ...]:
    """Read one piece into the store. Memory: one chunk."""
    return tuple(keep(store, table) for table in _cut(reader.batches(piece.query, piece.columns)))


def keep(store: Store, table: pa.Table) -> Chunk:
    """A table as a chunk of the store."""
    data = chunks.encode(table)
    return Chunk(sha256=store.put_chunk(data), rows=table.num_rows, bytes=len(data))


def threads(dsn: str, store: Store, *, workers: int) -> Runner:
    """A runner in this process: so many threads, each with a session of its own."""

    def run(snapshot_id: str, pieces: Sequence[Piece]) -> list[tuple[Chunk, ...]]:
        own = threading.local()
        stopped = threading.Event()
        with ExitStack() as sessions:

            def job(piece: Piece) -> tuple[Chunk, ...]:
                if stopped.is_set():
                    return ()
                try:
                    if not hasattr(own, "reader"):
                        own.reader = sessions.enter_context(Reader(dsn, snapshot_id))
                    return copy(own.reader, piece, store)
                except BaseException:
                    stopped.set()
                    raise

            with ThreadPoolExecutor(max(1, min(workers, len(pieces))), thread_name_prefix="capture") as pool:
                return list(pool.map(job, pieces))

    return run


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
