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
from recovery import taking_back
from recovery.containment import Say
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.delivery import ended
from recovery.errors import VerificationFailed
from recovery.plan import Plan, Step
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
    entry = ctx.platform.open_private_entry(known_good(ctx, plan, workflow.key))
    key = f"canary:{plan.recovery_id}:{workflow.key}"
    with ctx.connect("recoverer", "canary") as connection:
        with fence_lowered(ctx, connection, plan, [workflow.key]):
            since = started_at(ctx, connection, plan, workflow.key)
            for run in ctx.platform.sent(entry).get(key, []):
                clean_up(ctx, connection, plan, workflow, since, ended(ctx, run))
                taking_back.of_own_run(ctx, plan, workflow.key, run.id)
            event = {"body": body, "headers": {}, "query": {}}
            run = ended(ctx, ctx.platform.send(entry, event, idempotency_key=key))
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
            clean_up(ctx, connection, plan, workflow, since, run)
            taking_back.of_own_run(ctx, plan, workflow.key, run.id)


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
    ctx: AppContext, connection: psycopg.Connection, plan: Plan, workflow: Workflow, since: Position, run: Run
) -> None:
    xids = tuple(t.xid for t in journal.transactions(connection, since=since, actors=[workflow.role]))
    connection.rollback()
    earlier = undo.applied_steps(connection, plan.recovery_id, prefix=f"canary:{workflow.key}:")
    connection.rollback()
    spec = replace(
        undo_spec(ctx.tables, (), policy="refuse", caps=ctx.app.caps, cancelled=tuple(a.xid for a in earlier)),
        runs=(RunRef(actor=workflow.role, run=run.id, xids=xids),),
    )
    preview = undo.preview(connection, spec)
    if not preview.empty:
        undo.apply(
            connection,
            spec,
            recovery_id=plan.recovery_id,
            step=f"canary:{workflow.key}:{run.id}",
            plan_hash=plan.hash,
            expected=preview.counts,
        )
