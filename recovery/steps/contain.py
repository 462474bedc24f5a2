"""The first step: the pause still holds. Proves it again, or makes it when an operator starts a recovery himself."""

from __future__ import annotations

from typing import Any

from recovery.containment import Say
from recovery.containment import contain as contain_workflows
from recovery.context import AppContext
from recovery.plan import Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:  # noqa: ARG001 - one signature for all acts
    contained = contain_workflows(ctx, plan.contained, incident=plan.incident_id, say=say)
    return {"workflows": list(contained.workflows), "stopped_runs": list(contained.stopped_runs)}
