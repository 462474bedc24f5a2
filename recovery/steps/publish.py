"""Bring a workflow's definition back to the known-good version and read it back.

The workflow is paused, so what can be read back now is the saved content; that production really runs it is proven
when it is activated again (``resume``): a restored draft is not a live version.
"""

from __future__ import annotations

from typing import Any

from platforms.base import Version
from platforms.canonical import settings_hash
from recovery.containment import Say
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.errors import StepFailed
from recovery.plan import Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    workflow = step.params["workflow"]
    wanted = known_good(ctx, plan, workflow)
    saved = ctx.platform.draft_version(wanted.workflow_id)
    already = same(saved, wanted)
    if not already:
        ctx.platform.save(wanted.workflow_id, wanted.definition)
        saved = ctx.platform.draft_version(wanted.workflow_id)
    if not same(saved, wanted):
        raise StepFailed(
            f"workflow {workflow}: published {wanted.hash[:12]} but read back {saved.hash[:12]}; "
            "somebody edits it meanwhile: stop them, then run the recovery again"
        )
    say(f"{workflow} holds version {wanted.hash[:12]} again (read back)")
    return {"workflow": workflow, "version": wanted.hash, "already_there": already}


def same(saved: Version, wanted: Version) -> bool:
    """Content and settings alike; platforms may keep settings apart from versions, so they are compared apart."""
    return saved.hash == wanted.hash and saved.settings_hash in ("", settings_hash(wanted.definition))
