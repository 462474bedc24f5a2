"""Rows to Parquet and back, and to CSV and back: exact, bounded."""

from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.capture import pieces
from snapshots.model import ColumnInfo
from snapshots.points import chunks


def _columns(*types: str) -> tuple[ColumnInfo, ...]:
    return tuple(
        ColumnInfo(name=f"c{i}", type=t, not_null=False, generated=False, identity="") for i, t in enumerate(types)
    )


ROW = st.tuples(
    st.none() | st.integers(-(2**15), 2**15 - 1),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.booleans(),
    st.none() | st.floats(width=32),
    st.none() | st.floats(),
    st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.none() | st.binary(),
    st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
TYPES = _columns("smallint", "bigint", "boolean", "real", "double precision", "character varying(9)", "bytea", "jsonb")


EXTREMES = [
    (-(2**15), 2**63 - 1, True, 3.4028234663852886e38, 5e-324, "", b"", "\\."),
    (None,) * 8,
    (2**15 - 1, -(2**63), False, -0.0, -0.0, "NULL", b"\x00\xff\\", '"'),
    (0, 0, None, float("nan"), float("-inf"), 'a\r\n,"b"\t', b"\\x00", " "),
]


def _bits(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows in which -0 differs from 0 and every NaN is one."""
    return [
        tuple(repr(v) if isinstance(v, float) else v for v in row)
        for row in zip(*(c.to_pylist() for c in table.columns), strict=True)
    ]


@given(st.lists(ROW, max_size=20))
def test_rows_come_back_exactly(rows: list[tuple[Any, ...]]) -> None:
    table = chunks.from_rows(rows, TYPES)
    data = chunks.encode(table)
    assert chunks.encode(table) == data
    assert _bits(chunks.open_(data, TYPES)) == _bits(table)


@given(st.lists(ROW, min_size=1, max_size=20), st.integers(0, 3))
def test_csv_reads_what_csv_wrote(rows: list[tuple[Any, ...]], skip: int) -> None:
    """Also of a slice, whose buffers begin elsewhere."""
    table = chunks.from_rows([*EXTREMES, *rows], TYPES)
    for batch in table.slice(skip).to_batches():
        written = chunks.csv_blocks(batch, TYPES)
        again = list(chunks.from_csv([written], TYPES))
        assert _bits(pa.Table.from_batches(again)) == _bits(pa.Table.from_batches([batch]))


@pytest.mark.postgres
def test_copy_takes_and_gives_exactly_that(app_db: Any) -> None:
    table = chunks.from_rows([*EXTREMES, *EXTREMES], TYPES).slice(1)
    with psycopg.connect(app_db.installer) as conn:
        conn.execute(
            "CREATE TEMP TABLE t (c0 int2, c1 int8, c2 bool, c3 real, c4 float8, c5 varchar, c6 bytea, c7 text)"
        )
        with conn.cursor() as cursor, cursor.copy("COPY t FROM STDIN (FORMAT csv)") as into:
            for batch in table.to_batches():
                into.write(chunks.csv_blocks(batch, TYPES))
        with conn.cursor() as cursor, cursor.copy("COPY t TO STDOUT (FORMAT csv)") as out:
            again = pa.Table.from_batches(list(chunks.from_csv(out, TYPES)))
    assert again.schema.equals(chunks.schema(TYPES))
    assert _bits(again) == _bits(table)


@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["real", "double precision"])
def test_every_bit_of_a_nan_goes_through_copy(app_db: Any, kind: str) -> None:
    wide = kind == "double precision"
    bits = [0x7FF8 << 48, 0xFFF8 << 48, (0x7FF8 << 48) + 291] if wide else [0x7FC00000, 0xFFC00000, 0xFFC00123]
    numbers = np.array(bits, np.uint64 if wide else np.uint32).view(np.float64 if wide else np.float32)
    batch = pa.RecordBatch.from_arrays(
        [pa.concat_arrays([pa.array(numbers), pa.nulls(1, pa.array(numbers).type)])], ["c0"]
    )
    with psycopg.connect(app_db.installer) as conn:
        conn.execute(f"CREATE TEMP TABLE t (n serial, c0 {kind})".encode())
        with conn.cursor() as cursor, cursor.copy("COPY t (c0) FROM STDIN (FORMAT csv)") as into:
            into.write(chunks.csv_blocks(batch, _columns(kind)))
        send = "float8send" if wide else "float4send"
        found = conn.execute(f"SELECT {send}(c0) FROM t ORDER BY n".encode()).fetchall()
    assert [value and int.from_bytes(value, "big") for (value,) in found] == [*bits, None]


def test_only_exact_types_travel_natively() -> None:
    columns = _columns(
        "integer", "numeric(12,2)", "character(3)", "text[]", "timestamp(3) without time zone", '"char"', "oid"
    )
    query = chunks.select_list(columns, "t").as_string(None)
    assert [part.endswith("::text") for part in query.split(", ")] == [False, True, False, True, True, True, True]
    assert chunks.schema(columns).types == [pa.int32(), *[pa.large_string()] * 6]


def test_a_file_that_is_not_the_tables_is_refused() -> None:
    data = chunks.encode(chunks.from_rows([(1,)], _columns("integer")))
    with pytest.raises(ValueError, match="columns"):
        chunks.open_(data, _columns("text"))
    with pytest.raises(ValueError, match="Parquet"):
        chunks.open_(data[:-9], _columns("integer"))


def test_pieces_are_cut_by_rows_and_by_bytes() -> None:
    def sizes(rows: int, width: int) -> list[int]:
        batch = chunks.from_rows([(n, "x" * width) for n in range(rows)], _columns("bigint", "text")).to_batches()[0]
        return [t.num_rows for t in pieces._cut(iter([batch, batch.slice(0, 0), batch, batch]))]

    assert sizes(60_000, 1) == [120_000, 60_000]
    assert sizes(2, 4_000_000) == [4, 2]
