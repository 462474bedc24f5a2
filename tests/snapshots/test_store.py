"""The store: content-addressed, atomic, private, and clear about what is wrong."""

import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snapshots.errors import Refused, Unreachable
from snapshots.points.errors import BadName, Damaged, PointMissing, StoreFull, StoreUnreachable, UnknownFormat
from snapshots.store.store import Store

POINT: dict[str, Any] = {"id": "p1", "tables": [], "note": "é"}


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")


def test_a_chunk_comes_back_by_its_content(store: Store) -> None:
    name = store.put_chunk(b"rows")
    assert store.put_chunk(b"rows") == name
    assert store.read_chunk(name) == b"rows"


def test_adding_again_never_overwrites(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    name = store.put_chunk(b"rows")
    path = tmp_path / "chunks" / name[:2] / f"{name}.parquet"
    before = path.stat()
    store.put_chunk(b"rows")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not list((tmp_path / "tmp").iterdir())


def test_a_point_is_what_was_published_and_stays_so(store: Store) -> None:
    store.publish("desk", "p1", POINT)
    store.publish("desk", "p1", POINT)
    with pytest.raises(Damaged, match="another point"):
        store.publish("desk", "p1", {**POINT, "note": "other"})
    assert store.read_manifest("desk", "p1") == POINT
    assert store.point_ids("desk") == ["p1"]
    assert store.point_ids("unknown") == []


def test_of_two_writers_at_once_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.publish("desk", "p1", POINT)
    monkeypatch.setattr(Path, "exists", lambda _: False)  # the other one appeared after we looked
    with pytest.raises(Damaged, match="another point"):
        store.publish("desk", "p1", {**POINT, "note": "other"})
    assert store.read_manifest("desk", "p1") == POINT


def test_content_reaches_the_disk_before_its_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.put_chunk(b"first")
    order: list[str] = []
    fsync, link = os.fsync, os.link

    def synced(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def linked(source: Path, target: Path) -> None:
        order.append("name")
        link(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    store.put_chunk(b"rows")
    assert order[-3:] == ["file", "name", "folder"]


def test_a_manifest_is_gone_from_the_disk_before_its_pieces_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.publish("desk", "p1", {"tables": [{"chunks": [{"sha256": store.put_chunk(b"rows")}]}]})
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda h: (synced.append(str(Path(f"/proc/self/fd/{h}").readlink())), fsync(h)))
    store.remove_object("points/desk/p1.json")
    assert synced == [str(tmp_path / "points" / "desk")]


def test_everything_is_private(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "store"
    store = Store(str(root))
    store.put_chunk(b"rows")
    store.publish("desk", "p1", POINT)
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    name = store.put_chunk(b"rows")
    path = tmp_path / "chunks" / name[:2] / f"{name}.parquet"
    path.write_bytes(b"rowz")
    with pytest.raises(Damaged, match=name):
        store.read_chunk(name)
    with pytest.raises(Damaged, match=name):
        store.put_chunk(b"rows")
    path.unlink()
    with pytest.raises(Damaged, match=f"{name}.*missing"):
        store.read_chunk(name)


def test_bad_manifests_are_told_apart(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.publish("desk", "p1", POINT)
    path = tmp_path / "points" / "desk" / "p1.json"
    good = json.loads(path.read_text())
    path.write_text(json.dumps({**good, "format": 99}))
    with pytest.raises(UnknownFormat, match=r"p1\.json.*99.*upgrade"):
        store.read_manifest("desk", "p1")
    for text in (path.read_text()[:50], "[]", '{"format": 1}', json.dumps({**good, "point": {**POINT, "id": "p2"}})):
        path.write_text(text)
        with pytest.raises(Damaged, match=r"p1\.json"):
            store.read_manifest("desk", "p1")
    with pytest.raises(PointMissing, match="p9 of desk") as missing:
        store.read_manifest("desk", "p9")
    assert isinstance(missing.value, Refused)


def test_an_unreachable_store_says_so_and_hides_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    store = Store(str(blocker / "store"))
    with pytest.raises(StoreUnreachable, match="file/store") as error:
        store.put_chunk(b"rows")
    assert isinstance(error.value, Unreachable)
    assert not error.value.retryable

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(StoreUnreachable, match="No space left") as error:
            Store(str(tmp_path / "store")).put_chunk(b"rows")
    assert error.value.retryable
    with pytest.raises(BadName):
        Store("nonsense://x")
    with pytest.raises(StoreUnreachable) as error:
        Store("ftp://user:hunter2@127.0.0.1:1/points")
    assert "hunter2" not in str(error.value)


class Full:
    """Writes of a disk on which there is room for so many files."""

    def __init__(self, room: int, cause: int) -> None:
        self.left, self.cause, self.real = room, cause, os.fsync

    def __call__(self, handle: int) -> None:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            self.left -= 1
            if self.left < 0:
                raise OSError(self.cause, os.strerror(self.cause))
        self.real(handle)


@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_store_is_named_and_holds_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: int
) -> None:
    """Room ends at each file in turn: no point appears, what was there stays, and with room again all goes well."""
    for room in range(6):
        root = tmp_path / str(room)
        store = Store(str(root))
        store.publish("desk", "p0", {"tables": [], "n": store.put_chunk(b"before")})
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", Full(room, cause))
            said = ""
            try:
                pieces = [{"sha256": store.put_chunk(b"%d" % n)} for n in range(3)]
                store.publish("desk", "p1", {"tables": [{"chunks": pieces}]})
            except StoreFull as error:
                said = str(error) if error.retryable else ""
        assert bool(re.match(rf"The store {re.escape(str(root))} is full .*not written; make room", said)) is (room < 5)
        assert store.object_names("locks") == []
        assert list((root / "tmp").iterdir()) == []
        assert store.point_ids("desk") == (["p0", "p1"] if room == 5 else ["p0"])
        pieces = [{"sha256": store.put_chunk(b"%d" % n)} for n in range(3)]
        store.publish("desk", "p1", {"tables": [{"chunks": pieces}]})
        assert [store.read_chunk(p["sha256"]) for p in pieces] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 200])
def test_names_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(BadName):
        store.publish(name, "p1", POINT)
    with pytest.raises(BadName):
        store.read_manifest("desk", name)


def test_clean_removes_only_what_dead_writers_left(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put_chunk(b"rows")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host = socket.gethostname()
    orphan = tmp_path / "tmp" / f"{host}-{int(dead.stdout)}-aa"
    old = tmp_path / "tmp" / "elsewhere-1-bb"
    live = tmp_path / "tmp" / f"{host}-{os.getpid()}-cc"
    foreign = tmp_path / "tmp" / "elsewhere-1-dd"
    for path in (orphan, old, live, foreign):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert store.clean() == 2
    assert sorted((tmp_path / "tmp").iterdir()) == sorted([live, foreign])


WRITER = """
import os, signal, sys
from snapshots.store.store import Store
calls, deadly = 0, int(sys.argv[2])
def dying(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == deadly: os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        calls += 1
        if calls == deadly: os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
os.fsync, os.link, os.open, os.mkdir = map(dying, (os.fsync, os.link, os.open, os.mkdir))
store = Store(sys.argv[1])
names = [store.put_chunk(b"new" * 50_000), store.put_chunk(b"old")]
store.publish("desk", "p2", {"chunks": names})
"""


def test_killed_at_any_instant_the_store_stays_whole(tmp_path: Path) -> None:
    """Dies before and after every system call that matters; each time all readable objects are sound."""
    finished = 0
    for deadly in range(1, 60, 5):
        root = tmp_path / str(deadly)
        store = Store(str(root))
        old = store.put_chunk(b"old")
        store.publish("desk", "p1", {"chunks": [old]})
        child = subprocess.run([sys.executable, "-c", WRITER, str(root), str(deadly)], check=False)
        assert child.returncode in (0, -signal.SIGKILL)
        store.clean()
        assert not list((root / "tmp").iterdir())
        ids = store.point_ids("desk")
        assert "p1" in ids
        assert "p2" in ids or child.returncode
        for point_id in ids:
            for name in store.read_manifest("desk", point_id)["chunks"]:
                store.read_chunk(name)
        for path in (root / "chunks").rglob("*.parquet"):
            store.read_chunk(path.stem)
        if child.returncode == 0:
            finished += 1
            break
    assert finished == 1, "the writer was never left alone: raise the range"
