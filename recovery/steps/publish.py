"""Bring a workflow's definition back to the known-good version and read it back.

The workflow is paused, so what can be read back now is the saved content; that production really runs it is proven
when it is activated again (``resume``): a restored draft is not a live version.
"""

from __future__ import annotations

from typing import Any

from incidents import record
from recovery import publishing
from recovery.containment import Say
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.errors import Outcome, PublishFailed
from recovery.plan import Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    workflow = step.params["workflow"]
    wanted = known_good(ctx, plan, workflow)
    done = publishing.publish(
        ctx,
        workflow,
        wanted,
        by="reinstate",
        reason=f"recovery {plan.recovery_id}",
        activate=False,
        incident=plan.incident_id,
        recovery=plan.recovery_id,
        good_before=record.read(ctx.ledger, plan.incident_id).opened_at,
        say=say,
    )
    if done.outcome is not Outcome.SAVED:
        raise PublishFailed(
            f"workflow {workflow}: it is active although it was paused; somebody works on it meanwhile: "
            "stop them, then run the recovery again",
            outcome=done.outcome,
        )
    for trouble in done.troubles:
        say(trouble.sentence)
    say(f"{workflow} holds version {done.version[:12]} again (read back)")
    return {
        "workflow": workflow,
        "version": done.version,
        "already_there": not done.changed,
        "recreated": done.recreated,
        "references": list(done.references),
        "credentials": [t.sentence for t in done.troubles],
    }
