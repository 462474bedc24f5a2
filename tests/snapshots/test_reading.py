"""The rows of a point: chunks with deltas over them, projected, limited to keys, and exact whatever the key's type."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.model import Chunk, ColumnInfo, TableManifest
from snapshots.points import chunks, reading
from snapshots.points.errors import Damaged, ShapeChanged
from snapshots.store.store import Store

Row = dict[str, Any]


def _columns(**types: str) -> tuple[ColumnInfo, ...]:
    return tuple(ColumnInfo(name=n, type=t, not_null=False, generated=False, identity="") for n, t in types.items())


def _put(store: Store, table: pa.Table) -> Chunk:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return Chunk(sha256=store.put_chunk(sink.getvalue()), rows=table.num_rows, bytes=len(sink.getvalue()))


def _delta(columns: Sequence[ColumnInfo], rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=pa.schema([("rj_gone", pa.bool_()), *chunks.schema(columns)]))


def _manifest(
    store: Store,
    columns: tuple[ColumnInfo, ...],
    key: tuple[str, ...],
    base: Sequence[Sequence[Row]],
    deltas: Sequence[Sequence[Row]] = (),
) -> TableManifest:
    return TableManifest(
        name="shop.t",
        columns=columns,
        key=key,
        rows=0,
        chunks=tuple(_put(store, pa.Table.from_pylist(list(r), schema=chunks.schema(columns))) for r in base),
        deltas=tuple(_put(store, _delta(columns, rows)) for rows in deltas),
    )


def _rows(store: Store, manifest: TableManifest, **options: Any) -> list[Row]:
    return [row for batch in reading.batches(store, manifest, **options) for row in batch.to_pylist()]


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=repr)


GONE, HERE = {"rj_gone": True}, {"rj_gone": False}
TWO = _columns(a="integer", b="text", v="text")


def test_later_deltas_win_over_earlier_ones_and_over_chunks(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    columns = _columns(id="bigint", v="text")
    manifest = _manifest(
        store,
        columns,
        ("id",),
        [[{"id": 1, "v": "a"}, {"id": 2, "v": "b"}], [{"id": 3, "v": None}, {"id": 4, "v": "d"}]],
        [
            [HERE | {"id": 1, "v": "A"}, GONE | {"id": 2}, GONE | {"id": 3}],
            [HERE | {"id": 3, "v": "back"}, GONE | {"id": 1}, HERE | {"id": 9, "v": "new"}],
            [HERE | {"id": 9, "v": "newer"}],
        ],
    )
    assert _rows(store, manifest) == [{"id": 4, "v": "d"}, {"id": 3, "v": "back"}, {"id": 9, "v": "newer"}]
    assert _rows(store, manifest, columns=["v"]) == [{"v": "d"}, {"v": "back"}, {"v": "newer"}]
    assert _rows(store, manifest, keys=pa.table({"id": [1, 9, 4]})) == [{"id": 4, "v": "d"}, {"id": 9, "v": "newer"}]
    schemas = {str(b.schema) for b in reading.batches(store, manifest, columns=["v", "id"])}
    assert schemas == {str(pa.schema([("v", pa.large_string()), ("id", pa.int64())]))}


def test_keys_of_several_columns_are_not_mixed_up(tmp_path: Path) -> None:
    """Joined without their lengths, ("1:1", "x") and ("1", "1:x") would be one key."""
    store = Store(str(tmp_path))
    columns = _columns(a="text", b="text", n="integer")
    base = [{"a": "1:1", "b": "x", "n": 1}, {"a": "1", "b": "1:x", "n": 2}, {"a": "", "b": "", "n": 3}]
    manifest = _manifest(store, columns, ("a", "b"), [base], [[GONE | {"a": "1:1", "b": "x"}]])
    assert [r["n"] for r in _rows(store, manifest, columns=["n"])] == [2, 3]
    keys = pa.table({"a": ["", "1:1"], "b": ["", "x"]})
    assert [r["n"] for r in _rows(store, manifest, keys=keys, columns=["n"])] == [3]


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("numeric", "1.0", "1.00"),
        ("numeric", "100", "100.000"),
        ("numeric", "-0.50", "-0.5"),
        ("double precision", 0.0, -0.0),
        ("double precision", float("nan"), float("nan")),
        ("character(4)", "a   ", "a"),
        ("bytea", b"\x00\xff", b"\x00\xff"),
        ("boolean", True, True),
        ("uuid", "0" * 8, "0" * 8),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_a_key_is_itself_in_all_its_forms(tmp_path: Path, kind: str, old: Any, new: Any, several: bool) -> None:
    store = Store(str(tmp_path))
    columns = _columns(k=kind, l="integer", v="text")
    key = ("k", "l") if several else ("k",)
    manifest = _manifest(
        store, columns, key, [[{"k": old, "l": 1, "v": "old"}]], [[HERE | {"k": new, "l": 1, "v": "new"}]]
    )
    assert [r["v"] for r in _rows(store, manifest)] == ["new"]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [("numeric", "10", "1"), ("numeric", "1.01", "1.1"), ("text", "1.0", "1.00"), ("text", "a ", "a")],
)
def test_different_keys_stay_apart(tmp_path: Path, kind: str, one: str, other: str) -> None:
    store = Store(str(tmp_path))
    manifest = _manifest(store, _columns(k=kind), ("k",), [[{"k": one}]], [[GONE | {"k": other}]])
    assert _rows(store, manifest) == [{"k": one}]


def test_which_keys_can_be_compared() -> None:
    columns = _columns(id="bigint", amount="numeric(12,2)", day="interval", tags="text[]", doc="jsonb")
    assert reading.comparable(columns, ("id",))
    assert reading.comparable(columns, ("id", "amount"))
    assert not any(reading.comparable(columns, key) for key in ((), ("day",), ("id", "tags"), ("doc",)))


_KEY = st.tuples(st.integers(0, 4), st.sampled_from(["", "a", ":", "1:", "é"]))


@settings(max_examples=60, deadline=None)
@given(
    base=st.dictionaries(_KEY, st.text(max_size=3)),
    deltas=st.lists(st.dictionaries(_KEY, st.none() | st.text(max_size=3)), max_size=4),
    asked=st.none() | st.lists(_KEY, max_size=5),
    pieces=st.integers(1, 3),
    group=st.sampled_from([1, 3, 200_000]),
)
def test_equals_a_plain_dictionary(base: Any, deltas: Any, asked: Any, pieces: int, group: int) -> None:
    store = Store("memory://reading")
    rows = [{"a": a, "b": b, "v": v} for (a, b), v in base.items()]
    manifest = _manifest(
        store,
        TWO,
        ("a", "b"),
        [rows[i::pieces] for i in range(pieces)],
        [[{"rj_gone": v is None, "a": a, "b": b, "v": v} for (a, b), v in delta.items()] for delta in deltas],
    )
    expected = dict(base)
    for delta in deltas:
        expected.update(delta)
    wanted = {k: v for k, v in expected.items() if v is not None and (asked is None or k in asked)}
    keys = (
        None
        if asked is None
        else pa.table(
            {"a": pa.array([k[0] for k in asked], pa.int64()), "b": pa.array([k[1] for k in asked], pa.string())}
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "GROUP_ROWS", group)
        found = _rows(store, manifest, keys=keys)
    assert _sorted(found) == _sorted([{"a": a, "b": b, "v": v} for (a, b), v in wanted.items()])


def test_only_asked_columns_are_read_and_unknown_ones_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest = _manifest(store, TWO, (), [[{"a": 1, "b": "x", "v": "y"}]])
    assert _rows(store, manifest, columns=["v"]) == [{"v": "y"}]
    with pytest.raises(ShapeChanged, match=r"no column w of shop\.t"):
        _rows(store, manifest, columns=["w"])
    with pytest.raises(ShapeChanged, match="no key"):
        _rows(store, manifest, keys=pa.table({"a": [1]}))


def test_what_is_not_what_the_manifest_says_is_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    chunk = _put(store, pa.table({"a": [1]}))
    wrong = (chunk, Chunk(sha256=store.put_chunk(b"no parquet"), rows=1, bytes=1))
    short = _put(store, pa.Table.from_pylist([{"a": 1}], schema=chunks.schema(_columns(a="integer"))))
    for bad in (*wrong, Chunk(sha256=short.sha256, rows=2, bytes=short.bytes)):
        manifest = TableManifest(name="shop.t", columns=_columns(a="integer"), key=(), rows=1, chunks=(bad,))
        with pytest.raises(Damaged, match=bad.sha256):
            _rows(store, manifest)


def test_hidden_rows_are_left_out_of_chunks_and_deltas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Person:
        columns = ("b",)

        def __call__(self, table: pa.Table) -> Any:
            return pa.compute.equal(table.column("b"), "gone")

        def settled(self, table: pa.Table) -> pa.Table:
            return table

    monkeypatch.setattr(reading, "_hides", lambda *named: Person() if named[1] else None)
    store = Store(str(tmp_path))
    base = [{"a": n, "b": b, "v": "x"} for n, b in enumerate(["gone", "stays", None])]
    manifest = _manifest(store, TWO, ("a",), [base], [[HERE | {"a": 5, "b": "gone"}, HERE | {"a": 6, "b": "stays"}]])
    assert [r["a"] for r in _rows(store, manifest, app="desk", columns=["a"])] == [1, 2, 6]
    assert len(_rows(store, manifest)) == 5
