"""Running one step of a plan over the ledger: intent, act, outcome; after a kill, read the world and go on.

Every act is idempotent and looks at the world first (the applied row, the saved definition, the runs a replay already
made), so an intent without an outcome is never assumed done or undone: it is read back by doing it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ledger import steps
from recovery import windows
from recovery.containment import Say
from recovery.context import AppContext
from recovery.errors import Refused, one_line
from recovery.plan import Approval, Plan, Step
from recovery.steps import canary, compensate, contain, data, finish, publish, release, replay, resume, verify

Act = Callable[[AppContext, Plan, Step, Say], dict[str, Any]]

ACTS: Mapping[str, Act] = {
    "contain": contain.act,
    "publish": publish.act,
    "undo": data.undo_act,
    "compensate": compensate.act,
    "replay": replay.act,
    "carry": data.carry_act,
    "verify": verify.act,
    "canary": canary.act,
    "resume": resume.act,
    "watch": resume.watch_act,
    "release": release.act,
    "close": finish.act,
}

PROOFS = frozenset({"verify", "canary", "resume", "watch", "release", "close"})


def run_step(ctx: AppContext, plan: Plan, step: Step, approval: Approval, say: Say) -> dict[str, Any]:
    """Do one step, once. Returns its outcome's detail. Raises what the step raises, after recording it."""
    if not approval.covers(plan):
        raise Refused(
            f"recovery {plan.recovery_id}: the approval is for plan {approval.plan_hash[:12]}, "
            f"this is {plan.hash[:12]}; show the plan and approve it again"
        )
    all_known = steps.state(ctx.ledger, plan.recovery_id)
    in_order(plan, step, all_known)
    known = all_known.get(step.id)
    if known is not None and known.done and not stale(ctx, plan, step, known):
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
        ended(ctx, plan, step, "failed", began, {"error": one_line(error)})
        raise
    if resumed:
        detail = {**detail, "resumed_after_interruption": True}
    ended(ctx, plan, step, "done", began, detail)
    return detail


def in_order(plan: Plan, step: Step, known: Mapping[str, steps.StepState]) -> None:
    """A step comes after all that the plan puts before it. Raises :class:`Refused`."""
    before = [s.id for s in plan.steps[: [s.id for s in plan.steps].index(step.id)]]
    if waiting := [i for i in before if i not in known or not known[i].done]:
        raise Refused(
            f"recovery {plan.recovery_id}: {', '.join(waiting)} must be done before {step.id}; "
            "run `reinstate recover --continue`"
        )


def stale(ctx: AppContext, plan: Plan, step: Step, known: steps.StepState) -> bool:
    """Whether a done step must be done again. What changes rows or definitions never is; a proof is, when the app was
    paused again since, and the pause itself is proven again whenever a recovery goes on that has not resumed."""
    if step.kind == "contain":
        return not windows.open_for_all(ctx, plan.incident_id)
    if step.kind not in PROOFS:
        return False
    paused = ctx.ledger.entries(incident=plan.incident_id, kinds=["contain.proven"])
    return bool(paused) and paused[-1].seq > known.seq


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
