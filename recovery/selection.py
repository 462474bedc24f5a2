"""From a plan's frozen selection to the undo that executes it. Pure but for reading what was already applied."""

from __future__ import annotations

import psycopg

from catalog.models import Caps
from recovery.plan import Plan, RunSelection
from snapshots.model import Policy, RunRef, TableSpec, UndoSpec
from snapshots.undo import undo

UNDO = "undo"


def run_refs(selection: tuple[RunSelection, ...], carried: tuple[int, ...]) -> tuple[RunRef, ...]:
    """The selection as journal references: the tag of exact runs, and the transactions of all."""
    refs = [
        RunRef(actor=s.role, run=s.run_id if s.attribution == "exact" else None, xids=tuple(s.xids)) for s in selection
    ]
    if carried:
        refs.append(RunRef(actor="", run=None, xids=carried))
    return tuple(refs)


def undo_spec(
    tables: tuple[TableSpec, ...],
    selection: tuple[RunSelection, ...],
    *,
    carried: tuple[int, ...] = (),
    policy: str,
    caps: Caps,
    cancelled: tuple[int, ...] = (),
) -> UndoSpec:
    return UndoSpec(
        tables=tables,
        runs=run_refs(selection, carried),
        policy=Policy(policy),
        cancelled=cancelled,
        max_deleted_rows=caps.max_deleted_rows,
        max_deleted_share=caps.max_deleted_share,
        max_changed_rows=caps.max_changed_rows,
        drift_rows=caps.drift_rows,
    )


def planned_spec(
    tables: tuple[TableSpec, ...], plan: Plan, caps: Caps, *, connection: psycopg.Connection | None = None
) -> UndoSpec:
    """The plan's undo. With a ``connection``, an undo that this recovery already applied counts as cancelled."""
    cancelled: tuple[int, ...] = ()
    if connection is not None and (applied := undo.applied(connection, plan.recovery_id, UNDO)):
        cancelled = (applied.xid,)
    chosen = tuple(t for t in tables if t.name in plan.tables)
    return undo_spec(
        chosen, plan.selection, carried=plan.carried_xids, policy=plan.policy, caps=caps, cancelled=cancelled
    )
