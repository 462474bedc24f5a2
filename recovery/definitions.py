"""Known-good definitions: from the recovery point that holds them, else from the platform's own history."""

from __future__ import annotations

from platforms.base import Version
from recovery.context import AppContext
from recovery.errors import Refused
from recovery.plan import Plan
from snapshots.points import points


def known_good(ctx: AppContext, plan: Plan, workflow: str) -> Version:
    """The version the plan holds good for ``workflow``; for one it says nothing about, what is saved now."""
    wanted = plan.good_versions.get(workflow)
    wanted = next((p.to_version for p in plan.publications if p.workflow == workflow), wanted)
    if wanted is None:
        return ctx.platform.draft_version(ctx.infos()[workflow].id)
    return find(ctx, workflow, wanted, plan.point_id)


def find(ctx: AppContext, workflow: str, version_hash: str, point_id: str | None) -> Version:
    """One version's definition: from the point, from what is saved, from the platform's history.
    Raises :class:`Refused` when none of them has it."""
    platform_id = ctx.infos()[workflow].id
    if point_id is not None:
        point = points.load(ctx.store, ctx.app.key, point_id)
        for state in point.workflows:
            if state.workflow == workflow and state.version_hash == version_hash:
                return Version(workflow_id=platform_id, hash=state.version_hash, definition=state.definition)
    saved = ctx.platform.draft_version(platform_id)
    if saved.hash == version_hash:
        return saved
    for version in ctx.platform.versions(platform_id):
        if version.hash == version_hash:
            return version
    raise Refused(
        f"workflow {workflow}: version {version_hash[:12]} is neither in point {point_id} nor in the platform's "
        "history; choose another point with `reinstate points`"
    )
