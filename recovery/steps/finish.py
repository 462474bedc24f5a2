"""The last step: private copies are removed, and what was active before is active again, exactly."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from ledger import kinds
from platforms.base import Permanent, Version
from recovery import private
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
    """Remove the private copies that replay and canary use. Opening finds those that a killed process left, also of a
    workflow that got a new id meanwhile."""
    made_again = ctx.ledger.entries(incident=plan.incident_id, kinds=[kinds.WORKFLOW_RECREATED])
    for workflow in sorted({w for step in plan.steps for w in step.params.get("private", ())}):
        good = known_good(ctx, plan, workflow)
        earlier = {str(e.body["previous_id"]) for e in made_again if e.body["workflow"] == workflow}
        for platform_id in sorted(earlier - {good.workflow_id}):
            with suppress(Permanent):  # no copy of it is left, and a new one cannot be made
                close(ctx, replace(good, workflow_id=platform_id))
        private.closed(ctx, private.of_plan(ctx, plan, workflow))


def close(ctx: AppContext, version: Version) -> None:
    ctx.platform.close_private_entry(ctx.platform.open_private_entry(version))
