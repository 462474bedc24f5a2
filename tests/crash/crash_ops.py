"""The operations that are killed: what a command would do, in one call each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from snapshots import database
from snapshots.capture import capture as captures
from snapshots.erasure import apply, erasure
from snapshots.model import Policy, RunRef, UndoSpec
from snapshots.points import points
from snapshots.restore import restore as restores
from snapshots.store import retention, rotation
from snapshots.store.store import Store
from snapshots.undo import undo as undos
from tests.snapshots import erasure_desk, point_desk

TABLES = (point_desk.CUSTOMERS, point_desk.ORDERS)
BAD = "wf_bad"


class Keep:
    last, hourly, daily, weekly, monthly = 1, 0, 0, 0, 0


def capture(dsn: str, folder: str, base: str, method: Literal["full", "journal", "scan"]) -> None:
    store = Store(folder)
    captures.capture(
        dsn,
        point_desk.TABLES,
        point_desk.WORKFLOWS,
        point_desk.Told(),
        store,
        app="desk",
        base=points.load(store, "desk", base) if base else None,
        method=method,
        workers=1,
        verify=lambda _: {"passed": True},
    )


def prune(folder: str) -> None:
    retention.prune(Store(folder), "desk", Keep(), dry_run=False, grace_s=-1)


def rotate(folder: str, keys: list[str], everything: bool) -> None:
    rotation.rotate(Store(folder, keys=keys), everything=everything)


def erase(dsn: str, folder: str, home: str) -> None:
    from snapshots.erasure import find
    from snapshots.erasure import plan as erasure_plan

    store = Store(folder)
    store.guard = erasure.Guard(secret=b"pepper", beside=Path(home) / "erased")
    who = erasure_desk.person()
    with database.connect(dsn, purpose="test") as conn:
        plan = erasure_plan.plan(conn, store, "desk", find.find(conn, store, "desk", erasure_desk.TABLES, who))
        conn.rollback()
        apply.apply(conn, store, "desk", erasure_desk.TABLES, who, plan_hash=plan.plan_hash, by="ada", reason="asked")


def undo_spec(run: str) -> UndoSpec:
    return UndoSpec(
        tables=TABLES,
        runs=(RunRef(actor=BAD, run=run),),
        policy=Policy.REFUSE,
        max_deleted_share=1.0,
    )


def undo(dsn: str, run: str) -> None:
    with database.connect(dsn, purpose="test") as conn:
        planned = undos.preview(conn, undo_spec(run))
        undos.apply(
            conn, undo_spec(run), recovery_id=f"undo {run}", step="data", plan_hash="h", expected=planned.counts
        )


def restore(dsn: str, folder: str, point: str, source: Any, name: str) -> None:
    store = Store(folder)
    with database.connect(dsn, purpose="test") as conn:
        restores.apply(
            conn,
            points.load(store, "desk", point),
            store,
            TABLES,
            recovery_id=name,
            step="data",
            plan_hash="h",
            source=source,
            caps=restores.Caps(max_deleted_share=1.0),
        )
