"""The store killed with -9 at each write of a capture, a prune, a rotation and an erasure: done again it converges."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from snapshots.model import RecoveryPoint
from snapshots.points import points, reading
from snapshots.points.errors import KeyMissing
from snapshots.store import rotation
from snapshots.store.store import Store, chunk_path
from tests.crash import crash_ops
from tests.crash.killed_at import Killer, killer, moments
from tests.snapshots import erasure_desk, point_desk
from tests.snapshots.store_desk import KEY, NEW_KEY

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(1800)]

FEW = 5
EVERY = pytest.param(None, marks=pytest.mark.soak, id="every")
MANY = pytest.param(90, marks=pytest.mark.soak, id="many")
"""Of the writes and statements of an erasure, which needs a database of its own for each."""


@pytest.fixture(scope="module")
def process() -> Iterator[Killer]:
    with killer() as made:
        yield made


@pytest.fixture(scope="module")
def app(module_app_db: Any) -> Any:
    point_desk.build(module_app_db)
    return module_app_db


def contents(store: Store, app: str = "desk") -> dict[str, dict[str, list[str]]]:
    """By point and table every row, sorted. Raises what reading raises."""
    return {point.id: tables(store, point) for point in points.listing(store, app).points}


def tables(store: Store, point: RecoveryPoint) -> dict[str, list[str]]:
    return {
        manifest.name: sorted(
            repr(row) for batch in reading.batches(store, manifest, app=point.app) for row in batch.to_pylist()
        )
        for manifest in point.tables
    }


def objects(folder: Path) -> set[str]:
    """Names of everything in the store but the traces of who is at work."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("tmp", "locks")
    }


def whole(store: Store, app: str = "desk") -> bool:
    listing = points.listing(store, app)
    return listing.problems == () and all(points.audit(store, point) == () for point in listing.points)


def again(pristine: Path, work: Path) -> Path:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(pristine, work)
    return work


@pytest.mark.parametrize("most", [FEW, EVERY])
@pytest.mark.parametrize("method", ["full", "journal"])
def test_a_capture_killed_at_each_write(
    app: Any, process: Killer, tmp_path: Path, method: str, most: int | None
) -> None:
    pristine, work = tmp_path / "pristine", tmp_path / "work"
    first, store = point_desk.take(app, pristine)
    known = contents(store)
    point_desk.write(
        app, "UPDATE shop.orders SET total = total + 1 WHERE id < 50", "INSERT INTO shop.log DEFAULT VALUES"
    )
    now = point_desk.take(app, tmp_path / "reference")
    wanted = tables(now[1], now[0])
    given = {"dsn": app.capturer, "folder": str(work), "base": first.id if method != "full" else "", "method": method}
    again(pristine, work)
    total = process.run("capture", 0, store=work, **given)["moments"]
    assert total > 10
    for n in moments(total, most=most):
        again(pristine, work)
        assert process.run("capture", n, store=work, **given)["status"] == -signal.SIGKILL
        store = Store(str(work))
        assert whole(store), n
        found = contents(store)
        assert found[first.id] == known[first.id]
        made = found.keys() - known.keys()
        assert all(found[point] == wanted for point in made)
        crash_ops.capture(**given)  # type: ignore[arg-type]
        assert whole(store)
        found = contents(store)
        assert len(found) == len(known) + len(made) + 1
        assert all(found[point] == wanted for point in found.keys() - known.keys())
        assert [p.name for p in (work / "tmp").iterdir()] == [], "the next capture clears what the dead one left"
        # What the dead one stored without a manifest is found by a prune, and nothing else is.
        needed = {chunk_path(name) for p in points.listing(store, "desk").points for name in points.pieces(p)}
        crash_ops.prune(str(work))
        assert whole(store)
        left = {name for name in objects(work) if name.startswith("chunks/")}
        assert left <= needed


@pytest.mark.parametrize("most", [FEW, EVERY])
def test_a_prune_killed_at_each_write(app: Any, process: Killer, tmp_path: Path, most: int | None) -> None:
    pristine, work = tmp_path / "pristine", tmp_path / "work"
    for n in range(3):
        point_desk.take(app, pristine)
        point_desk.write(app, f"UPDATE shop.orders SET total = {n} WHERE id < 50")
    known = contents(Store(str(pristine)))
    again(pristine, work)
    total = process.run("prune", 0, store=work, folder=str(work))["moments"]
    wanted = objects(work)
    assert len(contents(Store(str(work)))) == 1
    assert total > 4
    for n in moments(total, most=most):
        again(pristine, work)
        assert process.run("prune", n, store=work, folder=str(work))["status"] == -signal.SIGKILL
        store = Store(str(work))
        assert whole(store), "a point without its pieces"
        found = contents(store)
        assert all(found[point] == known[point] for point in found)
        crash_ops.prune(str(work))
        assert objects(work) == wanted
        assert whole(store)


@pytest.mark.parametrize("most", [FEW, EVERY])
@pytest.mark.parametrize("before", ["plain", "sealed"])
def test_a_rotation_killed_at_each_write(
    app: Any, process: Killer, tmp_path: Path, before: str, most: int | None
) -> None:
    """Whoever has both keys reads every point at every moment; afterwards the new key alone is enough."""
    pristine, work = tmp_path / "pristine", tmp_path / "work"
    point_desk.take(app, pristine)
    point_desk.write(app, "UPDATE shop.orders SET total = 3 WHERE id < 50")
    point_desk.take(app, pristine)
    if before == "sealed":
        crash_ops.rotate(str(pristine), [KEY], False)
    keys = [NEW_KEY, KEY] if before == "sealed" else [NEW_KEY]
    known = contents(Store(str(pristine), keys=keys) if before == "sealed" else Store(str(pristine)))
    assert known
    again(pristine, work)
    given = {"folder": str(work), "keys": keys, "everything": True}
    total = process.run("rotate", 0, store=work, **given)["moments"]
    assert total > 10
    for n in moments(total, most=most):
        again(pristine, work)
        # Names are keyed with random keys, so runs differ by a few folders: a late moment may not come.
        assert process.run("rotate", n, store=work, **given)["status"] == -signal.SIGKILL or n > 0.8 * total
        readers = [Store(str(work), keys=keys)]
        if rotation.state(readers[0]) == "plain":
            readers = [Store(str(work))]
        for store in readers:
            assert contents(store) == known, n
        crash_ops.rotate(**given)  # type: ignore[arg-type]
        after = Store(str(work), keys=[NEW_KEY])
        assert contents(after) == known
        assert whole(after)
        assert rotation.state(after) == "encrypted"
        assert not [path for path in work.rglob("*.parquet") if path.read_bytes()[:4] == b"PAR1"], "something is plain"
        with pytest.raises(KeyMissing):
            Store(str(work), keys=[KEY]).sealer()


@pytest.mark.parametrize("most", [FEW, MANY])
def test_an_erasure_killed_at_each_write(app_db: Any, process: Killer, tmp_path: Path, most: int | None) -> None:
    """From the first moment at which anything is different, no reader brings the person back."""
    erasure_desk.build(app_db)
    home, pristine = tmp_path / "home", tmp_path / "pristine"
    store = erasure_desk.store_at(pristine, home)
    first = erasure_desk.take(app_db, store)
    erasure_desk.touch(app_db)
    erasure_desk.take(app_db, store, base=first)
    erasure_desk.write(app_db, *erasure_desk.DELETE)
    work = tmp_path / "work"
    given = {"dsn": app_db.installer, "folder": str(work), "home": str(tmp_path / "other")}
    copy_database(app_db, app_db.name, "erase_template")

    def reset(name: str) -> Path:
        copy_database(app_db, "erase_template", app_db.name)
        again(pristine, work)
        given["home"] = str(tmp_path / name)
        return tmp_path / name

    try:
        counted = reset("counted")
        total = process.run("erase", 0, store=work, database=True, **given)["moments"]
        wanted = contents(erasure_desk.store_at(work, counted))
        assert total > 50
        for n in moments(total, most=most):
            other = reset(f"home-{n}")
            assert process.run("erase", n, store=work, database=True, **given)["status"] == -signal.SIGKILL
            assert whole(erasure_desk.store_at(work, other))
            crash_ops.erase(**given)
            store = erasure_desk.store_at(work, other)
            assert whole(store)
            assert contents(store) == wanted
            assert erasure_desk.plan(app_db, store, erasure_desk.person()).empty
            kept = erasure_desk.everything(app_db, work)
            assert not [trace for trace in (erasure_desk.PERSON, "Ann Marsh") if trace.encode() in kept]
    finally:
        app_db.server.drop_database("erase_template")


def copy_database(app: Any, source: str, target: str) -> None:
    app.server.drop_database(target)
    with psycopg.connect(app.server.superuser_dsn(), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND backend_type = %s",
            (source, "client backend"),
        )
        names = sql.Identifier(target), sql.Identifier(source)
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER installer").format(*names))
