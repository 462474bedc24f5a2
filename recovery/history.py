"""The app's own history of its workflows: every version seen, kept far longer than the platform keeps them.

:func:`observe` looks at the platform. A change of what is saved, live or active is one ``workflow.seen`` in the ledger;
content not seen before goes into the store first (``versions/<app>/<hash>-<settings>.json``), sealed like everything
there. Versions are never pruned: a definition is some kilobytes. A look at which nothing changed costs one
question to the platform and one small file: when that look was, so that the next change is dated closely.

Who looks at the same time records a change once: the ledger decides under its lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledger import kinds
from ledger.entry import Draft
from platforms.base import Permanent, Platform, PlatformError, Version, WorkflowInfo
from platforms.dated import Span
from recovery import kept
from recovery.errors import Refused
from recovery.seen import KINDS, Record, Reference, Seen, body
from recovery.seen import spans as spans_of

if TYPE_CHECKING:
    from ledger import Ledger
    from ledger.ledger import View
    from recovery.context import AppContext

__all__ = ["Book", "Seen", "listing", "load", "newest", "observe", "present", "resolve", "spans"]

FILE: Final = "looked"
"""Where the time of an app's last look lies: a file per app in this folder of the home."""


class Book:
    """The history as the ledger tells it, read on from where it was read last. Safe between threads.

    ``path`` is the file with the time of the last look; one per app and home."""

    def __init__(self, ledger: Ledger, app: str, path: Path) -> None:
        self._ledger = ledger
        self._app = app
        self._path = path
        self._lock = threading.RLock()
        self._read_to = 0
        self._record = Record()
        self.settled: dict[str, WorkflowInfo] = {}
        """By platform id what the list said when the workflow was last read: it need not be read again for the same."""

    def record(self) -> Record:
        """What the ledger says now; a copy."""
        with self._lock:
            entries = self._ledger.entries(app=self._app, kinds=KINDS, after_seq=self._read_to)
            if entries:
                self._record.add(entries)
                self._read_to = entries[-1].seq
            return self._record.copy()

    def append(self, decide: Callable[[Record], Draft | None]) -> None:
        """Record what ``decide`` makes of the record as it is; nobody else writes in between. ``None``: nothing."""

        def compose(view: View) -> Draft:
            with self._lock:
                record, read_to = self._record.copy(), self._read_to
            record.add(view.entries(app=self._app, kinds=KINDS, after_seq=read_to))
            draft = decide(record)
            if draft is None:
                raise _KnownError
            return draft

        try:
            self._ledger.append_with(compose)
        except _KnownError:
            return

    def spans(self) -> dict[str, tuple[Span, ...]]:
        """By the platform's workflow id, oldest first."""
        record, looked = self.record(), self.looked()
        found: dict[str, tuple[Span, ...]] = {}
        for workflow in record.newest:
            for span in spans_of(record.items, workflow, looked=looked):
                found[span.workflow_id] = (*found.get(span.workflow_id, ()), span)
        return found

    def looked(self) -> datetime | None:
        """When all workflows were last found as the ledger says."""
        try:
            return datetime.fromisoformat(self._path.read_text().strip())
        except (OSError, ValueError):
            return None

    def look(self, at: datetime) -> None:
        """Remember that at ``at`` they were. A home that cannot be written to only makes dates less close."""
        before = self.looked()
        if before is not None and before >= at:
            return
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part.write_text(at.isoformat())
            part.replace(self._path)
        except OSError:
            part.unlink(missing_ok=True)


class _KnownError(Exception):
    """Nothing to record: somebody else did."""


def observe(
    ctx: AppContext,
    *,
    reason: str | None = None,
    by: str | None = None,
    force: bool = False,
    of: str | None = None,
) -> list[Seen]:
    """Look at the app's workflows and record what changed; returns the new entries, oldest first.

    Reads a workflow only where the platform's list says that it may have changed; ``force``: every one, with the
    credentials it names. ``by`` and ``reason`` go with the change of ``of`` (a catalogue key; all when ``None``): who
    looks right after changing something knows both. Raises what the platform, store and ledger raise."""
    began = datetime.now(UTC)
    before = ctx.book.record()
    infos = ctx.platform.workflows()
    ids = {i.id for i in infos}
    whole = True
    for workflow in ctx.app.workflows:
        last = before.newest.get(workflow.key)
        if last is not None and not last.gone and last.platform_id not in ids:
            _gone(ctx, last)
        info = _chosen(infos, workflow.name, last)
        if info is None or not (force or _may_differ(ctx, info, last)):
            continue
        told = (by, reason) if of in (None, workflow.key) else (None, None)
        try:
            _look(ctx, workflow.key, info, last, told, force=force)
        except Permanent:
            # Deleted while we looked: the next look says so. Anything else is a real refusal.
            if any(i.id == info.id for i in ctx.platform.workflows()):
                raise
            whole = False
    if whole:
        ctx.book.look(began)
    known = max((i.seq for i in before.items if isinstance(i, Seen)), default=0)
    return [i for i in ctx.book.record().items if isinstance(i, Seen) and i.seq > known]


def listing(ctx: AppContext, workflow: str) -> list[Seen]:
    """All changes of the workflow, oldest first."""
    return ctx.book.record().of(workflow)


def newest(ctx: AppContext, workflow: str) -> Seen | None:
    """The last known state of the workflow; ``None`` before the first look."""
    return ctx.book.record().newest.get(workflow)


def present(ctx: AppContext, workflow: str, infos: Iterable[WorkflowInfo]) -> WorkflowInfo | None:
    """The workflow among ``infos``: the one we knew, else the only one of its name; ``None`` when it is gone."""
    return _chosen(list(infos), ctx.app.workflow(workflow).name, newest(ctx, workflow))


def spans(ctx: AppContext) -> Mapping[str, tuple[Span, ...]]:
    """By the platform's workflow id: which version was surely in use when, oldest first."""
    return ctx.book.spans()


def load(ctx: AppContext, version_hash: str, *, workflow: str | None = None) -> Version | None:
    """The version of that hash, with the name and settings it was seen with last; ``None`` when it was never kept.
    Two workflows may hold the same content under different names: say which ``workflow`` is meant.

    Raises ``Damaged`` when what was kept is not sound."""
    items = ctx.book.record().items
    named = dict.fromkeys(
        i.object
        for i in reversed(items)
        if isinstance(i, Seen) and i.version == version_hash and i.object and workflow in (None, i.workflow)
    )
    # The store outlives the ledger: what an earlier one recorded is there under its name.
    for name in named or kept.names(ctx.store, ctx.app.key, version_hash):
        found = kept.read(ctx.store, name)
        if found is not None and (named or workflow in (None, found.workflow)):
            return found.version
    return None


def resolve(ctx: AppContext, workflow: str, text: str) -> str:
    """The full hash of the version of ``workflow`` that begins with ``text``. Raises :class:`Refused` when none or more
    than one does."""
    held = dict.fromkeys(v for s in listing(ctx, workflow) for v in (s.version, s.live) if v)
    matches = [v for v in held if text and v.startswith(text.lower())]
    if len(matches) == 1:
        return matches[0]
    what = "no version of it" if not matches else f"{len(matches)} versions of it"
    raise Refused(f"workflow {workflow}: {what} begins with {text!r}; see `reinstate workflow history {workflow}`")


# Looking


def _chosen(infos: Iterable[WorkflowInfo], name: str, last: Seen | None) -> WorkflowInfo | None:
    """The workflow among those of the platform: the one we knew, else the only one of the name."""
    if last is not None:
        for info in infos:
            if info.id == last.platform_id:
                return info
    named = [i for i in infos if i.name == name]
    return named[0] if len(named) == 1 else None


def _may_differ(ctx: AppContext, info: WorkflowInfo, last: Seen | None) -> bool:
    """Whether the list leaves it open that something changed."""
    if last is None or last.gone or last.platform_id != info.id or info.updated_at is None:
        return True
    if ctx.platform.capabilities.draft_apart_from_live and info.active and info.live is None:
        return True  # another version may have been published, and the list would not show it
    known = (last.name, last.active, last.updated_at, last.mark)
    return known != (info.name, info.active, info.updated_at, info.live) and ctx.book.settled.get(info.id) != info


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A workflow as it was read: ``passed`` are versions between the last look and this one."""

    saved: Version
    live: Version | None
    passed: tuple[Version, ...]
    credentials: tuple[Reference, ...] | None
    at: datetime


def _look(
    ctx: AppContext,
    workflow: str,
    info: WorkflowInfo,
    last: Seen | None,
    told: tuple[str | None, str | None],
    *,
    force: bool,
) -> None:
    """Read one workflow, keep what is new and record what changed."""
    looked = ctx.book.looked()  # before reading: somebody else who looks meanwhile may have seen the change already
    same = last is not None and not last.gone and last.platform_id == info.id
    found = _read(ctx, workflow, info, last if same else None, force=force)
    objects = {s.object for s in listing(ctx, workflow)}
    for version in found.passed:
        name = kept.keep(ctx, workflow, version, objects, again=force)
        _passed(ctx, workflow, info, version, name, found.at)
    name = kept.keep(ctx, workflow, found.saved, objects, again=force)
    by, reason = told
    exact = not ctx.platform.capabilities.draft_apart_from_live
    now = Seen(
        seq=0,
        at=found.at,
        workflow=workflow,
        platform_id=info.id,
        name=info.name,
        version=found.saved.hash,
        settings=kept.settings(ctx.platform, found.saved),
        active=info.active,
        live=found.live.hash if found.live else None,
        object=name,
        platform_version=found.saved.platform_version,
        updated_at=info.updated_at,
        mark=info.live,
        changed_at=found.saved.created_at or info.updated_at,
        since=info.updated_at if exact else None,
        author=found.saved.author,
        by=by,
        reason=reason,
    )

    def decide(record: Record) -> Draft | None:
        known = record.newest.get(workflow)
        references = found.credentials
        if references is None:
            references = known.credentials if known is not None else ()
        entry = replace(now, credentials=references, not_before=_not_before(known, looked, now.at))
        if known is not None and _state(known) == _state(entry) and (not exact or known.since == entry.since):
            return None  # where saving publishes, saving the same again may hide a version in between
        if known is not None and known.version == entry.version and not entry.by:
            entry = replace(entry, author=None)  # who saved it did not necessarily switch it on or off
        return Draft(kind=kinds.WORKFLOW_SEEN, app=ctx.app.key, body=body(entry))

    ctx.book.append(decide)
    ctx.book.settled[info.id] = info


def _read(ctx: AppContext, workflow: str, info: WorkflowInfo, last: Seen | None, *, force: bool) -> _Found:
    platform = ctx.platform
    saved = platform.draft_version(info.id)
    live = platform.live_version(info.id) if info.active else None
    at = datetime.now(UTC)
    known = [s for s in listing(ctx, workflow) if s.platform_id == info.id and not s.gone]
    passed: list[Version] = []
    if platform.capabilities.keeps_versions and (last is None or info.updated_at != last.updated_at):
        versions = platform.versions(info.id)
        passed = missed(versions, saved, known)
        told = next((v for v in versions if v.platform_version and v.platform_version == saved.platform_version), saved)
        saved = replace(saved, author=told.author or saved.author, created_at=told.created_at or saved.created_at)
    if live is not None and live.hash not in {saved.hash, *(s.version for s in known), *(v.hash for v in passed)}:
        passed.append(live)
    named = None
    if force or last is None or last.version != saved.hash:
        named = _references(platform, info.id)
    return _Found(saved=saved, live=live, passed=tuple(passed), credentials=named, at=at)


def missed(versions: Sequence[Version], saved: Version, known: Sequence[Seen]) -> list[Version]:
    """Of the platform's own history (newest first) what no look found, oldest first (pure). Saving the same content
    again makes no version."""
    names = {s.platform_version for s in known if s.platform_version}
    hashes = {s.version for s in known}
    previous = known[-1].version if known else None
    found: list[Version] = []
    for version in reversed(versions):
        told = version.platform_version in names if version.platform_version else version.hash in hashes
        if not told and version.hash != previous and version.platform_version != saved.platform_version:
            found.append(version)
        previous = version.hash
    return found


def _references(platform: Platform, workflow_id: str) -> tuple[Reference, ...] | None:
    """The credentials that the saved definition names; ``None`` when the platform does not say."""
    try:
        listed = platform.credentials(workflow_id)
    except PlatformError:
        return None
    found = [Reference(id=c.id, name=c.name, kind=c.kind, changed_at=c.changed_at) for c in listed]
    return tuple(sorted(found, key=lambda c: (c.kind, c.id)))


def _state(seen: Seen) -> tuple[object, ...]:
    """What makes two looks the same."""
    content = (seen.gone, seen.platform_id, seen.name, seen.version, seen.settings)
    return (*content, seen.active, seen.live, seen.credentials)


def _not_before(known: Seen | None, looked: datetime | None, at: datetime) -> datetime | None:
    """The last moment at which it was surely as ``known`` says."""
    if known is None:
        return None
    return max(known.at, looked) if looked is not None and looked < at else known.at


def _passed(ctx: AppContext, workflow: str, info: WorkflowInfo, version: Version, name: str, at: datetime) -> None:
    entry = Seen(
        seq=0,
        at=at,
        workflow=workflow,
        platform_id=info.id,
        name=info.name,
        version=version.hash,
        settings=kept.settings(ctx.platform, version),
        active=False,
        object=name,
        platform_version=version.platform_version,
        changed_at=version.created_at,
        author=version.author,
        passed=True,
    )

    def decide(record: Record) -> Draft | None:
        mine = [s for s in record.of(workflow) if s.platform_id == info.id]
        told = version.platform_version
        if any(s.platform_version == told if told else s.version == version.hash for s in mine):
            return None
        return Draft(kind=kinds.WORKFLOW_SEEN, app=ctx.app.key, body=body(entry))

    ctx.book.append(decide)


def _gone(ctx: AppContext, last: Seen) -> None:
    at, looked = datetime.now(UTC), ctx.book.looked()

    def decide(record: Record) -> Draft | None:
        known = record.newest.get(last.workflow)
        if known is None or known.gone or known.platform_id != last.platform_id:
            return None
        before = _not_before(known, looked, at)
        said = {"workflow": last.workflow, "platform_id": last.platform_id, "seen_at": at.isoformat()}
        if before is not None:
            said["not_before"] = before.isoformat()
        return Draft(kind=kinds.WORKFLOW_GONE, app=ctx.app.key, body=said)

    ctx.book.append(decide)
