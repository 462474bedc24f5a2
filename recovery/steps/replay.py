"""Send the legitimate events of the undone runs through the known-good version, in order, once each.

The workflows stay paused: events go through a private copy of the definition, and the fence is lowered only while
they do. What was sent is read from the platform (the event's key is in the run's input), never assumed: a run that
succeeded counts, one that failed is undone by the journal and sent again, a lost answer is looked up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg

from platforms.base import PrivateEntry, Retryable, Run, RunState
from recovery.containment import Say
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.errors import StepFailed
from recovery.plan import Event, Plan, Step
from recovery.selection import undo_spec
from recovery.windows import fence_lowered
from snapshots import journal, position, undo
from snapshots.model import Position, RunRef

ATTEMPTS = 3
LOOKUP_S = 5.0
END_S = 60.0


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:  # noqa: ARG001 - one signature for all acts
    workflows = sorted({e.workflow for e in plan.events})
    entries = {w: ctx.platform.open_private_entry(known_good(ctx, plan, w)) for w in workflows}
    sent = {w: ctx.platform.sent(entry) for w, entry in entries.items()}
    already = replayed = 0
    with ctx.connect("recoverer", "replay") as connection, fence_lowered(ctx, connection, plan, workflows):
        for done, event in enumerate(sorted(plan.events, key=lambda e: e.order), start=1):
            key = event_key(plan, event)
            if send_once(ctx, connection, plan, event, entries[event.workflow], sent[event.workflow].get(key, [])):
                replayed += 1
            else:
                already += 1
            if done % 25 == 0 or done == len(plan.events):
                say(f"replayed {done} of {len(plan.events)} events")
    return {"events": len(plan.events), "replayed": replayed, "already_there": already, "workflows": workflows}


def event_key(plan: Plan, event: Event) -> str:
    return f"{plan.incident_id}:{event.workflow}:{event.key}"


def send_once(
    ctx: AppContext,
    connection: psycopg.Connection,
    plan: Plan,
    event: Event,
    entry: PrivateEntry,
    earlier: list[Run],
) -> bool:
    """Make sure one run of the event succeeded. Returns false when an earlier attempt already had."""
    key = event_key(plan, event)
    for attempt in (ended(ctx, r) for r in earlier):
        if attempt.state is RunState.SUCCESS:
            return False
        revert(ctx, connection, plan, event.workflow, attempt, since=None)
    payload = ctx.platform.run_detail(event.run_id).event
    if payload is None:
        raise StepFailed(
            f"event {event.key} of {event.workflow}: the platform kept no input of run {event.run_id}; "
            "enter it by hand, then run the recovery again with this event excluded"
        )
    run: Run | None = None
    known = frozenset(r.id for r in earlier)
    for _ in range(ATTEMPTS):
        before = position.current(connection)
        connection.rollback()
        run = send(ctx, entry, payload, key, known)
        if run is not None and run.state is RunState.SUCCESS:
            return True
        if run is not None:
            known |= {run.id}
            revert(ctx, connection, plan, event.workflow, run, since=before)
    error = ctx.platform.run_detail(run.id).error if run else "the platform never ran it"
    raise StepFailed(
        f"event {event.key} of {event.workflow}: it failed {ATTEMPTS} times through the known-good version ({error}); "
        "nothing of it is left in the database; mend the cause, then run the recovery again"
    )


def send(
    ctx: AppContext, entry: PrivateEntry, payload: Mapping[str, Any], key: str, known: frozenset[str]
) -> Run | None:
    """Send; when the answer is lost, find the run again (not one of ``known``). ``None`` when there is none."""
    try:
        return ended(ctx, ctx.platform.send(entry, payload, idempotency_key=key))
    except Retryable:
        deadline = time.monotonic() + LOOKUP_S
        while time.monotonic() < deadline:
            found = [r for r in ctx.platform.sent(entry).get(key, []) if r.id not in known]
            if found:
                return ended(ctx, found[-1])
            time.sleep(0.25)
        return None


def ended(ctx: AppContext, run: Run) -> Run:
    """The run once it ended; one that does not end is stopped."""
    deadline = time.monotonic() + END_S
    while run.state.in_flight:
        if time.monotonic() > deadline:
            ctx.platform.stop(run.id)
            deadline += END_S
        time.sleep(0.1)
        run = ctx.platform.run_detail(run.id).run
    return run


def revert(
    ctx: AppContext, connection: psycopg.Connection, plan: Plan, workflow: str, run: Run, *, since: Position | None
) -> None:
    """Undo what a failed replay run wrote: its tagged writes, and (the workflow being paused, nobody else writes with
    its role) all of its role since ``since``."""
    role = ctx.app.workflow(workflow).role
    xids: tuple[int, ...] = ()
    if since is not None:
        xids = tuple(t.xid for t in journal.transactions(connection, since=since, actors=[role]))
        connection.rollback()
    spec = replace(
        undo_spec(ctx.tables, (), policy="refuse", caps=ctx.app.caps),
        runs=(RunRef(actor=role, run=run.id, xids=xids),),
    )
    preview = undo.preview(connection, spec)
    if not preview.empty:
        undo.apply(
            connection,
            spec,
            recovery_id=plan.recovery_id,
            step=f"replay-undo:{run.id}",
            plan_hash=plan.hash,
            expected=preview.counts,
        )
