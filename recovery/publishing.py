"""Making a version live, and proving it: content, name and settings, activation and credential references read back.

What a lost answer did is never assumed: every write is followed by a look, and tried again only when the look says
that it did not happen. Making a workflow again is the one write that may not be repeated blindly: a new one is looked
for by its name first. Where it gets a new id, calls of the app's other workflows follow it.

The ledger gets ``workflow.recreated`` and ``workflow.published``; the caller holds the app's lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ledger import kinds
from platforms.base import Retryable, Version, WorkflowInfo
from recovery import credentials, following, history
from recovery.credentials import Problem, Trouble
from recovery.errors import Outcome, PublishFailed

if TYPE_CHECKING:
    from recovery.context import AppContext

LIVE_S: Final = 20.0
"""How long a platform may take to make a version live."""
SERVED_S: Final = 150.0
"""How long it may take to run what it calls live. n8n that was killed while it published a workflow leaves it alone
until its lease of two minutes is over, and looks every 15 s."""
TOLD_S: Final = 5.0
"""How long that is waited for without a word."""
POLL_S: Final = 0.1
LOST_S: Final = 1.0
"""How long to look for the effect of a write whose answer was lost, before it is tried again."""
TRIES: Final = 4
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """``version`` and ``settings`` are the hashes read back. ``previous`` is what was live, or saved, before.
    ``previous_id``: the workflow was gone and was made again; ``references`` are the workflows whose calls follow its
    new id, ``foreign`` names of workflows outside the app that still call the old one. ``troubles`` are credentials
    that keep the version from working as it did."""

    workflow: str
    platform_id: str
    outcome: Outcome
    version: str
    settings: str
    previous: str | None
    changed: bool
    recreated: bool = False
    previous_id: str | None = None
    references: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()


def publish(
    ctx: AppContext,
    workflow_key: str,
    version: Version,
    *,
    by: str,
    reason: str,
    activate: bool,
    incident: str | None = None,
    recovery: str | None = None,
    good_before: datetime | None = None,
    despite: bool = False,
    say: Say = lambda _: None,
) -> Published:
    """Make ``version`` what the workflow holds and, with ``activate``, what is live; read it back.

    A workflow that is active stays active: without ``activate`` it must be inactive, or the version only saved where
    the platform keeps drafts apart. ``good_before``: credentials changed after the version was last good before this
    moment are troubles. One that is missing, refused or unreadable keeps a version from being made live, unless
    ``despite``. Running it again after a kill finds what is done. Raises :class:`PublishFailed` with the outcome, and
    ``PlatformError``."""
    history.observe(ctx)
    made = _present(ctx, workflow_key, version, say)
    wanted = following.followed(ctx, replace(version, workflow_id=made.info.id))
    before = _before(ctx, made.info)
    changed = save(ctx, workflow_key, made.info.id, wanted)
    troubles = credentials.troubles(ctx, workflow_key, made.info.id, wanted.hash, before=good_before)
    if activate:
        if not despite and _outcome(ctx, made.info.id, wanted) is not Outcome.LIVE:
            _refuse(workflow_key, troubles)
        changed |= go_live(ctx, workflow_key, made.info.id, wanted)
    outcome = _outcome(ctx, made.info.id, wanted)
    if changed or made.created:
        body: dict[str, Any] = {"workflow": workflow_key, "platform_id": made.info.id, "version": wanted.hash}
        body |= {"previous": before} if before and before != wanted.hash else {}
        body |= {"by": by, "reason": reason, "outcome": outcome.value}
        ctx.ledger.append(kinds.WORKFLOW_PUBLISHED, app=ctx.app.key, incident=incident, recovery=recovery, body=body)
    moved = following.follow(ctx, say=say)
    if made.created or _unrecorded(ctx, workflow_key, made):
        body = {"workflow": workflow_key, "platform_id": made.info.id, "previous_id": made.previous}
        body |= {"version": wanted.hash, "references": list(moved.workflows)}
        ctx.ledger.append(kinds.WORKFLOW_RECREATED, app=ctx.app.key, incident=incident, recovery=recovery, body=body)
    history.observe(ctx, by=by, reason=reason, of=workflow_key)
    if activate and not served(ctx, workflow_key, made.info.id, say):
        raise PublishFailed(
            f"workflow {workflow_key}: the platform calls version {wanted.hash[:12]} live, and its entry does not "
            f"answer after {SERVED_S:.0f} s; look at its triggers in the platform's editor, then run this again",
            outcome=Outcome.NOT_SERVED,
        )
    return Published(
        workflow=workflow_key,
        platform_id=made.info.id,
        outcome=outcome,
        version=wanted.hash,
        settings=_settings(ctx, wanted),
        previous=before,
        changed=changed or made.created,
        recreated=made.created,
        previous_id=made.previous,
        references=moved.workflows,
        foreign=moved.foreign,
        troubles=troubles,
    )


def same(ctx: AppContext, found: Version, wanted: Version) -> bool:
    """Content, name and settings alike; platforms may keep settings apart from versions, so they are compared apart."""
    return found.hash == wanted.hash and found.settings_hash in ("", _settings(ctx, wanted))


def save(ctx: AppContext, workflow: str, platform_id: str, wanted: Version) -> bool:
    """Make ``wanted`` the saved content and read it back. Returns whether anything had to be written.

    Raises :class:`PublishFailed` (edited) when what was saved reads back as something else, and ``Retryable`` when no
    answer came often enough."""
    wrote = False
    for attempt in range(TRIES):
        if same(ctx, found := ctx.platform.draft_version(platform_id), wanted):
            return wrote
        try:
            ctx.platform.save(platform_id, wanted.definition)
        except Retryable:  # it may have happened all the same: the next look tells
            wrote = True
            if attempt == TRIES - 1:
                raise
            continue
        wrote = True
        if same(ctx, found := ctx.platform.draft_version(platform_id), wanted):
            return True
        break
    raise PublishFailed(
        f"workflow {workflow}: saved {wanted.hash[:12]} but read back {found.hash[:12]}; "
        "somebody edits it meanwhile: stop them, then run this again",
        outcome=Outcome.EDITED,
    )


def go_live(ctx: AppContext, workflow: str, platform_id: str, wanted: Version) -> bool:
    """Make the saved content, which must be ``wanted``, live and read that back. Returns whether it was not yet.

    Raises :class:`PublishFailed`: draft-only when it is saved and production runs another one, edited when it is no
    longer what is saved."""
    live = ctx.platform.live_version(platform_id)
    if live is not None and same(ctx, live, wanted):
        return False
    for attempt in range(TRIES):
        answered = True
        try:
            ctx.platform.activate(platform_id)
        except Retryable:
            answered = False
            if attempt == TRIES - 1:
                raise
        live = wait_live(ctx, platform_id, lambda v: same(ctx, v, wanted), LIVE_S if answered else LOST_S)
        if live is not None and same(ctx, live, wanted):
            return True
        if answered:
            break
    runs = "nothing" if live is None else f"version {live.hash[:12]}"
    if not same(ctx, ctx.platform.draft_version(platform_id), wanted):
        raise PublishFailed(
            f"workflow {workflow}: somebody saved another version while {wanted.hash[:12]} was made live; "
            "stop them, then run this again",
            outcome=Outcome.EDITED,
        )
    raise PublishFailed(
        f"workflow {workflow}: version {wanted.hash[:12]} is restored as a draft only, production runs {runs}; "
        "publish it in the platform's editor, or deactivate the workflow and run this again",
        outcome=Outcome.DRAFT_ONLY,
    )


def wait_live(ctx: AppContext, platform_id: str, fits: Callable[[Version], bool], seconds: float) -> Version | None:
    """What is live once it fits, or whatever it is when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        live = ctx.platform.live_version(platform_id)
        if (live is not None and fits(live)) or time.monotonic() > deadline:
            return live
        time.sleep(POLL_S)


def served(ctx: AppContext, workflow: str, platform_id: str, say: Say) -> bool:
    """Wait until the entry of what is live answers; false when it does not in :data:`SERVED_S`. A platform that does
    not answer at all is waited for as well: it may just have gone down again."""

    def answers() -> bool:
        try:
            return ctx.platform.ingress_open(platform_id)
        except Retryable:
            return False

    began = time.monotonic()
    told = False
    while not answers():
        waited = time.monotonic() - began
        if waited > SERVED_S:
            return False
        if waited > TOLD_S and not told:
            say(f"{workflow}: the platform calls it live and its entry does not answer yet; waiting {SERVED_S:.0f} s")
            told = True
        time.sleep(POLL_S)
    return True


# Parts


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """The workflow in the platform; ``previous`` is the id it had before it was gone."""

    info: WorkflowInfo
    created: bool
    previous: str | None


def _present(ctx: AppContext, workflow: str, version: Version, say: Say) -> _Made:
    """The workflow as it is in the platform, made again when it is gone."""
    had = [s.platform_id for s in history.listing(ctx, workflow)]
    infos = ctx.platform.workflows()
    names = {ctx.app.workflow(workflow).name, str(version.definition.get("name"))}
    found = history.present(ctx, workflow, infos) or _named(workflow, infos, names)
    if found is not None:
        earlier = [i for i in had if i != found.id]
        return _Made(info=found, created=False, previous=earlier[-1] if earlier else None)
    say(f"{workflow} is gone from the platform: making it again")
    previous = had[-1] if had else None
    keeps = ctx.platform.capabilities.keeps_ids
    for attempt in range(TRIES):
        try:
            ctx.platform.create(version.definition, workflow_id=previous if keeps else None)
        except Retryable:
            # Whether it was made shows in the list only: a second one must not be.
            if attempt == TRIES - 1:
                raise
        if (made := _wait_named(ctx, workflow, names)) is not None:
            say(f"{workflow} is made again under id {made.id}")
            return _Made(info=made, created=True, previous=previous)
    raise PublishFailed(
        f"workflow {workflow}: the platform took it and does not list it; look at the platform, then run this again",
        outcome=Outcome.NOT_MADE,
    )


def _wait_named(ctx: AppContext, workflow: str, names: set[str]) -> WorkflowInfo | None:
    deadline = time.monotonic() + LOST_S
    while (found := _named(workflow, ctx.platform.workflows(), names)) is None and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


def _named(workflow: str, infos: Sequence[WorkflowInfo], names: set[str]) -> WorkflowInfo | None:
    found = [i for i in infos if i.name in names]
    if len(found) > 1:
        raise PublishFailed(
            f"workflow {workflow}: {len(found)} workflows named {found[0].name!r} in the platform; "
            "delete or rename all but one",
            outcome=Outcome.AMBIGUOUS,
        )
    return found[0] if found else None


def _refuse(workflow: str, troubles: Sequence[Trouble]) -> None:
    """A version whose credentials cannot work would fail with every run."""
    if stops := [t.sentence for t in troubles if t.problem is not Problem.CHANGED]:
        raise PublishFailed(
            f"workflow {workflow}: saved and not made live: {'; '.join(stops)}", outcome=Outcome.CREDENTIALS
        )


def _unrecorded(ctx: AppContext, workflow: str, made: _Made) -> bool:
    """Whether it got another id and nobody wrote that down: it was made by hand, or we were killed just then."""
    if made.previous is None or made.previous == made.info.id:
        return False
    told = ctx.ledger.entries(app=ctx.app.key, kinds=[kinds.WORKFLOW_RECREATED])
    return not any((e.body["workflow"], e.body["platform_id"]) == (workflow, made.info.id) for e in told)


def _before(ctx: AppContext, info: WorkflowInfo) -> str:
    live = ctx.platform.live_version(info.id) if info.active else None
    return (live or ctx.platform.draft_version(info.id)).hash


def _outcome(ctx: AppContext, platform_id: str, wanted: Version) -> Outcome:
    live = ctx.platform.live_version(platform_id)
    if live is None:
        return Outcome.SAVED
    return Outcome.LIVE if same(ctx, live, wanted) else Outcome.DRAFT_ONLY


def _settings(ctx: AppContext, wanted: Version) -> str:
    return ctx.platform.hashes(wanted.definition)[1]
