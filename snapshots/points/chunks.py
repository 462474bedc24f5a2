"""Rows of a table as immutable Parquet pieces, and back, without changing a bit of any value.

Only types that Arrow and Parquet hold exactly travel natively (integers, booleans, floats, text, bytea). Every other
one travels as the text PostgreSQL prints for it and comes back through that type's own input function; the exact type
is in the manifest. Readers of Parquet otherwise damage NaN and huge numerics, infinite dates, arrays of several
dimensions, money and oid in silence, and fail on ranges, inet, bit, tsvector and composites (measured).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from psycopg import Connection, sql

from snapshots.model import ColumnInfo

ZSTD_LEVEL = 1
CSV_BYTES = 8 * 1024 * 1024
SAMPLE_ROWS = 2_000
REPEATS_BELOW = 0.3
"""A text column gets a dictionary when fewer than so many of its first values are distinct."""
_PACKED = {
    pa.int16(): "DELTA_BINARY_PACKED",
    pa.int32(): "DELTA_BINARY_PACKED",
    pa.int64(): "DELTA_BINARY_PACKED",
    pa.float32(): "BYTE_STREAM_SPLIT",
    pa.float64(): "BYTE_STREAM_SPLIT",
}

_NATIVE = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "text": pa.large_string(),
    "bytea": pa.large_binary(),
    "character varying": pa.large_string(),
    "character": pa.large_string(),
    "bpchar": pa.large_string(),
}
"""``character`` is native because ``::text`` strips its trailing blanks."""

SETTINGS = {
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
        (list(SETTINGS), list(SETTINGS.values())),
    )


def stored(columns: Sequence[ColumnInfo]) -> tuple[ColumnInfo, ...]:
    """The columns a chunk holds: all but generated ones, which PostgreSQL computes again."""
    return tuple(c for c in columns if not c.generated)


def select_list(columns: Sequence[ColumnInfo], alias: str) -> sql.Composable:
    """What to select so that each value arrives in a type that Arrow holds exactly."""
    return sql.SQL(", ").join(value(column, alias) for column in columns)


def value(column: ColumnInfo, alias: str) -> sql.Composable:
    """One column of :func:`select_list`."""
    name = sql.Identifier(alias, column.name)
    return name if _native(column) else sql.SQL("{}::text").format(name)


def row_text(columns: Sequence[ColumnInfo], alias: str) -> sql.Composable:
    """One text that stands for the whole row exactly, null and empty apart: the identity of a row without a key."""
    names = sql.SQL(", ").join(sql.SQL("{}.{}").format(sql.Identifier(alias), sql.Identifier(c.name)) for c in columns)
    return sql.SQL("ROW({})::text").format(names)


def schema(columns: Sequence[ColumnInfo]) -> pa.Schema:
    """The Arrow schema of a chunk. All columns are nullable: NOT NULL is the table's own business."""
    return pa.schema([(c.name, _native(c) or pa.large_string()) for c in columns])


def from_rows(rows: Sequence[tuple[Any, ...]], columns: Sequence[ColumnInfo]) -> pa.Table:
    """Python rows as a table of :func:`schema`."""
    layout = schema(columns)
    arrays = [pa.array([row[i] for row in rows], type=field.type) for i, field in enumerate(layout)]
    return pa.Table.from_arrays(arrays, schema=layout)


def encode(table: pa.Table) -> bytes:
    """A table, in its order, as one zstd Parquet file with one row group. Equal tables give equal bytes under one
    version of pyarrow. Whole numbers are kept as differences and floats byte by byte, which zstd then packs better;
    texts that repeat become numbers into a dictionary."""
    sink = io.BytesIO()
    repeating = [f.name for f in table.schema if _repeats(f, table.column(f.name))]
    packed = {f.name: _PACKED[f.type] for f in table.schema if f.type in _PACKED}
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=repeating,
        column_encoding=packed,
        write_statistics=False,
        row_group_size=max(1, table.num_rows),
        store_schema=True,
    )
    return sink.getvalue()


def open_(data: bytes, columns: Sequence[ColumnInfo]) -> pa.Table:
    """The rows of one chunk. Raises :class:`ValueError` when it is not Parquet or does not hold ``columns``."""
    try:
        table = pq.read_table(pa.BufferReader(data), partitioning=None, use_threads=False)
    except pa.ArrowException as error:
        raise ValueError(f"not a readable Parquet file ({type(error).__name__})") from error
    if not table.schema.equals(schema(columns)):
        raise ValueError(f"its columns are {', '.join(table.schema.names)}")
    return table


def csv_blocks(batch: pa.RecordBatch, columns: Sequence[ColumnInfo]) -> bytes:
    """The batch as CSV for ``COPY ... (columns) FROM STDIN (FORMAT csv)``: null is empty, everything else is quoted."""
    arrays = []
    for column in columns:
        values = batch.column(column.name)
        if pa.types.is_large_binary(values.type):
            values = _hex(values)
        elif pa.types.is_floating(values.type):
            values = _spelled(values)
        arrays.append(values)
    sink = io.BytesIO()
    options = pa_csv.WriteOptions(include_header=False, quoting_style="all_valid")
    pa_csv.write_csv(pa.RecordBatch.from_arrays(arrays, names=[c.name for c in columns]), sink, options)
    return sink.getvalue()


def _spelled(values: Any) -> Any:
    """Floats, as text where one of them is a NaN with a sign or bits of its own, which plain CSV would lose."""
    import numpy as np

    floats = values.to_numpy(zero_copy_only=False)
    width, mantissa = (np.uint32, 22) if floats.dtype == np.float32 else (np.uint64, 51)
    bits = floats.astype(floats.dtype, copy=False).view(width)
    plain = np.array([np.nan], floats.dtype).view(width)[0]
    odd = np.flatnonzero(np.isnan(floats) & (bits != plain) & ~np.asarray(values.is_null()))
    if not len(odd):
        return values
    texts = values.cast(pa.large_string()).to_pylist()
    for place in odd:
        own = int(bits[place]) & ((1 << mantissa) - 1)
        texts[place] = f"{'-' if np.signbit(floats[place]) else ''}nan{f'(0x{own:x})' if own else ''}"
    return pa.array(texts, pa.large_string())


def from_csv(
    blocks: Iterable[bytes | bytearray | memoryview], columns: Sequence[ColumnInfo]
) -> Iterator[pa.RecordBatch]:
    """What ``COPY (SELECT <select_list>) TO STDOUT (FORMAT csv)`` gives, in batches of about ``CSV_BYTES``: for
    rows read on a connection whose transaction matters, where a second session is not wanted."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(bytes(block))
        size += len(block)
        if size >= CSV_BYTES:
            yield from _parsed(b"".join(held), columns)
            held, size = [], 0
    if held:
        yield from _parsed(b"".join(held), columns)


def _parsed(data: bytes, columns: Sequence[ColumnInfo]) -> Iterator[pa.RecordBatch]:
    layout = schema(columns)
    types = {f.name: pa.large_string() if pa.types.is_large_binary(f.type) else f.type for f in layout}
    table = pa_csv.read_csv(
        pa.BufferReader(data),
        read_options=pa_csv.ReadOptions(use_threads=False, column_names=layout.names, block_size=len(data) + 1),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pa_csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t", "true"],
            false_values=["f", "false"],
        ),
    )
    arrays = [_unhex(a) if pa.types.is_large_binary(f.type) else a for a, f in zip(table.columns, layout, strict=True)]
    yield from pa.Table.from_arrays(arrays, schema=layout).to_batches()


def _hex(values: pa.Array) -> pa.Array:
    r"""``\x`` and two digits a byte, as PostgreSQL prints bytea."""
    starts, data = _bounds(values)
    texts = pa.LargeStringArray.from_buffers(
        len(values), pa.py_buffer(2 * (starts - starts[0])), pa.py_buffer(data.hex().encode()), _validity(values)
    )
    return pc.binary_join_element_wise(pa.scalar("\\x", pa.large_string()), texts, pa.scalar("", pa.large_string()))


def _unhex(texts: pa.ChunkedArray) -> pa.Array:
    digits = pc.binary_replace_slice(texts.combine_chunks().cast(pa.large_binary()), 0, 2, b"")
    starts, data = _bounds(digits)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        len(digits),
        [_validity(digits), pa.py_buffer((starts - starts[0]) // 2), pa.py_buffer(bytes.fromhex(data.decode("ascii")))],
    )


def _bounds(values: pa.Array) -> tuple[np.ndarray[Any, np.dtype[np.int64]], bytes]:
    """Where each value begins and ends in the returned bytes (after taking off the first start)."""
    buffers = values.buffers()
    starts = np.frombuffer(buffers[1], np.int64)[values.offset : values.offset + len(values) + 1]
    data = memoryview(buffers[2])[int(starts[0]) : int(starts[-1])] if buffers[2] is not None else b""
    return starts, bytes(data)


def _validity(values: pa.Array) -> pa.Buffer | None:
    return pc.is_valid(values).buffers()[1] if values.null_count else None


def _repeats(field: pa.Field, column: pa.ChunkedArray) -> bool:
    """Whether a dictionary pays, judged by the first rows."""
    if not (pa.types.is_large_string(field.type) or pa.types.is_large_binary(field.type)):
        return False
    head = column.slice(0, SAMPLE_ROWS)
    return len(head) > 0 and pc.count_distinct(head).as_py() <= len(head) * REPEATS_BELOW


def _native(column: ColumnInfo) -> pa.DataType | None:
    """Looked up by the type's name without its length, so ``character varying(20)`` counts."""
    name, bracket, rest = column.type.partition("(")
    return _NATIVE.get(name) if not bracket or rest.endswith(")") else None
