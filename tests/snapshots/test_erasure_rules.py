"""Keyed hashes know a row again whatever way its key is written, and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.erasure import find, rules
from snapshots.model import ColumnInfo
from snapshots.points import chunks

PAIRS = st.lists(
    st.tuples(st.text(max_size=40), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=30, unique=True
)
COLUMNS = ("a", "b")
TYPES = ("text", "bigint")


def hidden(
    table: pa.Table, *values: str, types: tuple[str, ...] = TYPES, columns: tuple[str, ...] = COLUMNS
) -> list[Any]:
    rule = rules.rule(b"s", "app", table="shop.t", columns=columns, types=types, values=values)
    found = rules.Hidden(app="app", rules=(rule,), secret=b"s")(table)
    return list(found.to_pylist())


@given(PAIRS, st.data())
@settings(max_examples=60, deadline=None)
def test_exactly_the_rows_of_the_list_are_hidden(pairs: list[tuple[str, int]], data: st.DataObject) -> None:
    table = pa.table({"a": pa.array([a for a, _ in pairs], pa.large_string()), "b": pa.array([b for _, b in pairs])})
    chosen = data.draw(st.sets(st.sampled_from(pairs)))
    texts = rules.texts(table, COLUMNS, TYPES).to_pylist()
    assert texts == [find.joined((a, str(b))) for a, b in pairs]
    values = [find.joined((a, str(b))) for a, b in chosen]
    cut = data.draw(st.integers(0, len(pairs)))
    whole = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert hidden(whole, *values) == [p in chosen for p in pairs]


def test_two_columns_are_never_taken_for_other_two() -> None:
    columns, types = ("a", "b"), ("text", "text")
    table = pa.table(
        {n: pa.array(v, pa.large_string()) for n, v in (("a", ["x:y", "x", None]), ("b", ["z", "y:z", "z"]))}
    )
    texts = rules.texts(table, columns, types).to_pylist()
    assert len(set(texts)) == 3
    assert hidden(table, texts[0], types=types, columns=columns) == [True, False, False]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("numeric(12,2)", "1.0", "1.00"),
        ("character(4)", "ab", "ab  "),
        ("double precision", 0.0, -0.0),
        ("bytea", b"\x00\xff", b"\x00\xff"),
        ("uuid", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
    ],
)
def test_a_value_is_known_again_in_every_spelling_of_its_type(kind: str, one: Any, other: Any) -> None:
    column = ColumnInfo(name="k", type=kind, not_null=True, generated=False, identity="")
    [known] = rules.texts(chunks.from_rows([(one,)], [column]), ("k",), (kind,)).to_pylist()
    seen = chunks.from_rows([(other,), (None,)], [column])
    assert hidden(seen, known, types=(kind,), columns=("k",)) == [True, False]


def test_secret_app_table_and_column_all_count() -> None:
    table = pa.table({"a": pa.array(["x"], pa.large_string())})
    made = rules.rule(b"s", "app", table="t", columns=("a",), types=("text",), values=["x"])
    for secret, app, name in ((b"s", "app", "u"), (b"s", "other", "t"), (b"z", "app", "t")):
        other = rules.rule(secret, app, table=name, columns=("a",), types=("text",), values=["x"])
        assert other.hashes != made.hashes
        mixed = rules.Hidden(app=app, rules=(replace(other, hashes=made.hashes),), secret=secret)
        assert mixed(table).to_pylist() == [False]


def test_a_column_that_is_not_there_hides_nothing_and_empty_tables_are_fine() -> None:
    assert hidden(pa.table({"c": [1]}), "x", types=("text",), columns=("a",)) == [False]
    assert hidden(pa.table({"a": pa.array([], pa.large_string())}), "x", types=("text",), columns=("a",)) == []
    assert hidden(pa.table({"a": pa.array([None], pa.large_string())}), "", types=("text",), columns=("a",)) == [False]
