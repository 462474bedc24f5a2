"""After the resume: the events that came during the pause are sent, in order, once each, no faster than allowed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ingress.model import Event
from recovery import held
from recovery.containment import Say
from recovery.context import AppContext
from recovery.plan import Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:  # noqa: ARG001 - one signature for all acts
    """Release what was held for the workflows that were active before. What was replayed is not sent again. What
    the pause had dropped when the plan was made may be sent: whatever it had written by then was undone."""
    made_at = datetime.fromisoformat(plan.made_at)

    def dropped(event: Event) -> bool:
        if ctx.events is None or event.retry_of is None:
            return False
        at = ctx.events.event(event.retry_of).answered_at
        return at is not None and at < made_at

    done = held.release(
        ctx,
        plan.active_before,
        incident=plan.incident_id,
        recovery=plan.recovery_id,
        dropped=dropped,
        say=say,
    )
    return {
        "sent": done.sent,
        "repeated": done.repeated,
        "failed": done.failed,
        "unknown": done.unknown,
        "by_workflow": done.by_workflow,
    }
