"""Send the legitimate events of the undone runs through the known-good version, in order, once each.

The workflows stay paused: events go through a private copy of the definition, and the fence is lowered only while
they do. What was sent is read from the platform (the event's key is in the run's input), never assumed: a run that
succeeded counts, one that failed is undone by the journal and sent again, a lost answer is looked up. Where the
platform cannot be asked, an event whose answer was lost is *unknown*, and not sent again (:mod:`recovery.delivery`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

import psycopg

from platforms.base import Permanent, Run, RunDetail, RunState
from recovery import private, replayed, taking_back
from recovery.containment import Say
from recovery.context import AppContext
from recovery.delivery import Courier, Delivered, Outcome, ended
from recovery.errors import StepFailed
from recovery.plan import Event, Plan, Step
from recovery.private import Private
from recovery.selection import undo_spec
from recovery.windows import fence_lowered
from snapshots import position
from snapshots.journal import journal
from snapshots.journal.attribution import attribute, estimate_offset, tagged_pairs
from snapshots.model import Position, RunRef, UndoSpec
from snapshots.undo import undo

ATTEMPTS = 3
UNDOING = "replay-undo:"
"""Prefix of the data steps that take a replay run back; the rest is the run's id."""


class Done(StrEnum):
    """How one event ended."""

    REPLAYED = "replayed"
    THERE = "there"
    """An earlier attempt had succeeded."""
    REFUSED = "refused"
    """The good version refuses it as its first run did: the sender was told so then."""
    UNKNOWN = "unknown"
    """It may have run or not; nobody can be asked, so it is not sent again."""


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:  # noqa: ARG001 - one signature for all acts
    workflows = sorted({e.workflow for e in plan.events})
    copies = {w: private.of_plan(ctx, plan, w) for w in workflows}
    writing = sorted({key for copy in copies.values() for key in copy.reach})
    counts = dict.fromkeys(Done, 0)
    left_out: list[str] = []
    unknown: list[str] = []
    courier = Courier(ctx, incident=plan.incident_id, recovery=plan.recovery_id)
    with ctx.connect("recoverer", "replay") as connection, fence_lowered(ctx, connection, plan, writing) as begun:
        sent = {w: ctx.platform.sent(copy.entry) for w, copy in copies.items()}
        for done, event in enumerate(sorted(plan.events, key=lambda e: e.order), start=1):
            key = event_key(plan, event)
            earlier = sent[event.workflow].get(key, [])
            ended_as = send_once(ctx, connection, plan, event, copies[event.workflow], earlier, begun, courier)
            counts[ended_as] += 1
            if ended_as is Done.UNKNOWN:
                unknown.append(key)
            if ended_as is Done.REFUSED:
                left_out.append(f"run {event.run_id} of {event.workflow}")
            if done % 25 == 0 or done == len(plan.events):
                say(f"replayed {done} of {len(plan.events)} events")
        twice = undo_repeats(ctx, connection, plan, copies, begun)
    if left_out:
        say(f"{len(left_out)} events fail through the good version just as they did before; a person must look at them")
    if unknown:
        say(f"{len(unknown)} events are unknown: they may have run or not; see `reinstate events list`")
    if twice:
        say(f"{twice} runs repeated an event after all (their answers came late); they were undone")
    return {
        "events": len(plan.events),
        "replayed": counts[Done.REPLAYED],
        "already_there": counts[Done.THERE],
        "refused_as_before": counts[Done.REFUSED],
        "left_out": left_out,
        "unknown": unknown,
        "repeats_undone": twice,
        "workflows": workflows,
    }


def undo_repeats(
    ctx: AppContext, connection: psycopg.Connection, plan: Plan, copies: Mapping[str, Private], begun: Position
) -> int:
    """A request whose answer was lost may still run after it was sent again: of each event one run stands, that on
    which others have built."""
    repeats = 0
    undone = {a.step for a in undo.applied_steps(connection, plan.recovery_id, prefix=UNDOING)}
    connection.rollback()
    for workflow, copy in copies.items():
        sent = ctx.platform.sent(copy.entry)
        for event in (e for e in plan.events if e.workflow == workflow):
            runs = [ended(ctx, r, private.limit_s(ctx, workflow)) for r in sent.get(event_key(plan, event), [])]
            for run in (r for r in runs if UNDOING + r.id in undone):
                # A process that died just after the undo had not come to what the run did outside its rows.
                take_back_outside(ctx, plan, copy, run)
            standing = [r for r in runs if r.state is RunState.SUCCESS and UNDOING + r.id not in undone]
            while len(standing) > 1:
                writes = {r.id: own_writes(ctx, connection, copy, r, begun) for r in standing}
                free = [
                    r for r in standing if not undo.preview(connection, undoing(ctx, copy, r, writes[r.id])).problems
                ]
                extra = (free or standing)[-1]
                revert(ctx, connection, plan, copy, extra, writes[extra.id])
                standing.remove(extra)
                repeats += 1
    return repeats


def event_key(plan: Plan, event: Event) -> str:
    return replayed.event_key(plan.incident_id, event.workflow, event.key)


def send_once(
    ctx: AppContext,
    connection: psycopg.Connection,
    plan: Plan,
    event: Event,
    copy: Private,
    earlier: list[Run],
    begun: Position,
    courier: Courier,
) -> Done:
    """Make sure one run of the event succeeded, unless the event itself is at fault. What failed attempts wrote is
    undone, also those of a killed process; ``begun`` is from before the first of them."""
    key = event_key(plan, event)
    attempts = [ended(ctx, r, private.limit_s(ctx, event.workflow)) for r in earlier]
    for attempt in attempts:
        if attempt.state is not RunState.SUCCESS:
            mine = own_writes(ctx, connection, copy, attempt, begun)
            revert(ctx, connection, plan, copy, attempt, mine)
    if any(a.state is RunState.SUCCESS for a in attempts):
        return Done.THERE
    original = ctx.platform.run_detail(event.run_id)
    payload = original.event
    if payload is None:
        raise StepFailed(
            f"event {event.key} of {event.workflow}: the platform kept no input of run {event.run_id}; "
            "ask the sender to send it again once the app is back, and enter it by hand until then"
        )
    run: Run | None = None
    stopped: float | None = None
    known = frozenset(r.id for r in earlier)

    def send() -> Run:
        return ctx.platform.send(copy.entry, payload, idempotency_key=key)

    def look_up() -> list[Run]:
        return ctx.platform.sent(copy.entry).get(key, [])

    def take_back(failed: Delivered) -> None:
        if failed.run is not None:
            mine = writes_since(ctx, connection, copy, failed.run, before)
            revert(ctx, connection, plan, copy, failed.run, mine)

    # Events go to a private copy, whose runs `sent` tells, also where the platform lists no others: what counts is
    # whether it tells them surely, not whether it lists runs (`executions`).
    reads_back = ctx.platform.capabilities.reads_back_events
    for _ in range(ATTEMPTS):
        before = position.current(connection)
        connection.rollback()
        done = courier.deliver(
            workflow=event.workflow,
            key=key,
            send=send,
            look_up=look_up if reads_back else None,
            sent_before=False,
            known=known,
            end_s=private.limit_s(ctx, event.workflow),
            repeats_taken_back=True,
            take_back=take_back,
        )
        if done.outcome is Outcome.DONE:
            if done.run is not None:
                private.children(ctx, copy, done.run)  # the next event waits for them
            return Done.THERE if done.there else Done.REPLAYED
        if done.outcome is Outcome.UNKNOWN:
            return Done.UNKNOWN
        run, stopped = done.run, done.stopped
        known |= {run.id} if run is not None else set()
    again = None if run is None else told(ctx, run)
    if again is not None and refused_alike(original, again):
        return Done.REFUSED
    how = "the platform never ran it" if again is None else failure(again, event.workflow, stopped)
    cause = "settle the unknown events (`reinstate events list`)" if courier.unknown else "mend the cause"
    raise StepFailed(
        f"event {event.key} of {event.workflow}: it failed {ATTEMPTS} times through the known-good version ({how}); "
        f"nothing of it is left in the database; {cause}, then run the recovery again"
    )


def told(ctx: AppContext, run: Run) -> RunDetail:
    """What the platform still tells of a run that ended."""
    try:
        return ctx.platform.run_detail(run.id)
    except Permanent:
        return RunDetail(run=run, event=None, outputs={})


def refused_alike(first: RunDetail, again: RunDetail) -> bool:
    """Whether the good version refuses an event as its first run did (pure): with the same HTTP status where both tell
    one, with the same error where neither does. A status and a text say nothing about each other: that both runs ended
    in an error is all that is known then."""
    if not (first.run.state is again.run.state is RunState.ERROR):
        return False
    if first.status is not None and again.status is not None:
        return first.status == again.status
    if first.status is None and again.status is None:
        return first.error is not None and first.error == again.error
    return True


def failure(detail: RunDetail, workflow: str, stopped: float | None) -> str:
    """How a run failed, without the platform's own words: they may quote row values."""
    if stopped is not None:
        return private.too_long(detail.run, workflow, stopped)
    answered = "" if detail.status is None else f", answered {detail.status}"
    return f"run {detail.run.id} ended as {detail.run.state}{answered}; see the run in the platform"


def writes_since(
    ctx: AppContext, connection: psycopg.Connection, copy: Private, run: Run, since: Position
) -> tuple[int, ...]:
    """Transactions of the roles that the copy reaches but those tagged by another run: while they are paused and events
    go one by one, they are those of the last run and of what it started."""
    mine = family(ctx, copy, run)
    found = journal.transactions(connection, since=since, actors=roles(ctx, copy))
    connection.rollback()
    return tuple(t.xid for t in found if t.run is None or t.run in mine)


def own_writes(
    ctx: AppContext, connection: psycopg.Connection, copy: Private, run: Run, begun: Position
) -> tuple[int, ...]:
    """The transactions of one run of the copy, and of what it started, among those of the others, by tag or by time.
    Raises :class:`StepFailed` when that cannot be told."""
    transactions = journal.transactions(connection, since=begun, actors=roles(ctx, copy))
    connection.rollback()
    mine = family(ctx, copy, run)
    runs = [r for of_key in ctx.platform.sent(copy.entry).values() for r in of_key]
    role_of = {copy.entry.workflow_id: ctx.app.workflow(copy.workflow).role}
    for key, callee in copy.callees:
        runs += ctx.platform.runs(callee.workflow_id)
        role_of[callee.workflow_id] = ctx.app.workflow(key).role
    offset = estimate_offset(tagged_pairs(transactions, runs, role_of))
    known = attribute(transactions, runs, role_of, offset_s=offset)
    if unsure := [a for a in known if not a.attribution.certain and not mine.isdisjoint(a.candidates)]:
        raise StepFailed(
            f"run {run.id} of {copy.workflow}: it failed in an earlier replay, and transaction {unsure[0].tx.xid} may "
            f"be its own ({unsure[0].evidence}); undo it by hand, or tag the workflow's writes with reinstate.run"
        )
    return tuple(a.tx.xid for a in known if a.run_id in mine)


def family(ctx: AppContext, copy: Private, run: Run) -> frozenset[str]:
    """The run and those that it started."""
    return frozenset((run.id, *(child.id for _, child in private.children(ctx, copy, run))))


def roles(ctx: AppContext, copy: Private) -> list[str]:
    return sorted({ctx.app.workflow(key).role for key in copy.reach})


def revert(
    ctx: AppContext, connection: psycopg.Connection, plan: Plan, copy: Private, run: Run, xids: tuple[int, ...]
) -> None:
    """Undo what a replay run wrote, its tagged writes and the listed transactions, and what it did outside them."""
    spec = undoing(ctx, copy, run, xids)
    preview = undo.preview(connection, spec)
    if not preview.empty:
        undo.apply(
            connection,
            spec,
            recovery_id=plan.recovery_id,
            step=UNDOING + run.id,
            plan_hash=plan.hash,
            expected=preview.counts,
        )
    take_back_outside(ctx, plan, copy, run)


def take_back_outside(ctx: AppContext, plan: Plan, copy: Private, run: Run) -> None:
    """What a replay run, and those it started, did outside their rows."""
    may_write = {e.workflow for e in plan.events} | set(copy.reach)
    for workflow, each in [*reversed(private.children(ctx, copy, run)), (copy.workflow, run)]:
        taking_back.of_own_run(ctx, plan, workflow, each.id, may_write=may_write)


def undoing(ctx: AppContext, copy: Private, run: Run, xids: tuple[int, ...]) -> UndoSpec:
    tagged = [(copy.workflow, run), *private.children(ctx, copy, run)]
    refs = [RunRef(actor=ctx.app.workflow(workflow).role, run=each.id) for workflow, each in tagged]
    refs[0] = replace(refs[0], xids=xids)
    return replace(undo_spec(ctx.tables, (), policy="refuse", caps=ctx.app.caps), runs=tuple(refs))
