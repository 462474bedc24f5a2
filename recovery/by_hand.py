"""What a person did about a compensation: taken back by hand, or found not needed. Recorded, so that a recovery goes on
from there and never does it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from catalog.errors import CatalogError
from incidents import record
from ledger import kinds
from recovery import compensated, delivery
from recovery.compensated import StepRecord
from recovery.compensating import key
from recovery.context import AppContext
from recovery.errors import Refused
from recovery.plan import Compensation, Plan

LEASE_S = 60.0
Status = Literal["done", "not-needed"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One step of one run: what the newest plan says about it, and what is on record."""

    workflow: str
    run: str
    step: str
    item: int | None
    planned: str
    """``do``, ``manual``, ``settled``, or nothing where no plan names it."""
    status: str
    """``waiting`` until something is on record."""
    attempts: int = 0
    seconds: float | None = None
    error: str = ""
    manual: str | None = None
    by: str | None = None

    @property
    def open(self) -> bool:
        """Whether somebody has to look."""
        return self.status in ("failed", "unknown", "manual", "begun")


def listing(ctx: AppContext, incident: str, plan: Plan | None) -> list[Line]:
    """Every compensation of the incident, in the order in which the plan does them; then those no plan names."""
    past = compensated.known(ctx, incident=incident)
    planned = {(c.workflow, c.run_id, c.step, c.item): c for c in plan.compensations} if plan else {}
    lines = []
    for step in [*planned, *(s for s in past if s not in planned)]:
        one = planned.get(step)
        known = compensated.of(past, one) if one else past[step]
        workflow, run, name, item = step
        lines.append(
            Line(
                workflow=workflow,
                run=run,
                step=name,
                item=item,
                planned=one.action if one else "",
                status=status_of(known, one.action if one else ""),
                attempts=known.attempts if known else 0,
                seconds=known.seconds if known else None,
                error=(known.error if known else "") or why(one),
                manual=(known.manual if known else None) or (one.manual if one else None),
                by=known.by if known else None,
            )
        )
    return lines


def why(one: Compensation | None) -> str:
    """What the plan says of it."""
    irreversible = one is not None and one.inverse == "irreversible" and one.action == "manual"
    return (one.why if one else "") or ("it cannot be taken back" if irreversible else "")


def status_of(past: StepRecord | None, action: str) -> str:
    if past is None:
        return {"manual": "manual", "settled": "done"}.get(action, "waiting")
    return "begun" if past.open else str(past.status)


def settle(
    ctx: AppContext,
    incident: str,
    *,
    workflow: str,
    run: str,
    step: str,
    item: int | None = None,
    status: Status,
    by: str,
    reason: str,
) -> None:
    """Record that a person took the step of the run back, or found that there was nothing to take back.

    Raises ``CatalogError`` for a name the catalogue does not have, :class:`Refused` when it was taken back already,
    and ``LeaseHeld`` while a recovery of the app is at work: it may be about to do the same."""
    declared = {w.key: [s.name for s in w.steps if s.inverse != "reversible"] for w in ctx.app.workflows}
    if workflow not in declared:
        raise CatalogError(f"workflow {workflow}: not in the catalogue; it has {', '.join(sorted(declared))}")
    if step not in declared[workflow]:
        names = ", ".join(map(repr, declared[workflow])) or "none but steps that an undo takes back"
        raise CatalogError(f"step {step!r} of {workflow}: not in the catalogue, which has {names}; correct the name")
    record.read(ctx.ledger, incident)
    with ctx.ledger.lease(ctx.app.key, f"settling a compensation as {by}", LEASE_S) as lease:
        past = compensated.known(ctx).get((workflow, run, step, item))
        if past is not None and past.taken_back:
            raise Refused(
                f"step {step!r} of run {run} of {workflow}: it was {past.sentence} already; nothing to record"
            )
        named = {"workflow": workflow, "run": run, "step_name": step, "key": key(incident, workflow, run, step, item)}
        body = {**named, "status": status, "by": by, "reason": reason, **({} if item is None else {"item": item})}
        ctx.ledger.append(
            kinds.COMPENSATION_ENDED,
            app=ctx.app.key,
            incident=incident,
            recovery=past.recovery if past else None,
            body=body,
            lease=lease,
        )
        settle_event(ctx, past, by=by, reason=reason)


def settle_event(ctx: AppContext, past: StepRecord | None, *, by: str, reason: str) -> None:
    """A workflow run that did the inverse, and is unknown, is no longer anybody's question."""
    for entry in delivery.unknown(ctx):
        if past is not None and entry.body.get("event") == past.key:
            body = {"workflow": entry.body["workflow"], "event": past.key, "by": by, "reason": reason, "done": True}
            ctx.ledger.append(
                kinds.EVENT_SETTLED, app=ctx.app.key, incident=entry.incident, recovery=entry.recovery, body=body
            )
