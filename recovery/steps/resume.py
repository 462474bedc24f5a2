"""Staged resume as steps of a plan; see :mod:`recovery.resuming`."""

from __future__ import annotations

from typing import Any

from recovery import resuming
from recovery.containment import Say
from recovery.context import AppContext
from recovery.plan import Plan, Step
from snapshots import position


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    """Resume one stage."""
    what = resuming.of_plan(ctx, plan)
    back = resuming.stage(ctx, what, step.params["workflows"], step.params["watch_s"], say)
    body = {"stage": step.params["stage"], "workflows": back, "ok": True}
    ctx.ledger.append(
        "resume.stage", app=plan.app, incident=plan.incident_id, recovery=plan.recovery_id, step=step.id, body=body
    )
    return body


def watch_act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    """Watch the detectors over live traffic once everything is back."""
    with ctx.connect("recoverer", "watch") as connection:
        since = position.current(connection)
    findings = resuming.watch(ctx, resuming.of_plan(ctx, plan), since, step.params["watch_s"], say)
    return {"seconds": step.params["watch_s"], "warnings": [f.message for f in findings]}
