"""Bring a workflow's definition back to the known-good version and read it back.

The workflow is paused, so what can be read back now is the saved content; that production really runs it is proven
when it is activated again (``resume``): a restored draft is not a live version.
"""

from __future__ import annotations

from typing import Any

from recovery.containment import Say
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.errors import StepFailed
from recovery.plan import Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    workflow = step.params["workflow"]
    wanted = known_good(ctx, plan, workflow)
    saved = ctx.platform.draft_version(wanted.workflow_id)
    already = saved.hash == wanted.hash
    if not already:
        ctx.platform.save(wanted.workflow_id, wanted.definition)
        saved = ctx.platform.draft_version(wanted.workflow_id)
    if saved.hash != wanted.hash:
        raise StepFailed(
            f"workflow {workflow}: published {wanted.hash[:12]} but read back {saved.hash[:12]}; "
            "somebody edits it meanwhile: stop them, then run the recovery again"
        )
    say(f"{workflow} holds version {wanted.hash[:12]} again (read back)")
    return {"workflow": workflow, "version": wanted.hash, "already_there": already}
