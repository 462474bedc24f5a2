"""The product's own calls, as the benchmarks make them: one function per operation, each with its least role."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from benchmarks import shop
from benchmarks.damage import RUN
from benchmarks.race import timed
from benchmarks.service import BenchmarkError
from benchmarks.site import CAPTURER, INSTALLER, RECOVERER, WORKFLOW, Database
from platforms.fake import FakePlatform
from snapshots.capture import capture
from snapshots.model import Policy, RecoveryPoint, RunRef, UndoSpec
from snapshots.store.store import Store
from snapshots.undo import undo

APP: Final = "shop"
WORKERS: Final = 2
MANY: Final = 10**9
RECOVERY: Final = "bench"
Source = Literal["journal", "scan"]


def capture_full(db: Database, store: Store) -> RecoveryPoint:
    return _capture(db, store, base=None, method="full")


def capture_increment(db: Database, store: Store, base: RecoveryPoint, method: str) -> RecoveryPoint:
    """``method``: ``journal`` or ``scan``. Raises when it was not what found the changes of every table."""
    point = _capture(db, store, base=base, method=method)
    others = [t.name for t in point.tables if t.method != method]
    if others:
        raise BenchmarkError(f"capture: {', '.join(others)} not captured by {method}: nothing was measured")
    return point


def _capture(db: Database, store: Store, **how: Any) -> RecoveryPoint:
    return capture.capture(db.dsn(CAPTURER), shop.TABLES, {}, FakePlatform(), store, app=APP, workers=WORKERS, **how)


def undo_spec() -> UndoSpec:
    return UndoSpec(
        tables=shop.TABLES,
        runs=(RunRef(actor=WORKFLOW, run=RUN),),
        policy=Policy.REFUSE,
        max_deleted_rows=MANY,
        max_deleted_share=1.0,
        max_changed_rows=MANY,
        drift_rows=MANY,
    )


def undo_run(db: Database) -> tuple[float, float]:
    """Undo the bad run. Returns seconds of the undo and of the preview before it."""
    spec = undo_spec()
    with db.open(CAPTURER) as conn, timed() as preview:
        shown = undo.preview(conn, spec)
    with db.open(RECOVERER) as conn:
        db.site.checkpoint()
        with timed() as applied:
            undo.apply(conn, spec, recovery_id=RECOVERY, step="undo", plan_hash="bench", expected=shown.counts)
    return applied.seconds, preview.seconds


def repair(db: Database, store: Store, point: RecoveryPoint, source: Source) -> tuple[float, float]:
    """Bring every table back to ``point``. ``source``: ``journal`` or ``scan``. Returns seconds of the repair and of
    the plan before it."""
    from snapshots.restore import restore

    with db.open(CAPTURER) as conn, timed() as planned:
        plan = restore.plan(conn, point, store, shop.TABLES, source=source)
    with db.open(RECOVERER) as conn:
        db.site.checkpoint()
        caps = restore.Caps(max_deleted_rows=MANY, max_deleted_share=1.0, max_changed_rows=MANY, drift_rows=MANY)
        with timed() as applied:
            restore.apply(
                conn,
                point,
                store,
                shop.TABLES,
                recovery_id=RECOVERY,
                step="restore",
                plan_hash=plan.hash,
                source=source,
                caps=caps,
            )
    return applied.seconds, planned.seconds


def restore_lost(db: Database, store: Store, point: RecoveryPoint, table: str) -> None:
    """A table that was dropped (role: installer)."""
    from snapshots.restore import lost_table

    lost_table.restore(db.dsn(INSTALLER), point, store, [t for t in shop.TABLES if t.name == table], workers=WORKERS)


def load_empty(db: Database, store: Store, point: RecoveryPoint) -> None:
    """The whole point into tables without rows (role: installer)."""
    from snapshots.restore import whole

    whole.into_empty(db.dsn(INSTALLER), point, store, workers=WORKERS)


def stored_bytes(folder: Path) -> int:
    """Bytes of a store with everything in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
