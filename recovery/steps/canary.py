"""A synthetic event through the known-good version, checked in the database, then undone, with what it did outside its
rows, before anybody is let in."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from catalog.models import Canary, Workflow
from platforms.base import Run, RunState
from recovery import private, taking_back
from recovery.containment import Say
from recovery.context import AppContext
from recovery.delivery import ended, waited
from recovery.errors import VerificationFailed
from recovery.plan import Plan, Step
from recovery.private import Private
from recovery.selection import undo_spec
from recovery.windows import RESUMING, decode, encode, fence_lowered, written
from snapshots import position
from snapshots.model import Position, RunRef
from snapshots.undo import undo

KIND = "canary.started"


@dataclass(frozen=True, kw_only=True, slots=True)
class Flight:
    """While it lasts, what the workflow's roles write is the canary's. ``until`` is ``None`` for the present one."""

    since: Position
    until: Position | None = None


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
        flights = begun(ctx, connection, plan, workflow.key)
        with fence_lowered(ctx, connection, plan, copy.reach):
            for run in ctx.platform.sent(copy.entry).get(key, []):
                earlier = ended(ctx, run, private.limit_s(ctx, workflow.key))
                clean_up(ctx, connection, plan, copy, flights, earlier, may_write=copy.reach)
            event = {"body": body, "headers": {}, "query": {}}
            sent = ctx.platform.send(copy.entry, event, idempotency_key=key)
            how = waited(ctx, sent, private.limit_s(ctx, workflow.key))
            run = how.run or sent
            private.children(ctx, copy, run)  # the fence stays down until they ended
        try:
            if how.stopped is not None:
                why = private.too_long(run, workflow.key, how.stopped)
                raise VerificationFailed(f"canary of {workflow.key}: {why}; the app stays paused")
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
            clean_up(ctx, connection, plan, copy, flights, run)


def begun(ctx: AppContext, connection: psycopg.Connection, plan: Plan, workflow: str) -> list[Flight]:
    """The recovery's flights of this canary, the present one last. An attempt that was killed is the same flight, the
    workflow being paused; the next canary ends it, and so does a resume: from there on the customers write, and what
    is flown once the app is paused again is another one."""
    flights: list[Flight] = []
    for entry in ctx.ledger.entries(incident=plan.incident_id, kinds=[KIND, RESUMING]):
        here = decode(dict(entry.body["position"]))
        mine = entry.kind == KIND and (entry.recovery, entry.body["workflow"]) == (plan.recovery_id, workflow)
        under_way = bool(flights) and flights[-1].until is None
        if mine and not under_way:
            flights.append(Flight(since=here))
        elif under_way and not mine:
            flights[-1] = replace(flights[-1], until=here)
    if flights and flights[-1].until is None:
        return flights
    here = position.current(connection)
    connection.rollback()
    body = {"workflow": workflow, "position": encode(here)}
    ctx.ledger.append(KIND, app=plan.app, incident=plan.incident_id, recovery=plan.recovery_id, body=body)
    return [*flights, Flight(since=here)]


def compare(connection: psycopg.Connection, expect: str, run: Run) -> str:
    """What the canary's expectation found wrong, or nothing."""
    query = sql.SQL("{}").format(sql.SQL(expect.replace(":run", "%(run)s")))
    with connection.cursor() as cursor:
        cursor.execute(query, {"run": run.id})
        rows = cursor.fetchmany(3)
        names = [c.name for c in cursor.description or ()]
    return "; ".join(f"{dict(zip(names, row, strict=True))}" for row in rows)


def clean_up(
    ctx: AppContext,
    connection: psycopg.Connection,
    plan: Plan,
    copy: Private,
    flights: Sequence[Flight],
    run: Run,
    *,
    may_write: Collection[str] = (),
) -> None:
    """Undo all that was written during the flights as the workflows that the copy reaches, which are paused, and what
    was done outside. ``may_write`` are workflows whose fence is lowered, and stays so."""
    actors = sorted({ctx.app.workflow(key).role for key in copy.reach})
    xids: set[int] = set()
    for flight in flights:
        later = written(connection, flight.until, actors) if flight.until is not None else set()
        xids |= written(connection, flight.since, actors) - later
    connection.rollback()
    earlier = undo.applied_steps(connection, plan.recovery_id, prefix=f"canary:{copy.workflow}:")
    connection.rollback()
    spec = replace(
        undo_spec(ctx.tables, (), policy="refuse", caps=ctx.app.caps, cancelled=tuple(a.xid for a in earlier)),
        runs=(RunRef(actor=ctx.app.workflow(copy.workflow).role, run=run.id, xids=tuple(sorted(xids))),),
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
        taking_back.of_own_run(ctx, plan, workflow, each.id, may_write=may_write)
