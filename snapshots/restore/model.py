"""Values of a diff and of a restore: what differs, whose work it is, what a restore would do and what it may do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from snapshots.model import Gap, Position

Key = tuple[str, ...]

Source = Literal["auto", "journal", "scan"]
"""How to find what differs. ``journal``: from the images since the target. ``scan``: from rows that the database
knows to be newer than the point, beside the point's rows. ``auto``: the journal where it is whole, else the scan."""

How = Literal["journal", "scan", "compare", "reload"]
"""What was done for one table: ``compare`` holds every row against the point, ``reload`` writes the table anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDiff:
    """Rows that differ, seen from the target: ``added`` are in live only, ``deleted`` in the target only. Of a table
    without a usable key nothing counts as changed. Keys are text, at most as many per kind as were asked for.
    ``point_rows`` and ``live_rows`` are the planner's estimate where the table is large and nobody counted it."""

    table: str
    added: int
    changed: int
    deleted: int
    point_rows: int
    live_rows: int
    added_keys: tuple[Key, ...] = ()
    changed_keys: tuple[Key, ...] = ()
    deleted_keys: tuple[Key, ...] = ()
    how: How = "compare"

    @property
    def rows(self) -> int:
        """Rows that a restore to the target would touch."""
        return self.added + self.changed + self.deleted


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorLoss:
    """Later work of one database role that a restore would take back, as the journal saw it. ``images`` counts old
    and new rows apart: an update is two."""

    actor: str
    transactions: int
    images: int
    tables: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What a restore would overwrite. Without a journal (``journaled`` false) nobody can say whose work it is; with
    ``gaps``, ``actors`` may miss some of it. The rows are exact in any case."""

    point_id: str
    """The point, or the time of the tick."""
    tables: tuple[TableDiff, ...]
    actors: tuple[ActorLoss, ...]
    journaled: bool
    gaps: tuple[Gap, ...] = ()

    @property
    def rows(self) -> int:
        return sum(t.rows for t in self.tables)

    def sentence(self) -> str:
        """One line for a person: how many rows, of which tables, by whom."""
        if not self.rows:
            return f"A restore to point {self.point_id} would overwrite nothing."
        rows = ", ".join(
            f"{t.table} ({t.added} new, {t.changed} edited, {t.deleted} deleted)" for t in self.tables if t.rows
        )
        who = ", ".join(f"{a.actor} ({a.transactions} transactions)" for a in self.actors) or "nobody the journal saw"
        known = f"written since by {who}" if self.journaled else "by whom is not known, there is no journal"
        doubt = "; the journal has gaps, so this list of writers may be incomplete" if self.gaps else ""
        return f"A restore to point {self.point_id} would overwrite {self.rows} rows: {rows}; {known}{doubt}."


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """What a restore may change at most. ``drift_rows``: how far each count may be from the expected one."""

    max_deleted_rows: int = 5_000
    max_deleted_share: float = 0.2
    """Of a table's live rows."""
    max_changed_rows: int = 100_000
    drift_rows: int = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorePlan:
    """What ``apply`` would do now, with what it would lose. ``problems`` say why it must not run; empty when it may."""

    point: str | None
    """Id of the point; ``None`` when the target is a tick."""
    position: Position
    loss: Loss
    sequences: tuple[str, ...]
    """Sequences that would be moved forward."""
    views: tuple[str, ...]
    """Materialised views that depend on the tables: refreshed afterwards, or stale where the role may not."""
    problems: tuple[str, ...]

    @property
    def tables(self) -> tuple[TableDiff, ...]:
        return self.loss.tables

    @property
    def empty(self) -> bool:
        return not self.loss.rows and not self.sequences

    @property
    def hash(self) -> str:
        """Sha-256 over target, tables and counts: what a person approves."""
        shown = {
            "point": self.point,
            "snapshot": self.position.snapshot,
            "system": [self.position.system_id, self.position.timeline],
            "tables": [[t.table, t.how, t.added, t.changed, t.deleted] for t in self.tables],
            "sequences": list(self.sequences),
            "problems": list(self.problems),
        }
        return hashlib.sha256(json.dumps(shown, separators=(",", ":")).encode()).hexdigest()
