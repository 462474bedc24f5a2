"""What every store promises, wherever it lives and whether it is encrypted: one suite on a folder, on memory, on S3."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_desk import KEY, KINDS, Place, place, s3_server

from snapshots.points.errors import Damaged, PointMissing, StoreBusy, StoreUnreachable
from snapshots.store import backend, lock
from snapshots.store.store import Store, chunk_path

POINT: dict[str, Any] = {"id": "p1", "tables": [], "note": "é"}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    with s3_server() as options:
        yield options


@pytest.fixture(params=[(kind, sealed) for kind in KINDS for sealed in (False, True)], ids=lambda p: f"{p[0]}-{p[1]}")
def where(request: pytest.FixtureRequest, tmp_path: Path, s3: dict[str, Any]) -> Place:
    kind, sealed = request.param
    return place(kind, tmp_path, s3, keys=(KEY,) if sealed else ())


def _naming(*names: str) -> dict[str, Any]:
    return {**POINT, "tables": [{"name": "t", "chunks": [{"sha256": n, "rows": 1, "bytes": 1} for n in names]}]}


def test_a_new_store_is_empty_and_reading_creates_nothing(where: Place) -> None:
    store = where.open()
    assert (store.point_ids("desk"), store.apps(), list(store.walk()), store.clean()) == ([], [], [], 0)
    assert store.read_object("holds/desk/p1.json") is None
    with pytest.raises(PointMissing, match="p1 of desk"):
        store.read_manifest("desk", "p1")
    with pytest.raises(Damaged, match="missing"):
        store.read_chunk("0" * 64)
    assert list(store.walk()) == []


def test_pieces_come_back_and_are_kept_once(where: Place) -> None:
    store, other = where.open(), where.open()
    rows = b"rows" * 1000
    name = store.put_chunk(rows)
    assert other.put_chunk(rows) == name == store.put_chunk(rows)
    assert other.put_chunk(b"") != name
    assert where.open().read_chunk(name) == rows
    assert [s.path for s in store.walk("chunks")].count(chunk_path(name)) == 1
    raw = store.backend.read(chunk_path(name)) or b""
    assert (rows in raw) is not bool(where.keys)


def test_points_are_what_was_published_and_stay_so(where: Place) -> None:
    store = where.open()
    store.publish("desk", "p1", POINT)
    where.open().publish("desk", "p1", POINT)
    with pytest.raises(Damaged, match="another point"):
        where.open().publish("desk", "p1", {**POINT, "note": "other"})
    store.publish("desk", "p2", _naming(store.put_chunk(b"rows")))
    store.publish("till", "p1", POINT)
    later = where.open()
    assert (later.point_ids("desk"), later.apps()) == (["p1", "p2"], ["desk", "till"])
    assert later.read_manifest("desk", "p1") == POINT
    found = dict(later.read_manifests("desk", ["p1", "p9"]))
    assert found["p1"] == POINT
    assert isinstance(found["p9"], PointMissing)
    assert later.backend.names("locks") == []


def test_a_point_whose_pieces_are_not_there_is_not_published(where: Place) -> None:
    store = where.open()
    there = store.put_chunk(b"rows")
    many = [f"{n:064x}" for n in range(30)]
    for gone in (["0" * 64], many):
        with pytest.raises(Damaged, match=f"{len(gone)} objects.*capture again"):
            store.publish("desk", "p1", _naming(there, *gone))
    assert store.point_ids("desk") == []


def test_small_objects_are_replaced_whole_and_removed(where: Place) -> None:
    store = where.open()
    store.replace_object("holds/desk/p1.json", b"one")
    store.replace_object("holds/desk/p1.json", b"two")
    assert where.open().read_object("holds/desk/p1.json") == b"two"
    assert where.open().object_names("holds/desk") == ["p1.json"]
    for _ in range(2):
        store.remove_object("holds/desk/p1.json")
    assert store.read_object("holds/desk/p1.json") is None


def test_a_flipped_bit_a_cut_and_a_swap_are_named_and_refused(where: Place) -> None:
    store = where.open()
    names = [store.put_chunk(b"rows of one"), store.put_chunk(b"rows of two")]
    store.publish("desk", "p1", _naming(*names))
    reads: dict[str, Callable[[Store], Any]] = {
        chunk_path(names[0]): lambda s: s.read_chunk(names[0]),
        "points/desk/p1.json": lambda s: s.read_manifest("desk", "p1"),
    }
    for path, read in reads.items():
        good = store.backend.read(path) or b""
        swapped = store.backend.read(chunk_path(names[1])) or b""
        for place_of_bit in (0, len(good) // 2, len(good) - 1):
            bad = bytearray(good)
            bad[place_of_bit] ^= 1
            for data in (bytes(bad), good[:-1], good[:9], b"", swapped):
                store.backend.replace(path, data)
                reader = where.open()
                with pytest.raises(Damaged, match=path):
                    read(reader)
        store.backend.replace(path, good)
    assert where.open().read_chunk(names[0]) == b"rows of one"


def test_two_writers_at_once(where: Place) -> None:
    """Both bring the same pieces and each its point; whoever is second finds what the first one wrote."""
    start = threading.Barrier(2)
    failed: list[Exception] = []

    def write(point_id: str) -> None:
        try:
            store = where.open()
            start.wait(timeout=10)
            names = [store.put_chunk(b"%d" % n * 100) for n in range(15)]
            store.publish("desk", point_id, _naming(*names))
            store.publish("desk", "same", _naming(*names))
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            failed.append(error)

    writers = [threading.Thread(target=write, args=(f"p{n}",)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    store = where.open()
    assert store.point_ids("desk") == ["p0", "p1", "same"]
    found = [store.read_manifest("desk", i)["tables"] for i in store.point_ids("desk")]
    assert found[0] == found[1] == found[2]
    assert len({store.read_chunk(c["sha256"]) for c in found[0][0]["chunks"]}) == 15


def test_one_alone_keeps_captures_out_and_gives_way_to_them(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.Presence.enter, "__kwdefaults__", {"patience_s": 0.1})
    store, other = where.open(), where.open()
    with store.exclusively("pruning of desk") as alone:
        alone.renew()
        with pytest.raises(StoreBusy, match=r"in use \(pruning of desk on .*process \d+"):
            other.publish("desk", "p1", POINT)
        with pytest.raises(StoreBusy, match="pruning of desk"), other.exclusively("rotation"):
            pass
        store.publish("desk", "p0", POINT)
    with store.writing(), other.writing():
        monkeypatch.setattr(lock.Presence.enter, "__kwdefaults__", {"patience_s": 60.0})
        began = time.monotonic()
        with pytest.raises(StoreBusy, match="capture"), other.exclusively("pruning"):
            pass
        assert time.monotonic() - began < 10, "who wants to be alone gives way at once"
    with store.writing(), pytest.raises(StoreBusy, match="capture"), other.exclusively("pruning"):
        pass
    other.publish("desk", "p1", POINT)
    assert store.object_names("locks") == []


def test_a_capture_that_was_held_up_comes_in_again(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.Presence.enter, "__kwdefaults__", {"patience_s": 0.1})
    store, other = where.open(), where.open()
    with store.writing():
        monkeypatch.setattr(lock, "clock", lambda: time.time() + lock.LEASE_S + 1)
        with other.exclusively("pruning"), pytest.raises(StoreBusy, match="pruning"):
            store.put_chunk(b"rows")
        store.put_chunk(b"rows")
        with pytest.raises(StoreBusy, match="capture"), other.exclusively("pruning"):
            pass
        with other.writing(), store.writing("publishing of a point"):
            pass
        with pytest.raises(StoreBusy, match="capture"), other.exclusively("pruning"):
            pass
    assert store.object_names("locks") == []


def test_one_alone_who_was_held_up_stops(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with where.open().exclusively("pruning") as alone:
        monkeypatch.setattr(lock, "clock", lambda: time.time() + lock.LEASE_S + 1)
        with pytest.raises(StoreBusy, match="held up for too long"):
            alone.renew()


def test_an_address_that_refuses_is_named_without_its_secrets(where: Place, s3: dict[str, Any]) -> None:
    if not where.url.startswith("s3://"):
        return
    store = Store("s3://no-such-bucket/x", options=s3, keys=where.keys)
    with pytest.raises(StoreUnreachable, match=r"s3://no-such-bucket/x") as error:
        store.put_chunk(b"rows")
    assert "hunter2" not in f"{error.value}{store!r}"


class Plain:
    """A filesystem that cannot put on a condition. ``rival`` writes the same object between our look and our put."""

    def __init__(self, filesystem: Any, rival: bytes | None = None) -> None:
        self._real, self._rival = filesystem, rival

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(errno.ENOSYS, "A header you provided implies functionality that is not implemented")
        self._real.pipe_file(path, data)
        if self._rival is not None and "/points/" in path:
            self._real.pipe_file(path, self._rival)


def test_a_server_without_conditions_is_asked_before_and_after(where: Place) -> None:
    store = where.open()
    if not isinstance(store.backend, backend.Remote):
        return
    store.backend._fs = Plain(store.backend._fs)
    name = store.put_chunk(b"rows")
    assert store.put_chunk(b"rows") == name
    store.publish("desk", "p1", POINT)
    with pytest.raises(Damaged, match="another point"):
        store.publish("desk", "p1", {**POINT, "note": "other"})
    store.publish("desk", "p2", {**POINT, "note": "rival"})
    rival = store.backend.read("points/desk/p2.json")
    store.remove_object("points/desk/p2.json")
    store.backend._fs = Plain(store.backend._fs._real, rival)
    with pytest.raises(Damaged, match="another point"):
        store.publish("desk", "p2", {**POINT, "note": "ours"})
    assert where.open().read_manifest("desk", "p2")["note"] == "rival"


class Flaky:
    """Lets every second call of the filesystem fail as a busy server would."""

    def __init__(self, filesystem: Any, lost: bool) -> None:
        self._real, self._calls, self._lost = filesystem, 0, lost

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in {"pipe_file", "cat_file", "cat", "ls", "find", "exists", "size", "rm_file"}:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            if self._calls % 2:
                if self._lost and name == "pipe_file":
                    real(*args, **kwargs)  # it was done; only the answer is lost
                raise ConnectionResetError("the server hung up")
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("lost", [False, True])
def test_what_may_heal_is_tried_again(where: Place, lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if where.url.startswith("/"):
        return
    monkeypatch.setattr(backend, "FIRST_WAIT_S", 0.001)
    store = where.open()
    assert isinstance(store.backend, backend.Remote)
    store.backend._fs = Flaky(store.backend._fs, lost)
    name = store.put_chunk(b"rows")
    store.publish("desk", "p1", _naming(name))
    assert store.read_manifest("desk", "p1") == _naming(name)
    assert (store.read_chunk(name), store.point_ids("desk")) == (b"rows", ["p1"])
    assert dict(store.read_manifests("desk", ["p1"])) == {"p1": _naming(name)}
    store.backend._fs = Flaky(store.backend._fs._real, lost)
    monkeypatch.setattr(backend, "ATTEMPTS", 1)
    with pytest.raises(StoreUnreachable, match="ConnectionResetError") as error:
        store.point_ids("desk")
    assert error.value.retryable
