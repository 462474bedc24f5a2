"""Calls that follow a workflow which got a new id: it was deleted and made again where the platform gives ids itself.

The history knows the ids a workflow had. A definition that still names one that the platform no longer has is changed
in exactly those places: an id is a text of its own (or one in a list with commas), whatever vendor's JSON it stands in.
Outlines then tell whether every call arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from platforms.base import Definition, Platform, Version, WorkflowInfo
from recovery import history
from recovery.errors import Outcome, PublishFailed

if TYPE_CHECKING:
    from recovery.context import AppContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """``workflows``: keys of the app's workflows that were changed; ``foreign``: names of others that still call an id
    that is gone, which are not ours to change."""

    workflows: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


def stale(ctx: AppContext, infos: Sequence[WorkflowInfo] | None = None) -> dict[str, str]:
    """Ids that workflows of the app had and the platform no longer knows, with the ids they have now."""
    listed = ctx.platform.workflows() if infos is None else infos
    ids = {i.id for i in listed}
    found: dict[str, str] = {}
    for workflow in ctx.app.workflows:
        had = {s.platform_id for s in history.listing(ctx, workflow.key)}
        now = history.present(ctx, workflow.key, listed)
        if now is not None:
            found |= {old: now.id for old in had if old not in ids}
    return found


def followed(ctx: AppContext, version: Version) -> Version:
    """``version`` with its calls as they must be now: itself, unless a workflow it names got a new id."""
    return pointed(ctx.platform, version, stale(ctx))


def pointed(platform: Platform, version: Version, ids: Mapping[str, str]) -> Version:
    """``version`` with each of ``ids`` (old to new) in its new form: itself, unless it names one. Raises what
    :func:`repointed` raises."""
    if not names(version.definition, ids):
        return version
    definition = repointed(platform, version.definition, ids)
    content, settings = platform.hashes(definition)
    return replace(version, definition=definition, hash=content, settings_hash=settings, platform_version=None)


def follow(ctx: AppContext, *, say: Callable[[str], None] = lambda _: None) -> Followed:
    """Change every workflow of the app that names an id which is gone, what is live and what is saved each by itself.
    Idempotent. Raises :class:`PublishFailed` when a change does not read back, and ``PlatformError``."""
    infos = ctx.platform.workflows()
    ids = stale(ctx, infos)
    if not ids:
        return Followed()
    own = {i.id: w.key for w in ctx.app.workflows if (i := history.present(ctx, w.key, infos)) is not None}
    changed, foreign = [], []
    for info in infos:
        if info.id not in own:
            if names(ctx.platform.draft_version(info.id).definition, ids):
                foreign.append(info.name)
                say(
                    f"workflow {info.name!r} is none of the app's and still calls an id that is gone: change it by hand"
                )
        elif _follow(ctx, own[info.id], info, ids):
            changed.append(own[info.id])
            say(f"{own[info.id]} calls the new id (read back)")
    return Followed(workflows=tuple(changed), foreign=tuple(foreign))


def names(definition: Definition, ids: Iterable[str]) -> bool:
    """Whether ``definition`` names one of ``ids`` somewhere."""
    return any(token in ids for token in _tokens(definition))


def repointed(platform: Platform, definition: Definition, ids: Mapping[str, str]) -> Definition:
    """``definition`` with each of ``ids`` (old to new) in its new form. Raises :class:`PublishFailed` when the outline
    says that a call still goes to an old one."""
    changed: Definition = _replaced(definition, ids)
    left = sorted({call for node in platform.outline(changed).nodes for call in node.calls if call in ids})
    if left:
        raise PublishFailed(
            f"workflow {definition.get('name')}: its call of {', '.join(left)} cannot be pointed at the new id; "
            "change it in the platform's editor",
            outcome=Outcome.NOT_FOLLOWED,
        )
    return changed


def _follow(ctx: AppContext, workflow: str, info: WorkflowInfo, ids: Mapping[str, str]) -> bool:
    platform = ctx.platform
    saved = platform.draft_version(info.id)
    live = platform.live_version(info.id) if info.active else None
    stale_live = live is not None and names(live.definition, ids)
    if not stale_live and not names(saved.definition, ids):
        return False
    if live is not None and stale_live:
        _write(ctx, workflow, info.id, repointed(platform, live.definition, ids), live=True)
        if live.hash == saved.hash:
            return True
    # A draft of somebody's stays one: it follows too, and is not made live.
    _write(ctx, workflow, info.id, repointed(platform, saved.definition, ids), live=False)
    return True


def _write(ctx: AppContext, workflow: str, platform_id: str, definition: Definition, *, live: bool) -> None:
    from recovery import publishing

    content, settings = ctx.platform.hashes(definition)
    wanted = Version(workflow_id=platform_id, hash=content, settings_hash=settings, definition=definition)
    publishing.save(ctx, workflow, platform_id, wanted)
    if live:
        publishing.go_live(ctx, workflow, platform_id, wanted)


def _tokens(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
        if "," in value:
            yield from (part.strip() for part in value.split(","))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tokens(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _tokens(item)


def _replaced(value: Any, ids: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        if value in ids:
            return ids[value]
        parts = value.split(",")
        if len(parts) > 1 and any(p.strip() in ids for p in parts):
            return ",".join(p.replace(p.strip(), ids[p.strip()]) if p.strip() in ids else p for p in parts)
        return value
    if isinstance(value, Mapping):
        return {key: _replaced(item, ids) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, ids) for item in value]
    return value
