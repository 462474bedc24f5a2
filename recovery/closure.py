"""Entangled runs: whatever cannot stand once the selection is undone joins it, until nothing new comes.

A workflow's run joins whole (all its transactions) and its event is replayed. A person's edit joins as *carried*: it
is taken back with the row it edited and re-applied after the replay. A workflow's write that no run explains surely
is never undone in silence: the plan is refused.
"""

from __future__ import annotations

from datetime import timedelta

import psycopg

from checks.model import Diagnosis
from platforms.base import Run
from recovery.context import AppContext
from recovery.errors import Refused
from recovery.plan import RunSelection
from recovery.selection import undo_spec
from snapshots import journal, undo
from snapshots.attribution import Attributed, attribute, estimate_offset
from snapshots.model import JournalTx, Policy

MARGIN = timedelta(minutes=2)
ROUNDS = 20


def close(
    ctx: AppContext,
    connection: psycopg.Connection,
    diagnosis: Diagnosis,
    start: list[RunSelection],
    runs: dict[str, list[Run]],
    policy: Policy,
) -> tuple[tuple[RunSelection, ...], tuple[int, ...]]:
    """The closed selection and the carried transactions."""
    workflow_of = {w.role: w.key for w in ctx.app.workflows}
    attributed: dict[int, Attributed] | None = None
    selection = list(start)
    carried: list[int] = []
    for _ in range(ROUNDS):
        spec = undo_spec(ctx.tables, tuple(selection), carried=tuple(carried), policy=policy, caps=ctx.app.caps)
        found = undo.entangled(connection, spec)
        if not found:
            return tuple(selection), tuple(carried)
        if attributed is None:
            attributed = attribute_all(ctx, connection, diagnosis, runs)
        for tx in found:
            workflow = workflow_of.get(tx.actor)
            if workflow is None:
                carried.append(tx.xid)
                continue
            known = attributed.get(tx.xid)
            if known is None or known.run is None or not known.attribution.certain:
                raise Refused(
                    f"plan for app {ctx.app.key}: transaction {tx.xid} of {workflow} ({', '.join(tx.tables)}) depends on "
                    "a row to be undone, but its run is not known surely; tag the workflow's writes with reinstate.run, "
                    "or decide on this write by hand"
                )
            selection = join(selection, workflow, tx.actor, known, attributed)
    raise Refused(f"plan for app {ctx.app.key}: entangled runs did not come to an end; recover from a point instead")


def join(
    selection: list[RunSelection], workflow: str, role: str, known: Attributed, attributed: dict[int, Attributed]
) -> list[RunSelection]:
    """Add the run with all transactions that are surely its own."""
    xids = tuple(sorted(x for x, a in attributed.items() if a.run == known.run and a.attribution.certain))
    mine = [s for s in selection if s.workflow == workflow and s.run_id == known.run]
    others = [s for s in selection if s not in mine]
    why = mine[0].why if mine else "entangled"
    return [
        *others,
        RunSelection(
            workflow=workflow,
            role=role,
            run_id=known.run,
            xids=tuple(sorted({*xids, *(x for s in mine for x in s.xids)})),
            why=why,
            attribution=known.attribution,
        ),
    ]


def attribute_all(
    ctx: AppContext, connection: psycopg.Connection, diagnosis: Diagnosis, runs: dict[str, list[Run]]
) -> dict[int, Attributed]:
    raise NotImplementedError
