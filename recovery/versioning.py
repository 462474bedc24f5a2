"""Versions as a person asks for them: by a hash's beginning or a word, compared, exported, and published with a plan.

A plan names version, activation and difference, and has a hash; publishing does exactly that, under the app's lease.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from incidents import record
from platforms.base import Version
from platforms.difference import Difference, compare
from recovery import credentials, definitions, following, history, publishing
from recovery.containment import Say, quiet, recorded
from recovery.context import AppContext
from recovery.credentials import Trouble
from recovery.errors import NothingToRecover, Refused
from recovery.history import Seen
from recovery.publishing import Published
from snapshots.points import points

LEASE_S: Final = 60.0
LIVE: Final = "live"
SAVED: Final = "saved"
GOOD: Final = "good"
BEFORE: Final = "before"
WORDS: Final = (LIVE, SAVED, GOOD, BEFORE)
"""Names of versions besides hashes: what is live, what is saved, what the newest verified recovery point holds, and
what was in use before what is."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A workflow as the last look found it. ``good``: what is in use is what the newest verified point holds; ``None``
    without such a point."""

    workflow: str
    name: str
    platform_id: str
    state: str
    live: str | None
    saved: str
    versions: int
    good: bool | None
    seen: Seen


@dataclass(frozen=True, kw_only=True)
class PublishPlan:
    """What a publication would do. ``problems`` keep it from being done; ``troubles`` are credentials of what is saved
    now."""

    workflow: str
    version: Version
    now: str | None
    exists: bool
    active: bool
    activate: bool
    difference: Difference | None
    troubles: tuple[Trouble, ...]
    problems: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Over what is to be done and what was found, so that a change in between shows."""
        said = [self.workflow, self.version.hash, self.now, self.exists, self.active, self.activate]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def listed(ctx: AppContext) -> list[Listed]:
    """All workflows of the app, after a look at the platform."""
    history.observe(ctx)
    good = _good(ctx)
    found = []
    for workflow in ctx.app.workflows:
        seen = history.newest(ctx, workflow.key)
        if seen is None:
            continue
        versions = {s.version for s in history.listing(ctx, workflow.key)}
        wanted = good.get(workflow.key)
        found.append(
            Listed(
                workflow=workflow.key,
                name=seen.name,
                platform_id=seen.platform_id,
                state=state(seen),
                live=seen.live,
                saved=seen.version,
                versions=len(versions),
                good=None if wanted is None else not seen.gone and seen.used == wanted,
                seen=seen,
            )
        )
    return found


def state(seen: Seen) -> str:
    """In a word or two how a look found the workflow."""
    if seen.gone:
        return "deleted"
    if seen.passed:
        return "replaced"
    if seen.live is None:
        return "inactive"
    return "live" if seen.live == seen.version else "draft"


def known(ctx: AppContext, workflow: str) -> str:
    """``workflow`` if the catalogue has it. Raises :class:`NothingToRecover` naming those it has."""
    keys = [w.key for w in ctx.app.workflows]
    if workflow not in keys:
        raise NothingToRecover(f"workflow {workflow}: the catalogue has {', '.join(keys)}; name one of them")
    return workflow


def version(ctx: AppContext, workflow: str, text: str) -> Version:
    """The version that ``text`` names: a word of :data:`WORDS` or the beginning of a hash, as it was kept.

    Raises :class:`Refused` when there is none."""
    last = history.newest(ctx, workflow)
    if text == SAVED or (text == LIVE and last is not None):
        wanted = None if last is None else last.version if text == SAVED else last.live
        if last is None or wanted is None or last.gone:
            raise Refused(f"workflow {workflow}: nothing of it is {text}; see `reinstate workflow list`")
    elif text == GOOD:
        wanted = _good(ctx).get(workflow)
        if wanted is None:
            raise Refused(
                f"workflow {workflow}: no verified recovery point holds it; take one with `reinstate protect`"
            )
        return definitions.find(ctx, workflow, wanted, _good_point(ctx))
    elif text == BEFORE:
        used = [s.used for s in history.listing(ctx, workflow) if not s.gone and not s.passed]
        earlier = [v for v in used if v != used[-1]] if used else []
        if not earlier:
            raise Refused(
                f"workflow {workflow}: nothing was in use before; see `reinstate workflow history {workflow}`"
            )
        wanted = earlier[-1]
    else:
        wanted = history.resolve(ctx, workflow, text)
    found = history.load(ctx, wanted, workflow=workflow)
    return definitions.find(ctx, workflow, wanted, None) if found is None else found


def difference(ctx: AppContext, before: Version, after: Version) -> Difference:
    return compare(ctx.platform.outline(before.definition), ctx.platform.outline(after.definition))


def plan(ctx: AppContext, workflow: str, wanted: Version, *, activate: bool | None) -> PublishPlan:
    """What publishing ``wanted`` would do. ``activate``: ``None`` leaves it active or inactive as it is, or was."""
    history.observe(ctx)
    info = history.present(ctx, workflow, ctx.platform.workflows())
    last = history.newest(ctx, workflow)
    active = info is not None and info.active
    paused = _paused_by(ctx, workflow)
    was = active if info is not None else _was_active(ctx, workflow)
    wants = (was and paused is None) if activate is None else activate
    problems = []
    if paused is not None and wants:
        problems.append(
            f"{workflow} is paused by incident {paused}: save it with --inactive, and `reinstate resume` brings it back"
        )
    if active and not wants:
        problems.append(f"{workflow} is active: add --activate, or pause it first")
    now = None if info is None or last is None else last.used
    if info is not None:
        wanted = following.followed(ctx, replace(wanted, workflow_id=info.id))
    troubles: tuple[Trouble, ...] = ()
    if info is not None:
        troubles = credentials.troubles(ctx, workflow, info.id, wanted.hash)
    current = None
    if info is not None:
        current = (ctx.platform.live_version(info.id) if active else None) or ctx.platform.draft_version(info.id)
    return PublishPlan(
        workflow=workflow,
        version=wanted,
        now=now,
        exists=info is not None,
        active=active,
        activate=wants,
        difference=difference(ctx, current, wanted) if current else None,
        troubles=troubles,
        problems=tuple(problems),
    )


def publish(
    ctx: AppContext,
    made: PublishPlan,
    *,
    by: str,
    reason: str,
    plan_hash: str | None = None,
    despite: bool = False,
    say: Say = quiet,
) -> Published:
    """Do what was planned, under the app's lease. ``despite``: go live also with credentials that cannot work.

    Raises :class:`Refused` when the plan has become another one, ``LeaseHeld`` while somebody else works on the app,
    and what publishing raises."""
    if not reason.strip():
        raise Refused(f"workflow {made.workflow}: a publication needs its reason; add --reason")
    holder = f"publication by process {os.getpid()} on {socket.gethostname()}"
    with ctx.ledger.lease(ctx.app.key, holder, LEASE_S):
        again = plan(ctx, made.workflow, made.version, activate=made.activate)
        if again.hash != made.hash or (plan_hash is not None and not made.hash.startswith(plan_hash)):
            raise Refused(
                f"workflow {made.workflow}: it is no longer as it was when the plan was made; look at the new plan"
            )
        if again.problems:
            raise Refused(f"workflow {made.workflow}: {'; '.join(again.problems)}")
        return publishing.publish(
            ctx, made.workflow, made.version, by=by, reason=reason, activate=made.activate, despite=despite, say=say
        )


def export(wanted: Sequence[tuple[str, Version]], folder: Path, *, replaced: bool = False) -> list[Path]:
    """Write definitions as JSON files ``<workflow>-<hash>.json``; they hold no secrets. A file of other content is only
    replaced when asked to. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for workflow, found in wanted:
        path = folder / f"{workflow}-{found.hash[:12]}.json"
        text = json.dumps(dict(found.definition), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        if path.exists() and path.read_text() != text and not replaced:
            raise Refused(f"file {path}: it is there with other content; add --force, or name another folder")
        path.write_text(text)
        written.append(path)
    return written


def _good_point(ctx: AppContext) -> str | None:
    found = points.latest_verified(ctx.store, ctx.app.key)
    return found.id if found else None


def _good(ctx: AppContext) -> dict[str, str]:
    found = points.latest_verified(ctx.store, ctx.app.key)
    return {w.workflow: w.version_hash for w in found.workflows} if found else {}


def _was_active(ctx: AppContext, workflow: str) -> bool:
    """Whether it was active before it was deleted."""
    before = [s for s in history.listing(ctx, workflow) if not s.gone and not s.passed]
    return bool(before) and before[-1].active


def _paused_by(ctx: AppContext, workflow: str) -> str | None:
    found = record.find_open(ctx.ledger, ctx.app.key)
    contained = recorded(ctx, found.id) if found else None
    return found.id if found and contained and workflow in contained["workflows"] else None
