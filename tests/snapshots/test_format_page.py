"""The page about the format tells the truth: its code, run on kept stores and on a fresh one, reads what we read."""

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from point_desk import TABLES, WORKFLOWS, Told, build, write
from store_desk import KEY

from snapshots.capture import capture
from snapshots.model import RecoveryPoint
from snapshots.points import points, reading
from snapshots.store import encryption
from snapshots.store.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
KEPT = Path(__file__).parent / "old_store"


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def _newest(store: Store) -> RecoveryPoint:
    return points.load(store, "desk", store.point_ids("desk")[-1])


def _orders(store: Store) -> list[dict[str, Any]]:
    manifest = next(t for t in _newest(store).tables if t.name == "shop.orders")
    rows = pa.Table.from_batches(reading.batches(store, manifest)).to_pylist()
    return sorted(rows, key=lambda r: r["id"])


def _run(folder: Path, monkeypatch: pytest.MonkeyPatch, blocks: list[str]) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    known: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), known)  # noqa: S102 - the page's own code is what is tested
    return known


def _agrees(known: dict[str, Any], store: Store) -> None:
    expected = _orders(store)
    frame = known["rows"].sort_values("id")
    assert pa.Table.from_pandas(frame, preserve_index=False).to_pylist() == expected
    columns = ", ".join(f'"{c}"' for c in expected[0])
    assert known["db"].sql(f"SELECT {columns} FROM orders ORDER BY id").fetchall() == [
        tuple(r.values()) for r in expected
    ]


@pytest.mark.parametrize("form", ["format_1", "format_2"])
def test_pandas_and_duckdb_read_a_point(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(KEPT / form, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    if form == "format_2":
        assert any(len(t.deltas) > 1 for t in _newest(store).tables)
    _agrees(_run(tmp_path, monkeypatch, _blocks()[:3]), store)


@pytest.mark.postgres
def test_they_read_a_point_taken_now(app_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(app_db)
    store = Store(str(tmp_path / "store"))
    base = None
    for change in ("", "UPDATE shop.orders SET total = 9 WHERE id % 50 = 0", "DELETE FROM shop.orders WHERE id = 100"):
        if change:
            write(app_db, change)
        base = capture.capture(app_db.capturer, TABLES, WORKFLOWS, Told(), store, app="desk", base=base)  # type: ignore[arg-type]
    assert len(next(t for t in _newest(store).tables if t.name == "shop.orders").deltas) == 2
    _agrees(_run(tmp_path, monkeypatch, _blocks()[:3]), store)


def test_the_envelope_is_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(KEPT / "format_2_sealed", tmp_path / "encrypted-store")
    shutil.copytree(KEPT / "format_2", tmp_path / "store")
    monkeypatch.setenv("KEY", KEY)
    known = _run(tmp_path, monkeypatch, _blocks())
    store = Store(str(tmp_path / "encrypted-store"), keys=[KEY])
    assert points.decode(known["point"], where="the page") == _newest(store)
    opened = list((tmp_path / "opened").rglob("*.parquet"))
    assert len(opened) == len({c.sha256 for t in _newest(store).tables for c in (*t.chunks, *t.deltas)})
    sealer = store.sealer()
    assert sealer is not None
    for path in opened:
        assert path.read_bytes() == store.read_chunk(path.stem)
        assert sealer.name(path.read_bytes()) == path.stem
    assert f"`{encryption.MAGIC.decode().strip()}`" in PAGE.read_text()


def test_the_page_names_every_field_and_every_object() -> None:
    text = PAGE.read_text(encoding="utf-8")
    point = points.encode(_newest(Store(str(KEPT / "format_2"))))
    table = next(t for t in point["tables"] if t["deltas"])
    named = [*point, *table, *table["columns"][0], *table["chunks"][0], *point["segments"][0], *point["position"]]
    missing = [name for name in {*named, *point["workflows"][0]} if f"`{name}`" not in text]
    assert missing == []
    for folder in ("points", "chunks", "proofs", "holds", "erased", "keys", "locks", "tmp"):
        assert f"`{folder}/" in text, folder
