"""Which points stay, and that what goes takes nothing with it that another one needs."""

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_desk import KEY, KINDS, Place, place, s3_server

from snapshots.model import Chunk, ColumnInfo, Position, RecoveryPoint, Segment, TableManifest
from snapshots.points import points, proof
from snapshots.points.errors import Damaged, PointMissing, StoreBusy
from snapshots.store import retention
from snapshots.store.store import Store, chunk_path, manifest_path

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
AT = Position(snapshot="10:20:", system_id="7", timeline=1, at=NOW)
BARE = RecoveryPoint(
    id="p0", app="desk", taken_at=NOW, position=AT, workflows=(), in_flight=(), tables=(), sequences={}
)


@dataclass(frozen=True)
class Keeping:
    last: int = 1
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


def _point(point_id: str, at: datetime, *, verified: bool = True) -> RecoveryPoint:
    return replace(BARE, id=point_id, taken_at=at, verification={"passed": verified})


def _hours(count: int, **options: Any) -> list[RecoveryPoint]:
    return [_point(f"h{n:04d}", NOW - timedelta(hours=n), **options) for n in range(count)]


def _ids(chosen: tuple[retention.Choice, ...]) -> list[str]:
    return [c.point.id for c in chosen]


def test_the_newest_of_each_period_stays() -> None:
    kept, dropped = retention.choose(_hours(24 * 40), Keeping(last=2, hourly=3, daily=2, weekly=2, monthly=2), now=NOW)
    why = {c.point.id: c.why for c in kept}
    assert why["h0000"] == (
        "newest verified",
        "last 1",
        "hourly 2026-11-22 12h",
        "daily 2026-11-22",
        "weekly 2026-W47",
        "monthly 2026-11",
    )
    assert why["h0013"] == ("daily 2026-11-21",), "23:00 of the day before"
    assert why[f"h{12 + 24 * 6 + 1:04d}"] == ("weekly 2026-W46",)
    assert why[f"h{12 + 24 * 21 + 1:04d}"] == ("monthly 2026-10",)
    assert len(kept) + len(dropped) == 24 * 40
    assert len(kept) == 6


def test_the_verified_one_stands_for_its_day() -> None:
    day = [_point("good", NOW - timedelta(hours=3)), _point("bad", NOW - timedelta(hours=2), verified=False)]
    kept, dropped = retention.choose([*day, _point("new", NOW + timedelta(hours=-1))], Keeping(daily=1), now=NOW)
    assert (_ids(kept), _ids(dropped)) == (["new"], ["bad", "good"])
    kept, dropped = retention.choose([*day, _point("new", NOW, verified=False)], Keeping(daily=1), now=NOW)
    assert (_ids(kept), _ids(dropped)) == (["new", "good"], ["bad"])
    before = [_point("good", NOW - timedelta(hours=26)), _point("bad", NOW - timedelta(hours=25), verified=False)]
    kept, dropped = retention.choose([*before, _point("new", NOW)], Keeping(daily=2), now=NOW)
    assert (_ids(kept), _ids(dropped)) == (["new", "good"], ["bad"])


_POINTS = st.lists(
    st.tuples(st.integers(-3, 24 * 500), st.booleans(), st.booleans(), st.booleans()),
    max_size=60,
    unique_by=lambda t: t[0],
)
_KEEP = st.builds(
    Keeping,
    last=st.integers(1, 5),
    hourly=st.integers(0, 4),
    daily=st.integers(0, 4),
    weekly=st.integers(0, 4),
    monthly=st.integers(0, 4),
)


@given(rows=_POINTS, keep=_KEEP)
def test_what_choose_promises(rows: list[tuple[int, bool, bool, bool]], keep: Keeping) -> None:
    found = [_point(f"p{h}", NOW - timedelta(hours=h), verified=v) for h, v, _, _ in rows]
    held = {f"p{h}" for h, _, is_held, _ in rows if is_held}
    proven = {f"p{h}" for h, _, _, is_proven in rows if is_proven}
    kept, dropped = retention.choose(found, keep, held=held, proven=proven, now=NOW)
    staying, going = _ids(kept), _ids(dropped)
    assert sorted(staying + going) == sorted(p.id for p in found)
    newest_first = sorted(found, key=lambda p: p.taken_at, reverse=True)
    assert staying == [p.id for p in newest_first if p.id in set(staying)]
    assert held <= set(staying)
    assert all(c.why for c in (*kept, *dropped))
    for good in ([p.id for p in newest_first if p.verified], [p.id for p in newest_first if p.id in proven]):
        assert not good or good[0] in staying
    past = [p for p in newest_first if p.taken_at <= NOW]
    assert {p.id for p in past[: keep.last]} <= set(staying)
    assert {p.id for p in newest_first if p.taken_at > NOW} <= set(staying)
    # It is stable: choosing again among those that stay drops nothing of what the rules keep.
    again, gone = retention.choose([c.point for c in kept], keep, held=held, proven=proven, now=NOW)
    assert (_ids(again), gone) == (staying, ())
    # More is never less.
    more, _ = retention.choose(found, replace(keep, last=keep.last + 1, daily=keep.daily + 1), held=held, now=NOW)
    without, _ = retention.choose(found, keep, held=held, now=NOW)
    assert set(_ids(without)) <= set(_ids(more))


# Pruning


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    with s3_server() as options:
        yield options


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path, s3: dict[str, Any]) -> Place:
    return place(request.param, tmp_path, s3, keys=(KEY,))


def _take(store: Store, point_id: str, hours: int, *contents: bytes, app: str = "desk") -> RecoveryPoint:
    """A point with one piece per content: the first is a chunk, the second a delta, the third a segment."""
    made = [Chunk(sha256=store.put_chunk(c), rows=1, bytes=len(c)) for c in contents]
    column = ColumnInfo(name="id", type="integer", not_null=True, generated=False, identity="")
    table = TableManifest(
        name="t", columns=(column,), key=("id",), rows=1, chunks=tuple(made[:1]), deltas=tuple(made[1:2])
    )
    segments = tuple(Segment(table="t", sha256=c.sha256, rows=1, bytes=c.bytes, since=AT) for c in made[2:])
    point = replace(_point(point_id, NOW - timedelta(hours=hours)), app=app, tables=(table,), segments=segments)
    points.publish(store, point)
    return point


def _prune(store: Store, **options: Any) -> retention.Pruned:
    options = {"dry_run": False, "now": NOW, "grace_s": -3600.0, **options}
    return retention.prune(store, "desk", options.pop("keep", Keeping()), **options)


def test_pieces_go_with_the_last_point_that_needs_them(where: Place) -> None:
    store = where.open()
    _take(store, "p1", 3, b"only one", b"delta one", b"segment one")
    _take(store, "p2", 2, b"shared", b"delta two")
    new = _take(store, "p3", 1, b"shared", b"delta three", b"segment three")
    _take(store, "x1", 9, b"of another app", app="till")
    orphan = store.put_chunk(b"nobody names it")
    shown = _prune(store, dry_run=True)
    assert set(shown.dropped) == {"p1", "p2"}
    assert store.point_ids("desk") == ["p1", "p2", "p3"]
    done = _prune(where.open())
    assert replace(done, dry_run=True) == shown
    assert done.objects == 5
    after = where.open()
    assert (after.point_ids("desk"), after.point_ids("till")) == (["p3"], ["x1"])
    assert points.audit(after, new) == ()
    assert after.missing([orphan]) == {orphan}
    assert len(list(after.walk("chunks"))) == 4
    assert done.bytes > 5 * len(b"delta one")
    nothing = _prune(where.open())
    assert (nothing.objects, nothing.dropped) == (0, {})


def test_young_pieces_stay(where: Place) -> None:
    store = where.open()
    young = store.put_chunk(b"of a capture that has not published yet")
    assert _prune(store, grace_s=retention.GRACE_S).objects == 0
    assert store.missing([young]) == set()


def test_held_proven_and_verified_points_stay(where: Place) -> None:
    store = where.open()
    for n in range(1, 6):
        _take(store, f"p{n}", 10 - n, b"%d" % n)
    newest = replace(_take(store, "p8", 1, b"8"), id="p9", verification={"passed": False}, taken_at=NOW)
    points.publish(store, newest)
    held = retention.hold(store, "desk", "p1", reason="lawsuit", by="ann", now=NOW)
    made = proof.Proof(point="p3", at=NOW, seconds=1.0, server="18.4", rows={"t": 1}, ran=4)
    proof.record(store, "desk", made)
    proof.record(store, "desk", replace(made, point="p4", failed=("ids are unique",)))
    assert retention.holds(where.open(), "desk") == (held,)
    assert proof.proofs(where.open(), "desk")[0] == made
    done = _prune(store)
    assert set(done.kept) == {"p1", "p3", "p8", "p9"}
    assert (done.kept["p1"], done.kept["p3"], done.kept["p8"]) == (("held",), ("newest proven",), ("newest verified",))
    assert [p.point for p in proof.proofs(store, "desk")] == ["p3"], "a proof goes with its point"
    retention.release(store, "desk", "p1")
    assert "p1" in _prune(store).dropped
    for act in (lambda: retention.release(store, "desk", "p1"), lambda: _hold(store, "p1")):
        with pytest.raises(PointMissing, match="p1 of desk"):
            act()


def _hold(store: Store, point_id: str) -> None:
    retention.hold(store, "desk", point_id, reason="x", by="ann", now=NOW)


def test_while_a_manifest_cannot_be_read_no_piece_goes(where: Place) -> None:
    store = where.open()
    _take(store, "p1", 3, b"one")
    _take(store, "x1", 3, b"of a point that cannot be read", app="till")
    _take(store, "p2", 1, b"two")
    store.backend.replace(manifest_path("till", "x1"), b"cut")
    done = _prune(store)
    assert (set(done.dropped), done.objects) == ({"p1"}, 0)
    assert "x1.json" in done.problems[0]
    assert "not known" in done.left
    assert len(list(store.walk("chunks"))) == 3
    store.replace_object("holds/desk/p2.json", b"{")
    with pytest.raises(Damaged, match="hold the point again"):
        _prune(store)


def test_pruning_waits_for_no_capture_and_spoils_none(where: Place) -> None:
    store = where.open()
    _take(store, "p1", 3, b"one")
    with where.open().writing(), pytest.raises(StoreBusy, match="capture"):
        _prune(store)
    # A capture that was not announced leaned on a piece that went: it cannot be published.
    _take(store, "p2", 1, b"two")
    leaning = where.open()
    name = leaning.put_chunk(b"one")
    _prune(where.open())
    column = ColumnInfo(name="id", type="integer", not_null=True, generated=False, identity="")
    table = TableManifest(name="t", columns=(column,), key=(), rows=1, chunks=(Chunk(sha256=name, rows=1, bytes=3),))
    with pytest.raises(Damaged, match="capture again"):
        points.publish(leaning, replace(_point("p3", NOW), tables=(table,)))
    assert store.point_ids("desk") == ["p2"]


def _capture_until(url: str, which: int, stop: Any, made: Any) -> None:
    store = Store(url)
    while not stop.is_set():
        number = made[which]
        try:
            with store.writing():
                names = [store.put_chunk(b"%d of %d" % (n + number % 3 * 4, which)) for n in range(4)]
                point = points.encode(_point(f"p{time.time_ns()}-{which}", datetime.now(UTC)))
                point["tables"] = [{"name": "t", "chunks": [{"sha256": n, "rows": 1, "bytes": 1} for n in names]}]
                store.publish("desk", point["id"], point)
        except StoreBusy:
            continue
        made[which] += 1
        time.sleep(0.02)


def _prune_all_but_the_newest(store: Store) -> int:
    with store.exclusively("pruning"):
        for point_id in store.point_ids("desk")[:-1]:
            store.remove_object(manifest_path("desk", point_id))
        needed, _ = retention.needed_by_all(store)
        wanted = set().union(*needed.values())
        going = [s.path for s in store.walk("chunks") if Path(s.path).stem not in wanted]
        for path in going:
            store.remove_object(path)
        assert store.missing(wanted) == set()
    return len(going)


def test_captures_and_pruning_side_by_side(tmp_path: Path) -> None:
    """Two processes capture the same few contents again and again while a third removes all but the newest point, with
    no grace at all: whatever point is readable is whole."""
    url = str(tmp_path / "store")
    context = multiprocessing.get_context("spawn")
    stop, made = context.Event(), context.Array("i", 2)
    children = [context.Process(target=_capture_until, args=(url, n, stop, made)) for n in range(2)]
    for child in children:
        child.start()
    store, pruned, deadline = Store(url), 0, time.monotonic() + 60
    try:
        while pruned < 20 or min(made) < 10:
            assert time.monotonic() < deadline, (pruned, list(made))
            with contextlib.suppress(StoreBusy):
                pruned += _prune_all_but_the_newest(store)
            time.sleep(0.005)
    finally:
        stop.set()
        for child in children:
            child.join(timeout=20)
    assert [child.exitcode for child in children] == [0, 0]
    needed, problems = retention.needed_by_all(store)
    assert problems == ()
    for names in needed.values():
        assert all(store.read_chunk(n) for n in names)


def test_killed_while_pruning_every_point_left_is_whole(tmp_path: Path) -> None:
    """Power goes before each removal in turn; the next run finishes."""
    for deadly in range(1, 40):
        store = Store(str(tmp_path / str(deadly)))
        for n in range(1, 5):
            _take(store, f"p{n}", 10 - n, b"shared" if n % 2 else b"%d" % n, b"delta %d" % n)
        real, calls = store.backend.remove, 0

        def remove(path: str, real: Any = real, deadly: int = deadly) -> None:
            nonlocal calls
            calls += 1
            if calls >= deadly and not path.startswith("locks"):
                raise MemoryError("power is gone")
            real(path)

        store.backend.remove = remove  # type: ignore[method-assign]
        finished = False
        try:
            _prune(store)
            finished = True
        except MemoryError:
            after = Store(store.name)
            assert all(points.audit(after, p) == () for p in points.listing(after, "desk").points)
            _prune(after)
        left = Store(store.name)
        assert left.point_ids("desk") == ["p4"]
        assert {s.path for s in left.walk("chunks")} == {
            chunk_path(n) for n in points.pieces(points.load(left, "desk", "p4"))
        }
        if finished:
            assert deadly > 8
            return
    pytest.fail("pruning was never left alone: raise the range")
