"""One operation in a process of its own, which says how much memory it needed: ``python -m benchmarks.child``.

Reads what to do as one JSON object from standard input (the site's folder, the database, the store, the operation) and
answers with one on standard output.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import engine, restore_table, site
from benchmarks.site import Database
from snapshots.points import points
from snapshots.store.store import Store

if TYPE_CHECKING:
    from snapshots.model import RecoveryPoint

OPERATIONS: Final = (
    "capture-full",
    "capture-incr-journal",
    "capture-incr-scan",
    "undo",
    "repair-journal",
    "repair-scan",
    "restore-empty",
    "restore-table",
)
_STATUS: Final = Path("/proc/self/status")


def peak_mb() -> float:
    """Most memory this process ever held, with the largest of its children, in megabytes.

    The kernel's own mark is read where there is one: ``ru_maxrss`` begins with what the parent held before exec."""
    found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="utf-8")) if _STATUS.exists() else None
    mine = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (mine + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def perform(operation: str, db: Database, store: Store, point: RecoveryPoint) -> None:
    """One of ``OPERATIONS``."""
    what, _, how = operation.rpartition("-")
    source: engine.Source = "scan" if how == "scan" else "journal"
    match what:
        case "capture":
            engine.capture_full(db, store)
        case "capture-incr":
            engine.capture_increment(db, store, point, source)
        case "repair":
            engine.repair(db, store, point, source)
        case "restore" if how == "table":
            engine.restore_lost(db, store, point, restore_table.TABLE)
        case "restore":
            engine.load_empty(db, store, point)
        case _:
            engine.undo_run(db)


def main() -> None:
    asked = json.load(sys.stdin)
    db = Database(site=site.attached(Path(asked["site"])), name=asked["database"])
    store = Store(asked["store"])
    point = points.load(store, engine.APP, asked["point"])
    perform(asked["operation"], db, store, point)
    sys.stdout.write(json.dumps({"mb": peak_mb()}) + "\n")


if __name__ == "__main__":
    main()
