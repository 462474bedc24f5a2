"""Bring live tables back to a recovery point, by difference. Everything written since is overwritten.

This is the blunt tool: it cannot tell damage from later legitimate work. It is offered when the journal cannot vouch
for an undo, always with what it would overwrite (:func:`snapshots.diff.would_lose`), and never chosen automatically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from . import database, restore_rows, shape, staging
from .diff import TableDiff, describe, manifests
from .model import Applied, RecoveryPoint, TableSpec
from .point_errors import CapPassed, StepApplied, WouldBreak, translated
from .store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """What a restore may change at most. ``drift_rows``: how far each count may be from the expected one."""

    max_deleted_rows: int = 5_000
    max_deleted_share: float = 0.2
    """Of a table's live rows."""
    max_changed_rows: int = 100_000
    drift_rows: int = 200


def apply_diff(
    conn: Connection[Any],
    point: RecoveryPoint,
    store: Store,
    tables: Sequence[TableSpec],
    *,
    recovery_id: str,
    step: str,
    plan_hash: str,
    caps: Caps | None = None,
    expected: Sequence[TableDiff] = (),
) -> Applied:
    """Make ``tables`` equal to the point, in one transaction, and record it in ``reinstate.applied`` with the effect.

    ``conn`` is idle; its role is the recoverer. The difference is computed again under lock and held against ``caps``
    and, where given, the ``expected`` diff that was shown and approved. Rows keep their exact images; identity values
    are kept; generated columns are computed by the database; sequences only move forward. Triggers in
    ``TableSpec.suppress`` are off inside the transaction only. Calling again with the same recovery and step returns
    what was recorded and changes nothing.

    Raises :class:`CapPassed`, :class:`WouldBreak`, :class:`ShapeChanged`, :class:`StepApplied`, :class:`Busy`
    (worth trying again) and the errors of the store; in each case nothing was changed.
    """
    specs = {t.name: t for t in tables}
    chosen = manifests(point, specs)
    with translated(), staging.transaction(conn):
        if done := _applied(conn, recovery_id, step, plan_hash):
            return done
        staged = {m.name: staging.stage(conn, m, store, number=i) for i, m in enumerate(chosen)}
        foreign = shape.foreign_keys(conn, specs)
        relations = (*foreign, *_declared(tables))
        _lock(conn, staged)
        if done := _applied(conn, recovery_id, step, plan_hash):
            return done
        orphans = {r: restore_rows.orphans(conn, r) for r in relations}
        found = [describe(conn, s, staging.compare(conn, s), keys=0) for s in staged.values()]
        _within_caps(found, caps or Caps(), expected)
        restore_rows.refuse_erasing(conn, staged, foreign)
        _triggers(conn, tables, enabled=False)
        restore_rows.bring_back(conn, staged, shape.parents_first(staged, relations), relations)
        _triggers(conn, tables, enabled=True)
        for relation, before in orphans.items():
            if restore_rows.orphans(conn, relation) > before:
                raise WouldBreak(
                    f"Rows of {relation.child} would lose their {relation.parent}; restore both tables together."
                )
        moved = forward(conn, point.sequences, list(staged))
        return _record(
            conn,
            recovery_id=recovery_id,
            step=step,
            plan_hash=plan_hash,
            point=point,
            found=found,
            moved=moved,
        )


def forward(conn: Connection[Any], recorded: dict[str, int], tables: Sequence[str]) -> list[str]:
    """Move sequences of ``tables`` that are behind the point's value up to it, never back; names of those moved."""
    moved = []
    for name, counter in shape.sequences(conn, tables).items():
        if name in recorded and counter.behind(recorded[name]):
            conn.execute("SELECT setval(%s::regclass, %s, true)", (_text(conn, name), recorded[name]))
            moved.append(name)
    return moved


def _lock(conn: Connection[Any], staged: dict[str, staging.Staged]) -> None:
    """Readers go on, writers wait. One statement and one order, so that two restores never wait for each other."""
    names = sql.SQL(", ").join(database.qualified(name) for name in sorted(staged))
    conn.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(names))


def _within_caps(found: Sequence[TableDiff], caps: Caps, expected: Sequence[TableDiff]) -> None:
    planned = {e.table: e for e in expected}
    for now in found:
        share = now.added / now.live_rows if now.live_rows else 0.0
        if now.added > caps.max_deleted_rows or share > caps.max_deleted_share:
            raise CapPassed(
                f"The restore would delete {now.added} of {now.live_rows} rows of {now.table}, more than its cap "
                f"({caps.max_deleted_rows} rows, {caps.max_deleted_share:.0%}); raise the cap or undo by run."
            )
        then = planned.get(now.table)
        if then and any(
            abs(a - b) > caps.drift_rows
            for a, b in ((now.added, then.added), (now.changed, then.changed), (now.deleted, then.deleted))
        ):
            raise CapPassed(f"Table {now.table} has drifted from the plan by over {caps.drift_rows} rows; plan again.")
    changed = sum(t.rows for t in found)
    if changed > caps.max_changed_rows:
        raise CapPassed(
            f"The restore would change {changed} rows, more than its cap of {caps.max_changed_rows}; "
            "raise the cap on purpose or undo by run."
        )


def _triggers(conn: Connection[Any], tables: Sequence[TableSpec], *, enabled: bool) -> None:
    for table in tables:
        if table.suppress:
            conn.execute("SELECT reinstate.set_triggers(%s, %s, %s)", (table.name, list(table.suppress), enabled))


def _declared(tables: Sequence[TableSpec]) -> tuple[shape.Relation, ...]:
    return tuple(
        shape.Relation(child=t.name, columns=columns, parent=parent, to=to)
        for t in tables
        for columns, parent, to in t.references
    )


def _applied(conn: Connection[Any], recovery_id: str, step: str, plan_hash: str) -> Applied | None:
    row = conn.execute(
        "SELECT plan_hash, xid::text::bigint, at, detail FROM reinstate.applied WHERE recovery_id = %s AND step = %s",
        (recovery_id, step),
    ).fetchone()
    if row is None:
        return None
    if row[0] != plan_hash:
        raise StepApplied(f"Step {step} of recovery {recovery_id} was applied by another plan; start a new recovery.")
    return Applied(recovery_id=recovery_id, step=step, plan_hash=row[0], xid=row[1], at=row[2], detail=row[3])


def _record(
    conn: Connection[Any],
    *,
    recovery_id: str,
    step: str,
    plan_hash: str,
    point: RecoveryPoint,
    found: Sequence[TableDiff],
    moved: Sequence[str],
) -> Applied:
    tables = {t.table: {"delete": t.added, "update": t.changed, "insert": t.deleted} for t in found}
    detail = {"kind": "restore", "point": point.id, "tables": tables, "sequences": list(moved)}
    row = conn.execute(
        "INSERT INTO reinstate.applied (recovery_id, step, plan_hash, detail) VALUES (%s, %s, %s, %s)"
        " RETURNING xid::text::bigint, at",
        (recovery_id, step, plan_hash, Jsonb(detail)),
    ).fetchone()
    if row is None:
        raise StepApplied(f"Step {step} of recovery {recovery_id} could not be recorded; check reinstate.applied.")
    return Applied(recovery_id=recovery_id, step=step, plan_hash=plan_hash, xid=row[0], at=row[1], detail=detail)


def _text(conn: Connection[Any], name: str) -> str:
    return database.qualified(name).as_string(conn)
