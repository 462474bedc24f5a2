"""What a flow calls: one recovery from plan to end, each call standing alone so that any of them can be repeated.

State lives in the ledger: a process that dies between two calls loses nothing but time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from checks.model import Diagnosis
from incidents import record
from ledger.lease import Lease
from recovery import earlier, execute, planning
from recovery.containment import Say, quiet
from recovery.context import AppContext, open_app
from recovery.diagnosed import latest
from recovery.errors import NothingToRecover, Refused
from recovery.offer import undiagnosed
from recovery.plan import Approval, Mode, Plan
from snapshots.model import Policy

LEASE_S = 30.0
HELD: dict[str, Lease] = {}
"""Leases of this process, by app: a step stops when its process has lost the app to another one meanwhile."""
STATES = {Mode.BOTH: "resumed", Mode.LOGIC: "logic-restored", Mode.DATA: "data-restored"}


@contextmanager
def exclusive(catalog: Path, app: str) -> Iterator[None]:
    """One recovery per app: holds the lease, which renews itself, and lets each step of this process ask for it.
    Raises ``ledger.errors.LeaseHeld`` naming the holder."""
    with open_app(catalog, app) as ctx:
        holder = f"recovery by process {os.getpid()} on {socket.gethostname()}"
        with ctx.ledger.lease(ctx.app.key, holder, ttl_s=LEASE_S) as lease:
            HELD[ctx.app.key] = lease
            try:
                yield
            finally:
                del HELD[ctx.app.key]


def plan(
    catalog: Path,
    app: str,
    *,
    incident: str | None,
    mode: str,
    policy: str,
    point: str | None,
    resume: bool = False,
    say: Say = quiet,
) -> str:
    """Make a plan and record it; with ``resume``, find the interrupted one. Returns its recovery id."""
    with open_app(catalog, app) as ctx:
        chosen = incident_of(ctx, incident)
        if resume:
            return interrupted(ctx, chosen)
        made = make(ctx, chosen, mode=mode, policy=policy, point=point, say=say)
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
    """The newest recovery of the incident that has started and not ended. One whose end is recorded but not that of
    its incident was killed just between the two: it goes on, with nothing left to do but that."""
    still_open = record.read(ctx.ledger, incident).closed_at is None
    for entry in reversed(ctx.ledger.entries(incident=incident, kinds=["recovery.started"])):
        if entry.recovery is None:
            continue
        ends = ctx.ledger.entries(recovery=entry.recovery, kinds=["recovery.finished", "recovery.abandoned"])
        if not ends or (still_open and ends[-1].body.get("resumed")):
            return entry.recovery
    raise NothingToRecover(f"incident {incident}: no interrupted recovery; start one with `reinstate recover`")


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
    for entry in reversed(ctx.ledger.entries(recovery=found.recovery_id, kinds=["plan.approved"])):
        given = Approval.model_validate(entry.body)
        if given.covers(found):
            return given
    return None


def approve(catalog: Path, app: str, found: Plan, *, by: str | None, reason: str) -> bool:
    """Record the approval, unless it is there already. False when nobody approved. Identity is unproven."""
    with open_app(catalog, app) as ctx:
        if approval(ctx, found) is not None:
            return True
        if by is None:
            return False
        given = Approval(plan_hash=found.hash, by=by, at=datetime.now(UTC).isoformat(), reason=reason)
        ctx.ledger.append(
            "plan.approved",
            app=found.app,
            incident=found.incident_id,
            recovery=found.recovery_id,
            body=given.model_dump(mode="json"),
        )
        return True


def started(catalog: Path, app: str, found: Plan, *, flow_run: str | None = None) -> None:
    with open_app(catalog, app) as ctx:
        ctx.ledger.append(
            "recovery.started",
            app=found.app,
            incident=found.incident_id,
            recovery=found.recovery_id,
            body={"plan_hash": found.hash, "mode": found.mode, "flow_run": flow_run},
        )


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


def stopped(catalog: Path, app: str, found: Plan, why: str) -> None:
    """Record that a recovery did not get to its end; the app is paused, and the same plan can be continued."""
    with open_app(catalog, app) as ctx:
        ctx.ledger.append(
            "recovery.stopped",
            app=found.app,
            incident=found.incident_id,
            recovery=found.recovery_id,
            body={
                "state": "paused",
                "reason": why.splitlines()[0] if why else "",
                "next": "reinstate recover --continue",
            },
        )


def finished(catalog: Path, app: str, found: Plan) -> dict[str, Any]:
    """Record the end. After one half alone the incident stays open, in a named paused state."""
    state = STATES[found.mode]
    with open_app(catalog, app) as ctx:
        outcomes = ctx.ledger.entries(recovery=found.recovery_id, kinds=["step.outcome"])
        left = sorted({x for e in outcomes for x in e.body.get("detail", {}).get("left_out", [])})
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
                "left_out": left,
            },
        )
        if found.mode is Mode.BOTH:
            reason = "recovered: logic and data agree, suites passed, resumed"
            if left:
                reason += f"; a person must look at the events of {', '.join(left)}, which fail as they did before"
            record.close(ctx.ledger, found.incident_id, reason=reason)
    return {"recovery": found.recovery_id, "plan_hash": found.hash, "state": state, "left_out": left}
