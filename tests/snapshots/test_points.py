"""Points in a store: what is published comes back the same, and the good one is chosen by evidence."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots import points
from snapshots.model import Chunk, ColumnInfo, Position, RecoveryPoint, TableManifest, WorkflowState
from snapshots.point_errors import Damaged
from snapshots.store import Store

PIECE = hashlib.sha256(b"rows").hexdigest()
T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)
POINT = RecoveryPoint(
    id="p0",
    app="desk",
    taken_at=T0,
    position=Position(snapshot="10:20:12,15", system_id="7", timeline=1, at=T0),
    workflows=(
        WorkflowState(
            workflow="intake", platform_id="w1", active=True, version_hash="a" * 64, definition={"nodes": [{"x": [1]}]}
        ),
    ),
    in_flight=("5", "6"),
    tables=(
        TableManifest(
            name="shop.orders",
            columns=(ColumnInfo(name="id", type="integer", not_null=True, generated=False, identity="a"),),
            key=("id",),
            rows=3,
            chunks=(Chunk(sha256=PIECE, rows=3, bytes=4),),
        ),
    ),
    sequences={"shop.orders_id_seq": 9},
    verification={"passed": True, "failed": []},
)


def _publish(store: Store, point_id: str, minutes: int, *, passed: bool | None) -> RecoveryPoint:
    point = replace(
        POINT,
        id=point_id,
        taken_at=T0 + timedelta(minutes=minutes),
        verification=None if passed is None else {"passed": passed},
    )
    store.put_chunk(b"rows")
    points.publish(store, point)
    return point


@given(
    definition=st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5) | st.booleans()),
    sequences=st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1)),
    verified=st.none() | st.booleans(),
)
def test_encoding_is_lossless(definition: dict[str, object], sequences: dict[str, int], verified: bool | None) -> None:
    point = replace(
        POINT,
        workflows=(replace(POINT.workflows[0], definition=definition),),
        sequences=sequences,
        verification=None if verified is None else {"passed": verified},
    )
    again = points.decode(points.encode(point), where="test")
    assert again == point
    assert again.verified is bool(verified)


def test_newest_verified_point_that_the_evidence_admits(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert points.latest_verified(store, "desk") is None
    _publish(store, "p1", 1, passed=True)
    second = _publish(store, "p2", 2, passed=True)
    third = _publish(store, "p3", 3, passed=True)
    _publish(store, "p4", 4, passed=False)
    _publish(store, "p5", 5, passed=None)
    assert points.latest_verified(store, "desk") == third
    assert points.latest_verified(store, "desk", before=third.taken_at) == second
    assert points.latest_verified(store, "desk", admits=lambda p: p.id < "p3") == second
    assert points.latest_verified(store, "desk", admits=lambda _: False) is None
    ranked = points.rank(points.listing(store, "desk").points, now=T0 + timedelta(minutes=10))
    assert [(r.point.id, r.age_s) for r in ranked] == [("p3", 420), ("p2", 480), ("p1", 540), ("p5", 300), ("p4", 360)]


def test_a_damaged_manifest_is_named_and_hides_no_other(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    good = _publish(store, "p1", 1, passed=True)
    _publish(store, "p2", 2, passed=True)
    (tmp_path / "points" / "desk" / "p2.json").write_text("{")
    listing = points.listing(store, "desk")
    assert listing.points == (good,)
    assert "p2.json" in listing.problems[0]
    assert points.latest_verified(store, "desk") == good


def test_a_manifest_of_another_shape_is_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.publish("desk", "p1", {"id": "p1"})
    with pytest.raises(Damaged, match=r"p1\.json.*taken_at"):
        points.load(store, "desk", "p1")


def test_audit_names_what_is_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    name = store.put_chunk(b"rows")
    point = replace(POINT, tables=(replace(POINT.tables[0], chunks=(Chunk(sha256=name, rows=1, bytes=4),)),))
    assert points.audit(store, point) == ()
    (tmp_path / "chunks" / name[:2] / f"{name}.parquet").write_bytes(b"rowz")
    assert "shop.orders" in points.audit(store, point)[0]
    assert name in points.audit(store, point)[0]


def test_ids_sort_by_time_and_differ() -> None:
    ids = [points.new_id(T0 + timedelta(microseconds=n // 2)) for n in range(20)]
    assert len(set(ids)) == 20
    assert [i[:23] for i in ids] == sorted(i[:23] for i in ids)
