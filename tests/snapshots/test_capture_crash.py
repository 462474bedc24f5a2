"""A capture killed with -9 at any instant leaves the store readable and earlier verified points as they were."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from point_desk import build, take, write

from snapshots.errors import Unreachable
from snapshots.points import chunks, points
from snapshots.points.errors import StoreUnreachable
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres

CHILD = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from point_desk import TABLES, WORKFLOWS, Told
from snapshots.capture import capture
from snapshots.points import points
from snapshots.store.store import Store
moment, leaning = sys.argv[4], sys.argv[5]
real_link, real_fsync, real_unlink = os.link, os.fsync, Path.unlink
links = 0

def die(): os.kill(os.getpid(), signal.SIGKILL)

def link(source, target):
    global links
    links += 1
    manifest = str(target).endswith(".json")
    if moment == "before the first chunk" and links == 1: die()
    if moment == "before the manifest" and manifest: die()
    real_link(source, target)
    if moment == "between chunks" and links == 2: die()
    if moment == "after the manifest" and manifest: die()

def fsync(handle):
    path = Path(os.readlink(f"/proc/self/fd/{handle}"))
    if moment == "half a manifest" and path.is_file() and b'"checksum"' in path.read_bytes()[:20]: die()
    real_fsync(handle)

def verify(snapshot):
    if moment == "while suites run": print("verifying", flush=True); time.sleep(60)
    return {"passed": True}

os.link, os.fsync = link, fsync
store = Store(sys.argv[3])
base = points.listing(store, "desk").points[0] if leaning == "leaning" else None
capture.capture(sys.argv[2], TABLES, WORKFLOWS, Told(), store, app="desk", verify=verify, base=base)
"""
MOMENTS = (
    "before the first chunk",
    "between chunks",
    "while suites run",
    "half a manifest",
    "before the manifest",
    "after the manifest",
)


@pytest.fixture
def app(app_db: Any) -> Any:
    build(app_db, journal=False)
    return app_db


def _start(app: Any, folder: Path, moment: str, kind: str = "full") -> "subprocess.Popen[bytes]":
    here = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, here, app.capturer, str(folder), moment, kind], stdout=subprocess.PIPE
    )


def _until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _sessions(app: Any) -> int:
    with psycopg.connect(app.superuser) as conn:
        row = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'capturer'").fetchone()
    return row[0] if row else 0


def test_killed_at_each_moment(app: Any, tmp_path: Path) -> None:
    first, store = take(app, tmp_path)
    # Every moment of a full capture, and those that differ for one that leans on an earlier point.
    for kind, moment in [
        *(("full", m) for m in MOMENTS),
        ("leaning", "between chunks"),
        ("leaning", "after the manifest"),
    ]:
        write(app, "UPDATE shop.orders SET total = total + 1", "UPDATE shop.log SET at = now()")
        known = set(store.point_ids("desk"))
        with _start(app, tmp_path, moment, kind) as child:
            if moment == "while suites run":
                assert child.stdout
                assert child.stdout.readline() == b"verifying\n"
                os.kill(child.pid, signal.SIGKILL)
            assert child.wait(timeout=30) == -signal.SIGKILL, moment
        new = set(Store(str(tmp_path)).point_ids("desk")) - known
        assert len(new) == (moment == "after the manifest"), moment
        listing = points.listing(store, "desk")
        assert listing.problems == (), moment
        assert all(p.verified and points.audit(store, p) == () for p in listing.points), moment
        assert first in listing.points, moment
        _until(lambda: _sessions(app) == 0)  # no snapshot is left to hold vacuum back
    second, _ = take(app, tmp_path)
    assert not list((tmp_path / "tmp").iterdir()), "the next capture clears what the dead ones left"
    assert points.latest_verified(store, "desk") == second


def test_two_captures_in_two_processes(app: Any, tmp_path: Path) -> None:
    with _start(app, tmp_path, "never") as one, _start(app, tmp_path, "never") as other:
        assert (one.wait(timeout=30), other.wait(timeout=30)) == (0, 0)
    store = Store(str(tmp_path))
    listing = points.listing(store, "desk")
    assert len(listing.points) == 2
    assert all(points.audit(store, p) == () for p in listing.points)


@pytest.mark.parametrize("nth", [1, 3, 6, 9])
def test_a_full_store_publishes_nothing(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """At each write of the store; then there is room again."""
    first, store = take(app, tmp_path)
    write(app, "UPDATE shop.orders SET total = total + 1", "UPDATE shop.log SET at = now()")
    real, calls = os.fsync, [0]

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnreachable, match=r"full|free space"):
            take(app, tmp_path)
    assert points.listing(store, "desk").points == (first,)
    assert points.audit(store, first) == ()
    second, _ = take(app, tmp_path)
    assert points.audit(store, second) == ()


def test_a_lost_session_publishes_nothing(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = chunks.encode

    def cut_off(table: Any) -> bytes:
        with psycopg.connect(app.superuser) as conn:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'capturer'")
        return real(table)

    store = Store(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "encode", cut_off)
        with pytest.raises(Unreachable) as caught:
            take(app, tmp_path)
    assert "test-capturer" not in str(caught.value)
    assert store.point_ids("desk") == []
    assert points.audit(store, take(app, tmp_path)[0]) == ()
