"""The last step: private copies are removed, and what was active before is active again, exactly."""

from __future__ import annotations

from typing import Any

from recovery.containment import Say
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.errors import StepFailed
from recovery.plan import Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    close_private(ctx, plan)
    infos = ctx.infos()
    active = sorted(k for k in plan.contained if infos[k].active)
    expected = sorted(plan.active_before) if step.params["resumed"] else []
    if active != expected:
        raise StepFailed(
            f"app {plan.app}: active are {active or 'none'}, expected {expected or 'none'}; "
            "someone changed it meanwhile: correct it in the platform"
        )
    say("private copies removed; " + ("the earlier active set is back" if step.params["resumed"] else "still paused"))
    return {"active": active}


def close_private(ctx: AppContext, plan: Plan) -> None:
    """Remove the private copies that replay and canary use. Opening finds those that a killed process left."""
    for step in plan.steps:
        for workflow in step.params.get("private", ()):
            ctx.platform.close_private_entry(ctx.platform.open_private_entry(known_good(ctx, plan, workflow)))
