"""Rows of a table as immutable Parquet pieces, and back, without changing a bit of any value.

Only types that Arrow and Parquet hold exactly travel natively (integers, booleans, floats, text, bytea). Every other
one travels as the text PostgreSQL prints for it and comes back through that type's own input function; the exact type
is in the manifest. Readers of Parquet otherwise damage NaN and huge numerics, infinite dates, arrays of several
dimensions, money and oid in silence, and fail on ranges, inet, bit, tsvector and composites (measured).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import Connection, sql

from .model import ColumnInfo

MIN_ROWS = 10_000
MAX_ROWS = 40_000
MAX_BYTES = 32 * 1024 * 1024
"""Text and binary bytes after which a chunk ends early: memory stays bounded for wide rows too."""
CUT = 10_000
"""A chunk ends where the checksum of the key is a multiple of this, between ``MIN_ROWS`` and ``MAX_ROWS``: about
20,000 rows each, and a row inserted in the middle changes one chunk, not all that follow (content-defined chunking,
as in restic's chunker)."""

_NATIVE: dict[str, tuple[pa.DataType, str]] = {
    "smallint": (pa.int16(), "int2"),
    "integer": (pa.int32(), "int4"),
    "bigint": (pa.int64(), "int8"),
    "boolean": (pa.bool_(), "bool"),
    "real": (pa.float32(), "float4"),
    "double precision": (pa.float64(), "float8"),
    "text": (pa.large_string(), "text"),
    "bytea": (pa.large_binary(), "bytea"),
    "character varying": (pa.large_string(), "varchar"),
    "character": (pa.large_string(), "bpchar"),
    "bpchar": (pa.large_string(), "bpchar"),
}
"""``character`` is native because ``::text`` strips its trailing blanks."""

_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "xmloption": "content",
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "client_encoding": "UTF8",
}
"""``row_security`` off makes a policy that would hide rows an error instead of a silently smaller copy."""


def settle(conn: Connection[Any]) -> None:
    """Fix, for this transaction, every setting that changes how a value prints or parses. Any role."""
    conn.execute(
        "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s(name, value)",
        (list(_SETTINGS), list(_SETTINGS.values())),
    )


def stored(columns: Sequence[ColumnInfo]) -> tuple[ColumnInfo, ...]:
    """The columns a chunk holds: all but generated ones, which PostgreSQL computes again."""
    return tuple(c for c in columns if not c.generated)


def select_list(columns: Sequence[ColumnInfo], alias: str) -> sql.Composable:
    """What to select so that each value arrives in a type that Arrow holds exactly."""
    parts = []
    for column in columns:
        name = sql.SQL("{}.{}").format(sql.Identifier(alias), sql.Identifier(column.name))
        parts.append(name if _native(column) else sql.SQL("{}::text").format(name))
    return sql.SQL(", ").join(parts)


def row_text(columns: Sequence[ColumnInfo], alias: str) -> sql.Composable:
    """One text that stands for the whole row exactly, null and empty apart: the identity of a row without a key."""
    names = sql.SQL(", ").join(sql.SQL("{}.{}").format(sql.Identifier(alias), sql.Identifier(c.name)) for c in columns)
    return sql.SQL("ROW({})::text").format(names)


def copy_types(columns: Sequence[ColumnInfo]) -> list[str]:
    """Type names for ``Copy.set_types`` that match :func:`select_list`."""
    return [native[1] if (native := _native(c)) else "text" for c in columns]


def schema(columns: Sequence[ColumnInfo]) -> pa.Schema:
    """The Arrow schema of a chunk. All columns are nullable: NOT NULL is the table's own business."""
    return pa.schema([(c.name, native[0] if (native := _native(c)) else pa.large_string()) for c in columns])


def split(rows: Iterable[tuple[Any, ...]], key: Sequence[int]) -> Iterator[list[tuple[Any, ...]]]:
    """Group ordered rows into chunks by content of the columns numbered ``key`` (all columns when empty)."""
    batch: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(v) for v in row if isinstance(v, str | bytes))
        if len(batch) < MIN_ROWS and size < MAX_BYTES:
            continue
        identity = tuple(row[i] for i in key) if key else row
        if len(batch) >= MAX_ROWS or size >= MAX_BYTES or zlib.crc32(repr(identity).encode()) % CUT == 0:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode(rows: Sequence[tuple[Any, ...]], columns: Sequence[ColumnInfo]) -> bytes:
    """Rows as one zstd Parquet file. Equal rows give equal bytes under one version of pyarrow."""
    layout = schema(columns)
    arrays = [pa.array([row[i] for row in rows], type=field.type) for i, field in enumerate(layout)]
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=layout),
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        write_statistics=False,
        row_group_size=max(1, len(rows)),
    )
    return sink.getvalue()


def decode(data: bytes, columns: Sequence[ColumnInfo]) -> Iterator[tuple[Any, ...]]:
    """The rows of one chunk, in order, values as Python objects that print as they came.

    Raises :class:`ValueError` when the file is not Parquet or does not hold ``columns``.
    """
    try:
        table = pq.read_table(io.BytesIO(data), partitioning=None)
    except pa.ArrowException as error:
        raise ValueError(f"not a readable Parquet file ({type(error).__name__})") from error
    if not table.schema.equals(schema(columns)):
        raise ValueError(f"its columns are {', '.join(table.schema.names)}")
    for batch in table.to_batches(max_chunksize=2_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _native(column: ColumnInfo) -> tuple[pa.DataType, str] | None:
    """Looked up by the type's name without its length, so ``character varying(20)`` counts."""
    name, bracket, rest = column.type.partition("(")
    return _NATIVE.get(name) if not bracket or rest.endswith(")") else None
