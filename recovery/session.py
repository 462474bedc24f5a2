"""What a flow calls: one recovery from plan to end, each call standing alone so that any of them can be repeated.

State lives in the ledger: a process that dies between two calls loses nothing but time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from checks.model import Diagnosis
from incidents import record
from ledger import kinds
from ledger.errors import LeaseHeld
from ledger.lease import Lease
from recovery import approvals, autonomy, earlier, execute, planning, requests
from recovery.containment import Say, quiet
from recovery.context import AppContext, open_app
from recovery.diagnosed import latest
from recovery.errors import NothingToRecover, Refused, Superseded, one_line
from recovery.leftover import Shown
from recovery.offer import undiagnosed
from recovery.plan import Approval, Mode, Plan
from recovery.retry import heals
from snapshots.errors import SnapshotError
from snapshots.model import Policy

LEASE_S = 30.0
POLL_S = 0.5
HELD: dict[str, Lease] = {}
"""Leases of this process, by app: a step stops when its process has lost the app to another one meanwhile."""
STATES = {Mode.BOTH: "resumed", Mode.LOGIC: "logic-restored", Mode.DATA: "data-restored"}


@contextmanager
def exclusive(catalog: Path, app: str, *, patience_s: float = 0.0, say: Say = quiet) -> Iterator[None]:
    """One recovery per app: holds the lease, which renews itself, and lets each step of this process ask for it.
    Waits up to ``patience_s`` seconds for who holds it now. Raises ``ledger.errors.LeaseHeld`` naming the holder."""
    with open_app(catalog, app) as ctx:
        holder = f"recovery by process {os.getpid()} on {socket.gethostname()}"
        with patiently(ctx, holder, patience_s, say) as lease:
            HELD[ctx.app.key] = lease
            try:
                yield
            finally:
                del HELD[ctx.app.key]


def patiently(ctx: AppContext, holder: str, patience_s: float, say: Say) -> Lease:
    """The app's lease, as soon as it is free."""
    deadline = time.monotonic() + patience_s
    told = False
    while True:
        try:
            return ctx.ledger.lease(ctx.app.key, holder, ttl_s=LEASE_S)
        except LeaseHeld as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                say(f"waiting: {error}")
                told = True
        time.sleep(POLL_S)


def ask(
    catalog: Path, app: str, *, flow_run: str, trigger: str, mode: str, incident: str | None, recovery: str | None
) -> requests.Request:
    """See :func:`recovery.requests.ask`."""
    with open_app(catalog, app) as ctx:
        return requests.ask(ctx, flow_run=flow_run, trigger=trigger, mode=mode, incident=incident, recovery=recovery)


def plan(
    catalog: Path,
    app: str,
    *,
    incident: str | None,
    mode: str,
    policy: str,
    point: str | None,
    say: Say = quiet,
) -> str:
    """Make a plan and record it. Returns its recovery id. That no plan may be made is recorded too, with the reason,
    and raised."""
    with open_app(catalog, app) as ctx:
        chosen = incident_of(ctx, incident)
        try:
            made = make(ctx, chosen, mode=mode, policy=policy, point=point, say=say)
        except (Refused, SnapshotError) as error:
            # Nobody may be looking: what started by itself must not end in silence.
            body = {"mode": mode, "reason": one_line(error)}
            ctx.ledger.append(kinds.PLAN_REFUSED, app=ctx.app.key, incident=chosen, body=body)
            raise
        record_plan(ctx, made)
        return made.recovery_id


def record_plan(ctx: AppContext, made: Plan) -> None:
    """Into the ledger, with its hash: what is shown, approved and executed is this record. It takes the place of
    recoveries of the incident that stopped before they changed a row."""
    for old in earlier.replaceable(ctx, made.incident_id):
        over = {"by": "reinstate", "reason": f"planned again as {made.recovery_id}"}
        ctx.ledger.append("recovery.abandoned", app=made.app, incident=made.incident_id, recovery=old, body=over)
    body = {**made.model_dump(mode="json"), "hash": made.hash, "objectives": objectives(ctx)}
    ctx.ledger.append("plan.made", app=made.app, incident=made.incident_id, recovery=made.recovery_id, body=body)


def record_approved(ctx: AppContext, made: Plan, *, by: str, reason: str) -> None:
    """A plan whose approval was given before it is on record: by who saw it at the command line, or asked not to."""
    record_plan(ctx, made)
    approvals.approve(ctx, made, plan_hash=made.hash, by=by, reason=reason)


def make(ctx: AppContext, incident: str, *, mode: str, policy: str, point: str | None, say: Say = quiet) -> Plan:
    """A plan from the incident's latest diagnosis; recorded nowhere (``reinstate plan`` is a dry run)."""
    try:
        diagnosis: Diagnosis = latest(ctx, incident)
    except Refused as error:
        raise undiagnosed(ctx, str(error)) from None
    return planning.make_plan(ctx, incident, diagnosis, mode=Mode(mode), policy=Policy(policy), point_id=point, say=say)


def objectives(ctx: AppContext) -> dict[str, int]:
    return {"rto_s": ctx.app.objectives.rto_s, "rpo_s": ctx.app.objectives.rpo_s}


def incident_of(ctx: AppContext, incident: str | None) -> str:
    """The named incident, or the open one. Raises ``UnknownIncident`` or :class:`NothingToRecover`."""
    if incident is not None:
        named = record.read(ctx.ledger, incident)
        if named.closed_at is not None:
            raise NothingToRecover(
                f"incident {incident}: closed at {named.closed_at:%Y-%m-%d %H:%M:%S} UTC; see `reinstate timeline`"
            )
        return named.id
    found = record.find_open(ctx.ledger, ctx.app.key)
    if found is None:
        raise NothingToRecover(f"app {ctx.app.key}: no open incident; see `reinstate status`")
    return found.id


def interrupted(ctx: AppContext, incident: str) -> str:
    """The newest recovery of the incident that has started and not ended; else its newest plan when that is approved
    and nobody has run it yet. One whose end is recorded but not that of its incident was killed just between the two:
    it goes on, with nothing left to do but that."""
    still_open = record.read(ctx.ledger, incident).closed_at is None
    for entry in reversed(ctx.ledger.entries(incident=incident, kinds=["recovery.started"])):
        if entry.recovery is None:
            continue
        ends = ctx.ledger.entries(recovery=entry.recovery, kinds=["recovery.finished", "recovery.abandoned"])
        if not ends or (still_open and ends[-1].body.get("resumed")):
            return entry.recovery
    made = ctx.ledger.entries(incident=incident, kinds=["plan.made"])
    if made and made[-1].recovery is not None and not over(ctx, made[-1].recovery):
        newest = load_plan(ctx, made[-1].recovery)
        if approvals.of(ctx, newest).verdict is approvals.Verdict.APPROVED:
            return newest.recovery_id
    raise NothingToRecover(f"incident {incident}: no interrupted recovery; start one with `reinstate recover`")


def over(ctx: AppContext, recovery: str) -> bool:
    """Whether an end of the recovery is on record."""
    return bool(ctx.ledger.entries(recovery=recovery, kinds=["recovery.finished", "recovery.abandoned"]))


def load_plan(ctx: AppContext, recovery: str) -> Plan:
    """The recorded plan, its hash checked against the record."""
    entries = ctx.ledger.entries(recovery=recovery, kinds=["plan.made"])
    if not entries:
        raise NothingToRecover(f"recovery {recovery}: no plan in the ledger; make one with `reinstate plan`")
    body = dict(entries[-1].body)
    recorded = body.pop("hash")
    body.pop("objectives", None)
    found = Plan.model_validate(body)
    if found.hash != recorded:
        raise Refused(f"recovery {recovery}: the recorded plan does not have the recorded hash; verify the ledger")
    return found


def load(catalog: Path, app: str, recovery: str) -> Plan:
    with open_app(catalog, app) as ctx:
        return load_plan(ctx, recovery)


def approval(ctx: AppContext, found: Plan) -> Approval | None:
    """The recorded approval of exactly this plan."""
    return approvals.approval(ctx, found)


def approve(catalog: Path, app: str, found: Plan, *, by: str | None, reason: str, plan_hash: str | None = None) -> bool:
    """Record the approval of the plan of that hash (this one by default), unless it is there already. False when
    nobody approved. Raises what :func:`recovery.approvals.approve` raises."""
    with open_app(catalog, app) as ctx:
        if by is None:
            return approvals.approval(ctx, found) is not None
        approvals.approve(ctx, found, plan_hash=found.hash if plan_hash is None else plan_hash, by=by, reason=reason)
        return True


def reject(catalog: Path, app: str, found: Plan, *, by: str, reason: str, plan_hash: str | None = None) -> None:
    """Record a no; see :func:`recovery.approvals.reject`."""
    with open_app(catalog, app) as ctx:
        approvals.reject(ctx, found, plan_hash=found.hash if plan_hash is None else plan_hash, by=by, reason=reason)


def by_itself(catalog: Path, app: str, found: Plan, trigger: str) -> autonomy.Decision:
    """Whether the catalogue lets what started by itself approve its own plan; then that is recorded. Once a plan was
    shown, a person decides."""
    with open_app(catalog, app) as ctx:
        if approvals.of(ctx, found).flow_run is not None:
            return autonomy.Decision(approved=False, why="it was shown already: a person decides")
        decision = autonomy.of(ctx, found, trigger)
        if decision.approved:
            approvals.approve(ctx, found, plan_hash=found.hash, by=autonomy.APPROVER, reason=decision.why)
        return decision


def show(catalog: Path, app: str, found: Plan, *, flow_run: str) -> tuple[Shown, list[Shown]]:
    """Put the plan before people, for as long as the catalogue says. Returns what was shown, and what other flow
    runs show of the same incident that this plan takes the place of."""
    with open_app(catalog, app) as ctx:
        shown = approvals.show(ctx, found, flow_run=flow_run, expires_s=ctx.app.approvals.expires_s)
        return shown, approvals.outdated(ctx, found)


def standing(catalog: Path, app: str, found: Plan) -> approvals.Standing:
    """Where the decision about a plan stands."""
    with open_app(catalog, app) as ctx:
        return approvals.of(ctx, found)


def expire(catalog: Path, app: str, found: Plan) -> None:
    """Record that the plan's time is over, unless it was decided or there is time left."""
    with open_app(catalog, app) as ctx:
        stands = approvals.of(ctx, found)
        shown = Shown(
            recovery=found.recovery_id,
            incident=found.incident_id,
            plan_hash=found.hash,
            flow_run=stands.flow_run,
            expires_at=stands.expires_at,
        )
        approvals.expire(ctx, shown)


def expires_s(catalog: Path, app: str) -> int:
    """How long a plan that was shown may be approved."""
    with open_app(catalog, app) as ctx:
        return ctx.app.approvals.expires_s


def started(catalog: Path, app: str, found: Plan, *, flow_run: str | None = None) -> None:
    """Record that its steps begin, or go on. Raises :class:`Superseded` for a recovery that another plan replaced or
    a relapse ended."""
    with open_app(catalog, app) as ctx:
        refuse_replaced(ctx, found)
        ctx.ledger.append(
            "recovery.started",
            app=found.app,
            incident=found.incident_id,
            recovery=found.recovery_id,
            body={"plan_hash": found.hash, "mode": found.mode, "flow_run": flow_run},
        )


def refuse_replaced(ctx: AppContext, found: Plan) -> None:
    """What was approved may be old news by the time it runs."""
    again = "start `recover` again to make and show a new plan"
    given_up = ctx.ledger.entries(recovery=found.recovery_id, kinds=["plan.made", "recovery.abandoned"])
    if given_up and given_up[-1].kind == "recovery.abandoned":
        why = given_up[-1].body.get("reason", "no reason recorded")
        raise Superseded(f"recovery {found.recovery_id}: it was given up ({why}); {again}")
    newest = ctx.ledger.entries(incident=found.incident_id, kinds=["plan.made"])
    if newest and newest[-1].body.get("hash") != found.hash:
        raise Superseded(
            f"recovery {found.recovery_id}: {newest[-1].recovery} with plan {str(newest[-1].body.get('hash'))[:12]} "
            f"took its place; decide about that one, or {again}"
        )


def ended(catalog: Path, app: str, found: Plan) -> dict[str, Any] | None:
    """The result of a recovery that has reached its end already, as :func:`finished` gave it."""
    with open_app(catalog, app) as ctx:
        ends = ctx.ledger.entries(recovery=found.recovery_id, kinds=["recovery.finished"])
        still_open = record.read(ctx.ledger, found.incident_id).closed_at is None
    if not ends or (still_open and ends[-1].body.get("resumed")):
        return None
    return result_of(found, ends[-1].body)


FOR_A_PERSON: Final = {
    "left_out": "a person must look at the events of {}, which fail as they did before",
    "unknown": "a person must look whether these events ran: {}",
    "by_hand": "a person must take back by hand: {}",
}
"""What steps leave to somebody, by the field of their outcome, in words."""


def result_of(found: Plan, left: Mapping[str, Any]) -> dict[str, Any]:
    """What a recovery returns at its end, with what is left to a person (:data:`FOR_A_PERSON`)."""
    return {
        "recovery": found.recovery_id,
        "plan_hash": found.hash,
        "state": STATES[found.mode],
        **{name: list(left.get(name, [])) for name in FOR_A_PERSON},
    }


def step(catalog: Path, app: str, recovery: str, step_id: str, *, say: Say = quiet) -> dict[str, Any]:
    """Run one step of a recorded, approved plan."""
    with open_app(catalog, app) as ctx:
        found = load_plan(ctx, recovery)
        given = approval(ctx, found)
        if given is None:
            raise Refused(f"recovery {recovery}: its plan is not approved; see `reinstate plan`")
        chosen = next((s for s in found.steps if s.id == step_id), None)
        if chosen is None:
            raise Refused(f"recovery {recovery}: its plan has no step {step_id}; see `reinstate timeline`")
        if (lease := HELD.get(ctx.app.key)) is not None:
            lease.check()
        return execute.run_step(ctx, found, chosen, given, say)


def stopped(catalog: Path, app: str, found: Plan, why: str, *, error: BaseException | None = None) -> None:
    """Record that a recovery did not get to its end; the app is paused, and the same plan can be continued. ``error``
    tells whether that happens without a person, once what surrounds the recovery is back."""
    with open_app(catalog, app) as ctx:
        body = {
            "state": getattr(error, "state", "paused"),
            "reason": why.splitlines()[0] if why else "",
            "next": "reinstate recover --continue",
        }
        ctx.ledger.append(
            "recovery.stopped",
            app=found.app,
            incident=found.incident_id,
            recovery=found.recovery_id,
            body={**body, "heals": True} if error is not None and heals(error) else body,
        )


def cancelled(catalog: Path, app: str, *, flow_run: str) -> None:
    """A person cancelled this flow run: what it had started is not continued without a person."""
    with open_app(catalog, app) as ctx:
        begun = ctx.ledger.entries(app=ctx.app.key, kinds=["recovery.started"])
        mine = [e for e in begun if e.body.get("flow_run") == flow_run and e.recovery is not None]
        if mine and not over(ctx, str(mine[-1].recovery)):
            stopped(catalog, app, load_plan(ctx, str(mine[-1].recovery)), "the run was cancelled by a person")


def finished(catalog: Path, app: str, found: Plan) -> dict[str, Any]:
    """Record the end. After one half alone the incident stays open, in a named paused state."""
    state = STATES[found.mode]
    with open_app(catalog, app) as ctx:
        outcomes = ctx.ledger.entries(recovery=found.recovery_id, kinds=["step.outcome"])
        left = {
            name: sorted({x for e in outcomes for x in e.body.get("detail", {}).get(name, [])}) for name in FOR_A_PERSON
        }
        ctx.ledger.append(
            "recovery.finished",
            app=found.app,
            incident=found.incident_id,
            recovery=found.recovery_id,
            body={
                "plan_hash": found.hash,
                "mode": found.mode,
                "state": state,
                "resumed": found.mode is Mode.BOTH,
                **left,
            },
        )
        if found.mode is Mode.BOTH:
            reason = "recovered: logic and data agree, suites passed, resumed"
            for name, said in FOR_A_PERSON.items():
                reason += f"; {said.format('; '.join(left[name]))}" if left[name] else ""
            record.close(ctx.ledger, found.incident_id, reason=reason)
    return result_of(found, left)
