"""Running one step of a plan over the ledger: intent, act, outcome; after a kill, read the world and go on.

Every act is idempotent and looks at the world first (the applied row, the saved definition, the runs a replay already
made), so an intent without an outcome is never assumed done or undone: it is read back by doing it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ledger import steps
from recovery.containment import Say
from recovery.context import AppContext
from recovery.errors import Refused
from recovery.plan import Approval, Plan, Step
from recovery.steps import canary, contain, data, finish, publish, replay, resume, verify

Act = Callable[[AppContext, Plan, Step, Say], dict[str, Any]]

ACTS: Mapping[str, Act] = {
    "contain": contain.act,
    "publish": publish.act,
    "undo": data.undo_act,
    "replay": replay.act,
    "carry": data.carry_act,
    "verify": verify.act,
    "canary": canary.act,
    "resume": resume.act,
    "watch": resume.watch_act,
    "close": finish.act,
}


def run_step(ctx: AppContext, plan: Plan, step: Step, approval: Approval, say: Say) -> dict[str, Any]:
    """Do one step, once. Returns its outcome's detail. Raises what the step raises, after recording it."""
    if not approval.covers(plan):
        raise Refused(
            f"recovery {plan.recovery_id}: the approval is for plan {approval.plan_hash[:12]}, "
            f"this is {plan.hash[:12]}; show the plan and approve it again"
        )
    known = steps.state(ctx.ledger, plan.recovery_id).get(step.id)
    if known is not None and known.done:
        say(f"{step.title}: already done")
        return dict(known.body.get("detail", {}))
    resumed = known is not None and not known.finished
    steps.intent(
        ctx.ledger,
        plan.recovery_id,
        step.id,
        app=plan.app,
        incident=plan.incident_id,
        body={"kind": step.kind, "title": step.title, "plan_hash": plan.hash},
    )
    say(step.title)
    began = time.monotonic()
    try:
        detail = ACTS[step.kind](ctx, plan, step, say)
    except Exception as error:
        ended(ctx, plan, step, "failed", began, {"error": str(error)})
        raise
    if resumed:
        detail = {**detail, "resumed_after_interruption": True}
    ended(ctx, plan, step, "done", began, detail)
    return detail


def ended(ctx: AppContext, plan: Plan, step: Step, status: steps.Status, began: float, detail: dict[str, Any]) -> None:
    """Record how a step ended. A process that dies just before leaves an intent: the next run looks at the world."""
    steps.outcome(
        ctx.ledger,
        plan.recovery_id,
        step.id,
        app=plan.app,
        incident=plan.incident_id,
        status=status,
        body={"seconds": round(time.monotonic() - began, 3), "detail": detail},
    )
