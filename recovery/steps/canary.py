"""A synthetic event through the known-good version, checked in the database, then undone, with what it did outside its
rows, before anybody is let in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from catalog.models import Canary, Workflow
from platforms.base import Run, RunState
from recovery import private, taking_back
from recovery.containment import Say
from recovery.context import AppContext
from recovery.delivery import ended
from recovery.errors import VerificationFailed
from recovery.plan import Plan, Step
from recovery.private import Private
from recovery.selection import undo_spec
from recovery.windows import decode, encode, fence_lowered
from snapshots import position
from snapshots.journal import journal
from snapshots.model import Position, RunRef
from snapshots.undo import undo

KIND = "canary.started"


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    passed = []
    for key in step.params["workflows"]:
        workflow = ctx.app.workflow(key)
        if workflow.canary is not None:
            fly(ctx, plan, workflow, workflow.canary)
            passed.append(key)
            say(f"canary of {key} passed and was undone")
    return {"passed": passed}


def fly(ctx: AppContext, plan: Plan, workflow: Workflow, canary: Canary) -> None:
    """Send the canary, compare, undo what it wrote. An attempt that was killed is undone first."""
    folder = ctx.catalog_path if ctx.catalog_path.is_dir() else ctx.catalog_path.parent
    body = json.loads((folder / canary.event).read_text("utf-8"))
    copy = private.of_plan(ctx, plan, workflow.key)
    key = f"canary:{plan.recovery_id}:{workflow.key}"
    with ctx.connect("recoverer", "canary") as connection:
        with fence_lowered(ctx, connection, plan, copy.reach):
            since = started_at(ctx, connection, plan, workflow.key)
            for run in ctx.platform.sent(copy.entry).get(key, []):
                clean_up(ctx, connection, plan, copy, since, ended(ctx, run))
            event = {"body": body, "headers": {}, "query": {}}
            run = ended(ctx, ctx.platform.send(copy.entry, event, idempotency_key=key))
            private.children(ctx, copy, run)  # the fence stays down until they ended
        try:
            if run.state is not RunState.SUCCESS:
                # The platform's own words may quote row values.
                raise VerificationFailed(
                    f"canary of {workflow.key}: run {run.id} ended as {run.state}; see the run in the platform; "
                    "the app stays paused"
                )
            if wrong := compare(connection, canary.expect, run):
                raise VerificationFailed(f"canary of {workflow.key}: {wrong}; the app stays paused")
        finally:
            connection.rollback()
            clean_up(ctx, connection, plan, copy, since, run)


def started_at(ctx: AppContext, connection: psycopg.Connection, plan: Plan, workflow: str) -> Position:
    """Where the first attempt began; the workflow being paused, its role's later writes are the canary's."""
    for entry in ctx.ledger.entries(recovery=plan.recovery_id, kinds=[KIND]):
        if entry.body["workflow"] == workflow:
            return decode(dict(entry.body["position"]))
    here = position.current(connection)
    connection.rollback()
    ctx.ledger.append(
        KIND,
        app=plan.app,
        incident=plan.incident_id,
        recovery=plan.recovery_id,
        body={"workflow": workflow, "position": encode(here)},
    )
    return here


def compare(connection: psycopg.Connection, expect: str, run: Run) -> str:
    """What the canary's expectation found wrong, or nothing."""
    query = sql.SQL("{}").format(sql.SQL(expect.replace(":run", "%(run)s")))
    with connection.cursor() as cursor:
        cursor.execute(query, {"run": run.id})
        rows = cursor.fetchmany(3)
        names = [c.name for c in cursor.description or ()]
    return "; ".join(f"{dict(zip(names, row, strict=True))}" for row in rows)


def clean_up(
    ctx: AppContext, connection: psycopg.Connection, plan: Plan, copy: Private, since: Position, run: Run
) -> None:
    """Undo all that was written as the workflows that the copy reaches, which are paused, and what was done outside."""
    actors = sorted({ctx.app.workflow(key).role for key in copy.reach})
    xids = tuple(t.xid for t in journal.transactions(connection, since=since, actors=actors))
    connection.rollback()
    earlier = undo.applied_steps(connection, plan.recovery_id, prefix=f"canary:{copy.workflow}:")
    connection.rollback()
    spec = replace(
        undo_spec(ctx.tables, (), policy="refuse", caps=ctx.app.caps, cancelled=tuple(a.xid for a in earlier)),
        runs=(RunRef(actor=ctx.app.workflow(copy.workflow).role, run=run.id, xids=xids),),
    )
    preview = undo.preview(connection, spec)
    if not preview.empty:
        undo.apply(
            connection,
            spec,
            recovery_id=plan.recovery_id,
            step=f"canary:{copy.workflow}:{run.id}",
            plan_hash=plan.hash,
            expected=preview.counts,
        )
    for workflow, each in [*reversed(private.children(ctx, copy, run)), (copy.workflow, run)]:
        taking_back.of_own_run(ctx, plan, workflow, each.id)
