"""The first step: the pause still holds. Proves it again, or makes it when an operator starts a recovery himself."""

from __future__ import annotations

from typing import Any

from recovery.containment import Say
from recovery.containment import contain as contain_workflows
from recovery.context import AppContext
from recovery.earlier import changed_rows
from recovery.errors import StepFailed
from recovery.plan import Mode, Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:  # noqa: ARG001 - one signature for all acts
    contained = contain_workflows(ctx, plan.contained, incident=plan.incident_id, say=say)
    if contained.stopped_runs and plan.mode is not Mode.LOGIC and not changed_rows(ctx, plan.recovery_id):
        raise StepFailed(
            f"recovery {plan.recovery_id}: run {contained.stopped_runs[0]} was in flight, so the plan does not know "
            "what it wrote; it is stopped: run `reinstate recover` for a new plan"
        )
    wider = sorted(set(contained.workflows) - set(plan.contained))
    if wider and not changed_rows(ctx, plan.recovery_id):
        raise StepFailed(
            f"recovery {plan.recovery_id}: {', '.join(wider)} were paused with the incident after the plan was made, "
            "and it would leave them so: run `reinstate recover` for a new plan"
        )
    return {"workflows": list(contained.workflows), "stopped_runs": list(contained.stopped_runs)}
