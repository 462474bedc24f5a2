"""Known-good definitions: from the recovery point that holds them, else from the platform's own history."""

from __future__ import annotations

from platforms.base import Version
from recovery.context import AppContext
from recovery.errors import Refused
from recovery.plan import Plan
from snapshots import points


def known_good(ctx: AppContext, plan: Plan, workflow: str) -> Version:
    """The version the plan publishes for ``workflow``; for one it does not publish, what is saved now."""
    platform_id = ctx.infos()[workflow].id
    wanted = next((p for p in plan.publications if p.workflow == workflow), None)
    if wanted is None:
        return ctx.platform.draft_version(platform_id)
    if plan.point_id is not None:
        point = points.load(ctx.store, plan.app, plan.point_id)
        for state in point.workflows:
            if state.workflow == workflow and state.version_hash == wanted.to_version:
                return Version(workflow_id=platform_id, hash=state.version_hash, definition=state.definition)
    for version in ctx.platform.versions(platform_id):
        if version.hash == wanted.to_version:
            return version
    raise Refused(
        f"workflow {workflow}: version {wanted.to_version[:12]} is neither in point {plan.point_id} nor in the "
        "platform's history; choose another point with `reinstate points`"
    )
