"""Stores that earlier versions wrote are read, compared and restored today; a later format is refused by name."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from point_desk import ORDERS, TABLES, build, image, write
from store_desk import KEY

from snapshots import database
from snapshots.journal import segments
from snapshots.model import RecoveryPoint
from snapshots.points import chunks, points, reading
from snapshots.points.errors import UnknownFormat
from snapshots.restore import diff, restore, whole
from snapshots.store.store import Store

KEPT = Path(__file__).parent / "old_store"
NAMES = tuple(t.name for t in TABLES)


@pytest.fixture(params=sorted(p.name for p in KEPT.iterdir() if p.is_dir()))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, dict[str, Any]]:
    folder = tmp_path / request.param
    shutil.copytree(KEPT / request.param, folder)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return Store(str(folder), keys=(KEY,) if "sealed" in folder.name else ()), expected


def _points(store: Store) -> list[RecoveryPoint]:
    listing = points.listing(store, "desk")
    assert listing.problems == ()
    return list(listing.points)


def test_every_format_is_kept() -> None:
    formats = {json.loads(p.read_text())["format"] for p in KEPT.glob("format_[0-9]/points/desk/*.json")}
    assert formats == {1, 2}


def test_all_of_it_is_sound_and_readable(old: tuple[Store, dict[str, Any]]) -> None:
    store, expected = old
    before = {s.path: s.bytes for s in store.walk()}
    found = _points(store)
    assert sorted(p.id for p in found) == sorted(expected)
    for point in found:
        assert point.verified
        assert points.audit(store, point) == ()
        for table in point.tables:
            read = list(reading.batches(store, table, app="desk"))
            assert sum(b.num_rows for b in read) == table.rows == len(expected[point.id][table.name])
            assert all(b.schema.equals(chunks.schema(chunks.stored(table.columns))) for b in read)
        for segment in point.segments:
            assert segments.rows(store, segment).num_rows == segment.rows
    assert {s.path: s.bytes for s in store.walk()} == before, "reading changes nothing"
    if len(found) > 2:
        assert any(t.deltas for p in found for t in p.tables)
        assert any(p.segments for p in found)


def _folded(rows: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without the case of customers: what the server's locale takes for upper case decides a generated column."""
    return {t: [r.casefold() if t == "shop.customers" else r for r in found] for t, found in rows.items()}


@pytest.mark.postgres
def test_each_point_restores_into_an_empty_copy(old: tuple[Store, dict[str, Any]], app_db: Any) -> None:
    store, expected = old
    build(app_db, journal=False)
    for point in _points(store):
        write(app_db, "TRUNCATE shop.orders, shop.customers, shop.log")
        with database.connect(app_db.installer, purpose="test") as conn:
            whole.into_empty(conn, point, store)
        restored = {t: [row[0] for row in rows] for t, rows in image(app_db, *NAMES).items()}
        assert _folded(restored) == _folded(expected[point.id])
        with database.connect(app_db.recoverer, purpose="test") as conn:
            assert all(d.rows == 0 for d in diff.diff(conn, point, store, NAMES))


@pytest.mark.postgres
def test_a_wreck_is_repaired_from_it(old: tuple[Store, dict[str, Any]], app_db: Any) -> None:
    store, expected = old
    build(app_db, journal=True)
    point = _points(store)[0]
    write(app_db, "TRUNCATE shop.orders, shop.customers, shop.log")
    with database.connect(app_db.installer, purpose="test") as conn:
        whole.into_empty(conn, point, store)
    write(app_db, "UPDATE shop.orders SET total = 0 WHERE id % 3 = 0", "DELETE FROM shop.orders WHERE id % 7 = 0")
    with database.connect(app_db.recoverer, purpose="test") as conn:
        (differs,) = diff.diff(conn, point, store, [ORDERS.name])
        assert differs.changed
        assert differs.deleted
        plan = restore.plan(conn, point, store, [ORDERS])
        restore.apply(conn, point, store, [ORDERS], recovery_id="R1", step="restore", plan_hash=plan.hash)
    assert [r[0] for r in image(app_db, ORDERS.name)[ORDERS.name]] == expected[point.id][ORDERS.name]


def test_a_later_format_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(KEPT / "format_2", tmp_path / "later")
    store = Store(str(tmp_path / "later"))
    path = max((tmp_path / "later" / "points" / "desk").iterdir())
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 3}))
    with pytest.raises(UnknownFormat, match=rf"{path.name}.* has format 3; upgrade reinstate"):
        points.load(store, "desk", path.stem)
    listing = points.listing(store, "desk")
    assert len(listing.points) == 2
    assert path.name in listing.problems[0]


def test_fields_of_a_later_version_of_a_known_format_are_passed_over(tmp_path: Path) -> None:
    """A version may add what older ones need not know; whatever changes the meaning changes the format."""
    store = Store(str(tmp_path))
    values = json.loads(next((KEPT / "format_1" / "points" / "desk").iterdir()).read_text())["point"]
    for table in values["tables"]:
        table["added later"] = 1
        for chunk in table["chunks"]:
            chunk["sha256"] = store.put_chunk(b"")
    store.publish("desk", values["id"], {**values, "added later": {"x": 1}})
    assert points.load(store, "desk", values["id"]).verified
    assert hashlib.sha256(b"").hexdigest() in points.pieces(points.load(store, "desk", values["id"]))
