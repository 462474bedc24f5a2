"""What the ledger says about the versions of an app's workflows: entries folded into a history, and into the stretches
in which a version was surely the one in use. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from ledger import kinds
from ledger.entry import Entry
from platforms.dated import Span

KINDS: Final = (
    kinds.WORKFLOW_SEEN,
    kinds.WORKFLOW_GONE,
    kinds.WORKFLOW_PUBLISHED,
    kinds.CONTAIN_LIVE_BEFORE,
)
"""The entries a history is made of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A credential that a definition names, as a look found it; never its value."""

    id: str
    name: str
    kind: str
    changed_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One change of a workflow. ``version`` and ``settings`` are the hashes of what was saved, ``live`` the version in
    use (``None`` while inactive). ``at`` is when the look found it, ``not_before`` the last look that found it as it
    was before. The platform tells ``changed_at`` (when the content was saved), ``since`` (from when on it was in use,
    where saving publishes at once), ``updated_at`` and ``mark`` (by which a later look sees that nothing changed).
    ``passed``: a version that had come and gone when the platform's own history told of it. ``gone``: the workflow was
    deleted; the other fields are the last known ones."""

    seq: int
    at: datetime
    workflow: str
    platform_id: str
    name: str
    version: str
    settings: str
    active: bool
    live: str | None = None
    object: str = ""
    platform_version: str | None = None
    updated_at: datetime | None = None
    mark: str | None = None
    not_before: datetime | None = None
    changed_at: datetime | None = None
    since: datetime | None = None
    author: str | None = None
    by: str | None = None
    reason: str | None = None
    credentials: tuple[Reference, ...] = ()
    passed: bool = False
    gone: bool = False

    @property
    def used(self) -> str:
        """What ran at that look, or would have run next."""
        return self.live or self.version


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A confirmation: at ``at``, ``workflow`` was live with ``version``."""

    at: datetime
    workflow: str
    version: str


@dataclass(kw_only=True, slots=True)
class Record:
    """Entries folded in order: all changes and looks, and the newest state of each workflow."""

    items: list[Seen | Look] = field(default_factory=list)
    newest: dict[str, Seen] = field(default_factory=dict)
    owed: dict[str, tuple[str, str | None, str | None]] = field(default_factory=dict)
    """By workflow a version we published that no look has found yet, and by whom and why."""

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            said = entry.body
            if entry.kind == kinds.CONTAIN_LIVE_BEFORE:
                # What names another source was not read from the platform: it confirms nothing.
                versions = {w: v for w, v in said.get("versions", {}).items() if w not in said.get("sources", {})}
                self.items += [Look(at=entry.at, workflow=str(w), version=str(v)) for w, v in versions.items()]
            elif entry.kind == kinds.WORKFLOW_PUBLISHED:
                self._published(str(said["workflow"]), str(said["version"]), said.get("by"), said.get("reason"))
            elif entry.kind == kinds.WORKFLOW_GONE:
                self._put(_gone(entry, self.newest))
            elif entry.kind == kinds.WORKFLOW_SEEN:
                self._put(self._credited(_seen(entry)))

    def copy(self) -> Record:
        return Record(items=list(self.items), newest=dict(self.newest), owed=dict(self.owed))

    def of(self, workflow: str) -> list[Seen]:
        """All changes of ``workflow``, oldest first."""
        return [i for i in self.items if isinstance(i, Seen) and i.workflow == workflow]

    def _put(self, seen: Seen) -> None:
        if not seen.passed:
            self.newest[seen.workflow] = seen
        self.items.append(seen)

    def _credited(self, seen: Seen) -> Seen:
        """A watcher may see what we published before we look ourselves; it does not know who did it."""
        version, by, reason = self.owed.get(seen.workflow, ("", None, None))
        if seen.passed or version != seen.version:
            return seen
        del self.owed[seen.workflow]
        return seen if seen.by else replace(seen, by=by, reason=reason)

    def _published(self, workflow: str, version: str, by: str | None, reason: str | None) -> None:
        last = self.newest.get(workflow)
        if last is None or last.gone or last.version != version:
            self.owed[workflow] = version, by, reason
        elif not last.by:
            at = next(n for n in range(len(self.items) - 1, -1, -1) if self.items[n] is last)
            self.items[at] = self.newest[workflow] = replace(last, by=by, reason=reason)


def spans(items: Sequence[Seen | Look], workflow: str, *, looked: datetime | None) -> tuple[Span, ...]:
    """When which version of ``workflow`` was surely in use, oldest first. ``looked``: the last look at which all was
    as the last item says."""
    made: list[Span] = []
    open_ = False  # whether the last span still stood at the last item
    previous: Seen | None = None
    for item in items:
        if item.workflow != workflow:
            continue
        last = made[-1] if made and open_ else None
        if isinstance(item, Look):
            if last is None:
                continue
            if last.hash == item.version:
                made[-1] = _until(last, max(item.at, last.until or item.at))
            else:
                made.append(replace(last, hash=item.version, not_before=last.until, since=item.at, until=item.at))
            continue
        if item.passed:
            continue
        # Saved again: it may have been another version in between, and the same again since.
        was, previous = previous, item
        again = was is not None and was.used == item.used and item.since is not None and item.since != was.since
        same = last is not None and (last.workflow_id, last.hash) == (item.platform_id, item.used)
        if last is not None and same and not again and not item.gone:
            made[-1] = _until(last, item.at)
            _narrow(made, item.not_before)
            continue
        if last is not None and _later(item.not_before, last.until):
            made[-1] = _until(last, item.not_before)
        open_ = not item.gone
        if open_:
            made.append(
                Span(
                    workflow_id=item.platform_id,
                    hash=item.used,
                    not_before=item.not_before,
                    since=_since(item),
                    until=item.at,
                )
            )
    if made and open_ and _later(looked, made[-1].until):
        made[-1] = _until(made[-1], looked)
    return tuple(made)


def body(seen: Seen) -> dict[str, Any]:
    """The ledger's body of an entry about ``seen``; fields without a value are left out."""
    values: dict[str, Any] = {
        "workflow": seen.workflow,
        "platform_id": seen.platform_id,
        "name": seen.name,
        "version": seen.version,
        "settings": seen.settings,
        "active": seen.active,
        "live": seen.live,
        "object": seen.object,
        "seen_at": seen.at.isoformat(),
        "platform_version": seen.platform_version,
        "updated_at": _text(seen.updated_at),
        "mark": seen.mark,
        "not_before": _text(seen.not_before),
        "changed_at": _text(seen.changed_at),
        "since": _text(seen.since),
        "author": seen.author,
        "by": seen.by,
        "reason": seen.reason,
        "references": [
            {"id": c.id, "name": c.name, "kind": c.kind, "changed_at": _text(c.changed_at)} for c in seen.credentials
        ],
        "passed": seen.passed or None,
    }
    return {key: value for key, value in values.items() if value not in (None, [])}


def _seen(entry: Entry) -> Seen:
    said = entry.body
    return Seen(
        seq=entry.seq,
        at=_time(said.get("seen_at")) or entry.at,
        workflow=str(said["workflow"]),
        platform_id=str(said["platform_id"]),
        name=str(said.get("name", "")),
        version=str(said["version"]),
        settings=str(said.get("settings", "")),
        active=bool(said.get("active")),
        live=said.get("live"),
        object=str(said.get("object", "")),
        platform_version=said.get("platform_version"),
        updated_at=_time(said.get("updated_at")),
        mark=said.get("mark"),
        not_before=_time(said.get("not_before")),
        changed_at=_time(said.get("changed_at")),
        since=_time(said.get("since")),
        author=said.get("author"),
        by=said.get("by"),
        reason=said.get("reason"),
        credentials=tuple(
            Reference(id=c["id"], name=c["name"], kind=c["kind"], changed_at=_time(c.get("changed_at")))
            for c in said.get("references", ())
        ),
        passed=bool(said.get("passed")),
    )


def _gone(entry: Entry, known: dict[str, Seen]) -> Seen:
    workflow = str(entry.body["workflow"])
    last = known.get(workflow)
    return Seen(
        seq=entry.seq,
        at=_time(entry.body.get("seen_at")) or entry.at,
        workflow=workflow,
        platform_id=str(entry.body["platform_id"]),
        name=last.name if last else "",
        version=last.version if last else "",
        settings=last.settings if last else "",
        active=False,
        object=last.object if last else "",
        not_before=_time(entry.body.get("not_before")),
        gone=True,
    )


def _since(seen: Seen) -> datetime:
    """From when on it was surely in use: the platform's time of the change when it lies between the two looks. A time
    in whole seconds may have been cut off."""
    told = seen.since
    if told is None or seen.not_before is None or not seen.not_before < told < seen.at:
        return seen.at
    return told if told.microsecond else min(seen.at, told.replace(microsecond=999_999))


def _narrow(made: list[Span], unchanged: datetime | None) -> None:
    """A containment tells the last version before any look does. A later look still knows until when (``unchanged``)
    the one before it was found."""
    if len(made) > 1 and unchanged is not None and made[-2].workflow_id == made[-1].workflow_id:
        before, last = made[-2:]
        if _later(unchanged, before.until) and unchanged < last.since:
            made[-2:] = _until(before, unchanged), replace(last, not_before=unchanged)


def _until(span: Span, until: datetime | None) -> Span:
    return replace(span, until=until)


def _later(at: datetime | None, than: datetime | None) -> bool:
    return at is not None and (than is None or at > than)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _text(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
