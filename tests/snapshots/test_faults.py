"""Faults while something is written, and mistakes of our own planner: nothing is lost, nothing is damaged."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from point_desk import CUSTOMERS, ORDERS, TABLES, build, image, take, write
from psycopg import sql

from snapshots import database
from snapshots.errors import Refused, SnapshotError
from snapshots.journal import journal
from snapshots.model import Policy, RecoveryPoint, RunRef, UndoSpec
from snapshots.points import points
from snapshots.points.errors import Busy, CapPassed, Damaged, WouldBreak
from snapshots.restore import restore
from snapshots.store.store import Store
from snapshots.undo import plan, undo
from snapshots.undo.errors import UndoBusy, UndoRefused

pytestmark = pytest.mark.postgres

BAD = "wf_bad"
SPECS = (CUSTOMERS, replace(ORDERS, additive=("total",)))
NAMES = [spec.name for spec in SPECS]
FEW, WIDE = 4, restore.Caps(max_deleted_share=1.0)
MANY = pytest.param(24, marks=pytest.mark.soak, id="many")


@pytest.fixture
def app(app_db: Any) -> Any:
    app_db.role(BAD)
    app_db.role("wf_good")
    build(app_db)
    write(
        app_db,
        "GRANT USAGE ON SCHEMA shop TO wf_bad, wf_good",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO wf_bad, wf_good",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO wf_bad, wf_good",
    )
    return app_db


def wreck(app: Any, run: str = "bad") -> dict[str, list[Any]]:
    """Nine of ten customers changed, orders changed, deleted and made; returns what the tables are then."""
    with psycopg.connect(app.dsn(BAD)) as conn:
        conn.execute("SELECT set_config('reinstate.run', %s, true)", (run,))
        conn.execute("UPDATE shop.customers SET email = 'x' || email WHERE id <= 18")
        conn.execute("UPDATE shop.orders SET total = total + 1 WHERE id % 3 = 0")
        conn.execute("DELETE FROM shop.orders WHERE id % 7 = 1")
        conn.execute("INSERT INTO shop.orders (customer_id, total) SELECT n, 9 FROM generate_series(1, 5) n")
    return image(app, *NAMES)


def spec_of(run: str = "bad", **changes: Any) -> UndoSpec:
    base = UndoSpec(tables=SPECS, runs=(RunRef(actor=BAD, run=run),), policy=Policy.KEEP_LATER, max_deleted_share=1.0)
    return replace(base, **changes)


def do_undo(app: Any, run: str = "bad", *, wait_s: float = 5, **changes: Any) -> None:
    with database.connect(app.recoverer, purpose="test") as conn:
        spec = spec_of(run, **changes)
        planned = undo.preview(conn, spec)
        undo.apply(
            conn,
            spec,
            recovery_id=f"undo {run}",
            step="1",
            plan_hash="h",
            expected=planned.counts,
            lock_timeout_s=wait_s,
        )


def do_restore(app: Any, point: RecoveryPoint, store: Store, *, source: Any, name: str = "r", **options: Any) -> None:
    with database.connect(app.recoverer, purpose="test", lock_timeout_s=options.pop("lock_timeout_s", 5)) as conn:
        restore.apply(
            conn,
            point,
            store,
            options.pop("specs", SPECS),
            recovery_id=name,
            step="1",
            plan_hash="h",
            source=source,
            **{"caps": WIDE, **options},
        )


class Breaker:
    """Ends the recoverer's session from outside just before the n-th exchange with the database; 0 only counts."""

    def __init__(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = self.seen = 0
        real = psycopg.Connection.wait

        def wait(conn: Any, *args: Any, **kwargs: Any) -> Any:
            if conn.info.user == "recoverer" and conn.info.dbname == app.name:
                self.seen += 1
                if self.seen == self.at:
                    with psycopg.connect(app.superuser, autocommit=True) as admin:
                        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))
            return real(conn, *args, **kwargs)

        monkeypatch.setattr(psycopg.Connection, "wait", wait)

    def run(self, at: int, do: Callable[[], None]) -> bool:
        """Whether it was broken off; an error that is not of this room's kinds is a failure."""
        self.at, self.seen = at, 0
        try:
            do()
        except SnapshotError:
            return True
        finally:
            self.at = 0
        return False


def moments(total: int, most: int) -> list[int]:
    return sorted({*range(3, total - 6, max(1, total // most)), *range(total - 6, total + 1)})


@pytest.mark.parametrize("most", [FEW, MANY])
@pytest.mark.parametrize("what", ["undo", "journal", "scan"])
def test_a_connection_dropped_at_each_statement(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, most: int
) -> None:
    """The step happened as a whole or not at all; the error is one of ours, and trying again ends well."""
    point, store = take(app, tmp_path)
    before = image(app, *NAMES)
    breaker = Breaker(app, monkeypatch)

    def step(name: str) -> Callable[[], None]:
        if what == "undo":
            return lambda: do_undo(app, name)
        return lambda: do_restore(app, point, store, source=what, name=name)

    wreck(app, "count")
    assert not breaker.run(0, step("count"))
    total = breaker.seen
    assert image(app, *NAMES) == before
    broken = 0
    for n in moments(total, most):
        name = f"bad-{n}"
        wrecked = wreck(app, name)
        broken += breaker.run(n, step(name))
        assert image(app, *NAMES) in (wrecked, before), f"half a step, broken off at {n} of {total}"
        step(name)()
        assert image(app, *NAMES) == before
    assert broken > 3
    with database.connect(app.recoverer, purpose="test") as conn:
        journal.tick(conn)
        assert journal.gaps(conn) == []


def test_a_lock_that_is_not_free_changes_nothing(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    before = image(app, *NAMES)
    wrecked = wreck(app)
    with psycopg.connect(app.dsn("wf_good")) as writer:
        writer.execute("UPDATE shop.orders SET note = '1' WHERE id = 2")
        holder = rf"held by process {writer.info.backend_pid} of \w*wf_good on shop.orders"
        for source in ("journal", "scan"):
            with pytest.raises(Busy, match=holder):
                do_restore(app, point, store, source=source, lock_timeout_s=0.1)
        with pytest.raises(UndoBusy, match=holder):
            do_undo(app, wait_s=0.1)
        writer.rollback()
    assert image(app, *NAMES) == wrecked
    do_undo(app)
    assert image(app, *NAMES) == before


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from point_desk import TABLES, WORKFLOWS, Told
from snapshots.capture import capture
from snapshots.points.errors import StoreUnreachable
from snapshots.store.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    capture.capture(sys.argv[2], TABLES, WORKFLOWS, Told(), Store(sys.argv[3]), app="desk")
except StoreUnreachable as error:
    print(error)
    sys.exit(3)
"""


def test_a_store_without_room(app: Any, tmp_path: Path) -> None:
    """The operating system refuses to write on: no point, nothing half-written by name, earlier points are whole."""
    first, store = take(app, tmp_path)
    write(app, "UPDATE shop.orders SET note = to_jsonb(repeat(md5(id::text), 300))")
    biggest = max(path.stat().st_size for path in (tmp_path / "chunks").rglob("*.parquet"))
    said = subprocess.run(
        [sys.executable, "-c", FULL, str(Path(__file__).parent), app.capturer, str(tmp_path), str(biggest + 100)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert said.returncode == 3, said.stderr
    assert "File too large" in said.stdout
    listing = points.listing(store, "desk")
    assert [p.id for p in listing.points] == [first.id]
    assert listing.problems == ()
    assert points.audit(store, first) == ()
    second, _ = take(app, tmp_path)
    assert points.audit(store, second) == ()
    assert not list((tmp_path / "tmp").iterdir())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_flipped_bit_anywhere_is_named_and_refused(app: Any, tmp_path: Path) -> None:
    """One bit in the middle of each object of an incremental point: no restore believes it, and no row changes."""
    from snapshots.capture import capture

    base, store = take(app, tmp_path)
    write(app, "UPDATE shop.orders SET total = total * 2 WHERE id < 20")
    from point_desk import WORKFLOWS, Told

    point = capture.capture(app.capturer, TABLES, WORKFLOWS, Told(), store, app="desk", base=base, method="journal")
    wrecked = wreck(app)
    paths = [tmp_path / "points" / "desk" / f"{point.id}.json"]
    paths += [tmp_path / "chunks" / name[:2] / f"{name}.parquet" for name in sorted(points.pieces(point))]
    needed = {c.sha256 for t in point.tables for c in (*t.chunks, *t.deltas) if t.name in NAMES}
    for path in paths:
        sound = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(sound[: len(sound) // 2] + bytes([sound[len(sound) // 2] ^ 16]) + sound[len(sound) // 2 + 1 :])
        fresh = Store(str(tmp_path))
        try:
            if path.suffix == ".json" or path.stem in needed:
                with pytest.raises(Damaged, match=path.name):
                    do_restore(app, points.load(fresh, "desk", point.id), fresh, source="scan")
            else:
                assert any(path.stem in problem for problem in points.audit(fresh, point))
        finally:
            path.write_bytes(sound)
        assert image(app, *NAMES) == wrecked
    assert len(paths) > len(needed)
    do_restore(app, point, Store(str(tmp_path)), source="scan")


class Writers:
    """Sessions of a good workflow that write single rows without a pause; ``done`` holds what they committed, in
    order, with the moments before and after."""

    def __init__(self, app: Any, count: int) -> None:
        self.dsn = app.dsn("wf_good")
        self.stop = threading.Event()
        self.done: list[list[tuple[int, float, float]]] = [[] for _ in range(count)]
        self.failed: list[BaseException] = []
        self.threads = [threading.Thread(target=self._write, args=(n,)) for n in range(count)]

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        while not all(len(done) > 2 for done in self.done) and not self.failed:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.1)
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert self.failed == []

    def _write(self, number: int) -> None:
        try:
            with psycopg.connect(self.dsn, autocommit=True) as conn:
                step = 0
                while not self.stop.is_set():
                    step += 1
                    ident = 1_000_000 * (number + 1) + step
                    began = time.monotonic()
                    with conn.transaction():
                        conn.execute("UPDATE shop.orders SET total = total + 0.01 WHERE id = %s", (3 + 9 * number,))
                        conn.execute("INSERT INTO shop.orders (id, customer_id, total) VALUES (%s, %s, 1)", (ident, 19))
                    self.done[number].append((ident, began, time.monotonic()))
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failed.append(error)


def ids(app: Any) -> set[int]:
    with psycopg.connect(app.installer) as conn:
        return {row[0] for row in conn.execute("SELECT id FROM shop.orders WHERE id > 1000000")}


def totals(app: Any) -> dict[int, Any]:
    with psycopg.connect(app.installer) as conn:
        return dict(conn.execute("SELECT id, total FROM shop.orders WHERE id < 1000000").fetchall())


def test_writers_during_an_undo_lose_nothing(app: Any) -> None:
    """Every legitimate row and every legitimate addition is there afterwards, and nothing else."""
    from decimal import Decimal

    before = totals(app)
    wreck(app)
    with Writers(app, 3) as writers:
        do_undo(app, drift_rows=100_000)
    assert ids(app) == {ident for done in writers.done for ident, _, _ in done}
    wanted = dict(before)
    for number, done in enumerate(writers.done):
        wanted[3 + 9 * number] += Decimal("0.01") * len(done)
    assert totals(app) == wanted


@pytest.mark.parametrize("source", ["journal", "scan"])
def test_writers_during_a_restore(app: Any, tmp_path: Path, source: str) -> None:
    """What a writer committed before the restore's lock is taken back as a whole, what it committed after stands: of
    each writer a first part is gone and the rest is there."""
    point, store = take(app, tmp_path)
    wreck(app)
    with Writers(app, 3) as writers:
        began = time.monotonic()
        do_restore(app, point, store, source=source, caps=WIDE)
        ended = time.monotonic()
    there = ids(app)
    for done in writers.done:
        stands = [ident in there for ident, _, _ in done]
        assert stands == sorted(stands), "a later transaction is gone and an earlier one stands"
        assert not any(ident in there for ident, _, committed in done if committed < began)
        assert all(ident in there for ident, started, _ in done if started > ended)
    with database.connect(app.recoverer, purpose="test") as conn:
        assert journal.gaps(conn) == []


def doomed(conn: Any, table: sql.Identifier, *columns: str) -> None:
    """The mistake: every row that shall be updated is to be deleted."""
    sets = sql.SQL(", ").join(sql.SQL("{} = 'D'").format(sql.Identifier(c)) for c in columns)
    conn.execute(sql.SQL("UPDATE {} SET {} WHERE rj_do = 'U'").format(table, sets))


@pytest.mark.parametrize("foreign_key", [True, False])
@pytest.mark.parametrize("source", ["journal", "scan"])
def test_a_restore_planned_wrongly_is_survived(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, foreign_key: bool
) -> None:
    """A plan that deletes 90% of a table: the cap alone stops it, so do the checks in the transaction alone."""
    point, store = take(app, tmp_path)
    if not foreign_key:
        write(app, "ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_id_fkey")
    wrecked = wreck(app)
    real = restore.computed

    def wrongly(conn: Any, made: Any, *args: Any, **kwargs: Any) -> Any:
        found = real(conn, made, *args, **kwargs)
        doomed(conn, next(f for f in made if f.name == "shop.customers").temp("want"), "rj_do")
        return found

    monkeypatch.setattr(restore, "computed", wrongly)
    with pytest.raises(CapPassed, match="delete 18 of 20 rows"):
        do_restore(app, point, store, source=source, caps=restore.Caps())
    assert image(app, *NAMES) == wrecked
    with pytest.raises(WouldBreak):
        do_restore(app, point, store, source=source, caps=WIDE)
    assert image(app, *NAMES) == wrecked
    monkeypatch.undo()
    do_restore(app, point, store, source=source)


@pytest.mark.parametrize("foreign_key", [True, False])
def test_an_undo_planned_wrongly_is_survived(app: Any, monkeypatch: pytest.MonkeyPatch, foreign_key: bool) -> None:
    """The same for an undo: by its cap, by its own look at references, and by the checks after the writes."""
    before = image(app, *NAMES)
    if not foreign_key:
        write(app, "ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_id_fkey")
    wrecked = wreck(app)
    real = plan._analyze

    def wrongly(conn: Any, shape: Any) -> Any:
        if shape.name == "shop.customers":
            doomed(conn, shape.temp("fin"), "rj_do", "rj_want")
        return real(conn, shape)

    monkeypatch.setattr(plan, "_analyze", wrongly)
    with pytest.raises(UndoRefused, match="18 rows in conflict"):
        do_undo(app, policy=Policy.REFUSE)
    monkeypatch.setattr(plan, "mark_conflicts", lambda *_: 0)
    with pytest.raises(UndoRefused, match=r"18 of 20 rows of shop\.customers would be deleted, the cap is 20%"):
        do_undo(app, max_deleted_share=0.2)
    with pytest.raises(Refused):
        do_undo(app)
    assert image(app, *NAMES) == wrecked
    monkeypatch.undo()
    do_undo(app)
    assert image(app, *NAMES) == before
