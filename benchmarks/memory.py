"""Peak client memory of each operation, run in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks import child, damage, increments, proof, restore_table, rival_undo, undo_100k
from benchmarks.outcome import Outcome
from benchmarks.service import BenchmarkError
from benchmarks.site import CLERK

if TYPE_CHECKING:
    from benchmarks.base import Base
    from benchmarks.site import Database
    from benchmarks.stage import Stage

ID: Final = "memory-mb"
REPAIRED: Final = 0.10


def run(stage: Stage) -> tuple[Outcome, ...]:
    found = {name: used(stage, name) for name in child.OPERATIONS}
    worst = max(found, key=lambda name: found[name])
    outcome = Outcome(
        id=ID,
        target=400,
        stretch=250,
        unit="MB",
        figure="worst",
        seconds=tuple(found.values()),
        scale=stage.scale,
        more=found,
        how=f"most memory of a process of its own, interpreter and libraries with it, over these operations; the worst "
        f"is {worst}; repairs are of {REPAIRED:.0%} damage",
    )
    return (outcome,)


def used(stage: Stage, operation: str) -> float:
    """Megabytes of one operation, whose result is proven."""
    base = stage.base(journaled=operation not in ("capture-incr-scan", "repair-scan"))
    stage.say(f"{ID}: {operation}")
    with prepared(stage, base, operation) as db:
        asked = {
            "site": str(stage.place().folder),
            "database": db.name,
            "store": base.store.name,
            "point": base.point.id,
            "operation": operation,
        }
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.child"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise BenchmarkError(f"{ID}: {operation} ended with code {done.returncode}: {last}")
        if operation.startswith(("repair", "restore")):
            with db.open("", superuser=True) as conn:
                proof.same(proof.sums(conn), base.sums, what=operation)
    return float(json.loads(done.stdout)["mb"])


@contextmanager
def prepared(stage: Stage, base: Base, operation: str) -> Iterator[Database]:
    """A database in which the operation has something to do."""
    if operation == "restore-empty":
        with increments.hollow(stage, base) as db:
            yield db
        return
    with stage.copy(base.db) as db:
        if operation == "undo":
            rival_undo.prepare(db, undo_100k.written(base))
        elif operation == "restore-table":
            restore_table.lose(db)
        elif operation.startswith("repair"):
            damage.scatter(db, REPAIRED)
        elif operation.startswith("capture-incr"):
            damage.scatter(db, increments.SHARE, role=CLERK)
        db.site.checkpoint()
        yield db
