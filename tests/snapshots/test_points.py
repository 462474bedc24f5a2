"""Points in a store: what is published comes back the same, and the good one is chosen by evidence."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.model import Chunk, ColumnInfo, Position, RecoveryPoint, Segment, TableManifest, WorkflowState
from snapshots.points import points
from snapshots.points.errors import Damaged
from snapshots.store.store import Store

PIECE = hashlib.sha256(b"rows").hexdigest()
T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)
POINT = RecoveryPoint(
    id="p0",
    app="desk",
    taken_at=T0,
    position=Position(snapshot="10:20:12,15", system_id="7", timeline=1, at=T0),
    workflows=(
        WorkflowState(
            workflow="intake",
            platform_id="w1",
            active=True,
            version_hash="a" * 64,
            definition={"nodes": [{"x": [1]}]},
            settings_hash="b" * 64,
            entries=({"kind": "schedule", "node": "tick", "method": None, "path": None, "schedule": "0 * * * *"},),
            calls=("w9",),
            credentials=("desk",),
            saved_hash="c" * 64,
            saved={"nodes": []},
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


def test_a_point_from_before_workflows_told_more_is_read_as_it_is() -> None:
    values = points.encode(POINT)
    early = ("workflow", "platform_id", "active", "version_hash", "definition")
    values["workflows"] = [{k: w[k] for k in early} for w in values["workflows"]]
    (state,) = points.decode(values, where="test").workflows
    assert (state.version_hash, state.settings_hash, state.entries, state.saved) == ("a" * 64, "", (), None)


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


def test_the_newest_point_is_found_without_reading_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    for n in range(40):
        _publish(store, f"p{n:02d}", n, passed=n % 3 == 0)
    read: list[str] = []
    real = store.backend.read
    monkeypatch.setattr(store.backend, "read", lambda path: read.append(path) or real(path))  # type: ignore[func-returns-value]
    newest = points.latest_verified(store, "desk")
    assert newest is not None
    assert newest.id == "p39"
    assert read == ["points/desk/p39.json"]


def test_a_point_that_was_pruned_while_listing_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    good = _publish(store, "p1", 1, passed=True)
    monkeypatch.setattr(store, "point_ids", lambda _: ["p0", "p1", "p2"])
    assert points.listing(store, "desk") == points.Listing(points=(good,))
    assert points.latest_verified(store, "desk") == good


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


@pytest.mark.parametrize("kind", ["deltas", "segments"])
def test_audit_covers_deltas_and_segments(tmp_path: Path, kind: str) -> None:
    store = Store(str(tmp_path))
    names = {part: store.put_chunk(part.encode()) for part in ("chunks", "deltas", "segments")}
    made = {part: (Chunk(sha256=name, rows=1, bytes=1),) for part, name in names.items()}
    segment = Segment(table="shop.log", sha256=names["segments"], rows=1, bytes=1, since=POINT.position)
    table = replace(POINT.tables[0], chunks=made["chunks"], deltas=made["deltas"])
    point = replace(POINT, tables=(table,), segments=(segment,))
    assert set(points.pieces(point)) == set(names.values())
    seen: list[int] = []
    known: dict[str, str] = {}
    assert points.audit(store, point, known=known, seen=seen.append) == ()
    assert points.audit(store, point, known=known, seen=seen.append) == (), "what was read is not read again"
    assert sorted(seen) == [6, 6, 8]
    (tmp_path / "chunks" / names[kind][:2] / f"{names[kind]}.parquet").unlink()
    (problem,) = points.audit(store, point)
    assert names[kind] in problem
    assert problem.startswith("shop.log" if kind == "segments" else "shop.orders")


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
