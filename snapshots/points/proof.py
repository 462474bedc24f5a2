"""What is known about a point because somebody tried: it was restored into an empty database, and the suites ran there.

A proof is an object beside the point, ``proofs/<app>/<id>.json``; the newest try replaces the one before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from snapshots.points.errors import Damaged
from snapshots.store.store import Store, side_path

FOLDER = "proofs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """The outcome of restoring a point. ``rows`` by table as they were in the restored copy; ``failed`` names what the
    suites found, ``problems`` what kept the point from being restored or made it differ."""

    point: str
    at: datetime
    seconds: float
    server: str
    """Version of the PostgreSQL it was restored into."""
    rows: dict[str, int]
    ran: int
    failed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failed and not self.problems and self.ran > 0


def record(store: Store, app: str, made: Proof) -> None:
    """Keep the proof beside its point."""
    values: dict[str, Any] = {**asdict(made), "at": made.at.isoformat(), "passed": made.passed}
    text = json.dumps(values, sort_keys=True, indent=1)
    store.replace_object(side_path(FOLDER, app, made.point), text.encode())


def proofs(store: Store, app: str) -> tuple[Proof, ...]:
    """The proofs of the app's points, by point. Raises :class:`Damaged` for one that cannot be read."""
    found = []
    for name in store.object_names(f"{FOLDER}/{app}"):
        path = f"{FOLDER}/{app}/{name}"
        data = store.read_object(path)
        if data is None:
            continue
        try:
            values = json.loads(data)
            del values["passed"]
            found.append(
                Proof(
                    **{
                        **values,
                        "at": datetime.fromisoformat(values["at"]),
                        "failed": tuple(values["failed"]),
                        "problems": tuple(values["problems"]),
                    }
                )
            )
        except (ValueError, TypeError, KeyError) as error:
            raise Damaged(f"{path} in {store.name} is not a proof; verify the point again.") from error
    return tuple(found)
