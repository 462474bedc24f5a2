"""Known-good definitions: from the recovery point that holds them, from what is saved, from our own history, else from
the platform's. Each with its calls as they must be now: a workflow they name may have got a new id since."""

from __future__ import annotations

from dataclasses import replace

from platforms.base import Permanent, Version
from recovery import following, history
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
    """One version's definition, also of a workflow that is gone (under the id it had, then). Its hash is another one
    where a call had to follow a workflow to its new id. Raises :class:`Refused` when nobody has it."""
    infos = ctx.platform.workflows()
    info = history.present(ctx, workflow, infos)
    last = history.newest(ctx, workflow)
    platform_id = info.id if info is not None else last.platform_id if last is not None else ""
    found = _of_point(ctx, workflow, version_hash, point_id)
    if found is None and info is not None:
        saved = ctx.platform.draft_version(info.id)
        found = saved if saved.hash == version_hash else None
    if found is None:
        found = history.load(ctx, version_hash, workflow=workflow)
    if found is None and info is not None:
        found = next((v for v in ctx.platform.versions(info.id) if v.hash == version_hash), None)
    if found is None:
        raise Refused(
            f"workflow {workflow}: version {version_hash[:12]} is neither in point {point_id} nor in our own history "
            "or the platform's; choose another point with `reinstate points`"
        )
    return following.followed(ctx, replace(found, workflow_id=platform_id))


def expected(ctx: AppContext, workflow: str, version_hash: str) -> str:
    """The hash under which ``version_hash`` reads back now: another one where its calls had to follow a new id."""
    ids = following.stale(ctx)
    if not ids:
        return version_hash
    try:
        return find(ctx, workflow, version_hash, None).hash
    except (Refused, Permanent):
        return version_hash


def _of_point(ctx: AppContext, workflow: str, version_hash: str, point_id: str | None) -> Version | None:
    if point_id is None:
        return None
    for state in points.load(ctx.store, ctx.app.key, point_id).workflows:
        if (state.workflow, state.version_hash) == (workflow, version_hash):
            return Version(workflow_id=state.platform_id, hash=state.version_hash, definition=state.definition)
    return None
