"""Rows to Parquet and back: exact, bounded, and stable under small changes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots import chunks
from snapshots.model import ColumnInfo


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


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and a == b


@given(st.lists(ROW, max_size=20))
def test_rows_come_back_exactly(rows: list[tuple[Any, ...]]) -> None:
    data = chunks.encode(chunks.from_rows(rows, TYPES))
    again = list(chunks.decode(data, TYPES))
    assert len(again) == len(rows)
    assert all(_same(a, b) for x, y in zip(rows, again, strict=True) for a, b in zip(x, y, strict=True))
    assert chunks.encode(chunks.from_rows(rows, TYPES)) == data


def test_only_exact_types_travel_natively() -> None:
    names = chunks.copy_types(
        _columns(
            "integer", "numeric(12,2)", "character(3)", "text[]", "timestamp(3) without time zone", '"char"', "oid"
        )
    )
    assert names == ["int4", "text", "bpchar", "text", "text", "text", "text"]


def test_chunks_are_bounded_and_a_new_row_changes_few() -> None:
    rows = [(n, f"row {n}") for n in range(200_000)]
    cut = list(chunks.split(rows, [0]))
    assert [row for chunk in cut for row in chunk] == rows
    assert max(map(len, cut)) <= chunks.MAX_ROWS
    assert min(map(len, cut[:-1])) >= chunks.MIN_ROWS
    again = list(chunks.split([(-1, "new"), *rows], [0]))
    unchanged = {repr(c) for c in cut} & {repr(c) for c in again}
    assert len(unchanged) >= len(cut) - 3


def test_wide_rows_end_a_chunk_early() -> None:
    rows = [(n, "x" * 8_000_000) for n in range(9)]
    assert [len(c) for c in chunks.split(rows, [0])] == [5, 4]


def test_a_file_that_is_not_the_tables_is_refused() -> None:
    data = chunks.encode(chunks.from_rows([(1,)], _columns("integer")))
    with pytest.raises(ValueError, match="columns"):
        list(chunks.decode(data, _columns("text")))
    with pytest.raises(ValueError, match="Parquet"):
        list(chunks.decode(data[:-9], _columns("integer")))
