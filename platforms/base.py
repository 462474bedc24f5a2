"""The port to a no-code platform: what Reinstate asks of n8n, Node-RED, Directus or any other.

An adapter implements :class:`Platform` and states in :class:`Capabilities` what its product cannot do.
Contract for every method: errors are :class:`PlatformError` of one of two types. A ``Retryable`` error may be
tried again by the :class:`platforms.retrying.Retrying` wrapper; a ``Permanent`` one never changes by retrying.
Reads are idempotent. A write whose answer is lost is *ambiguous*: callers read the state back, adapters never guess.
All times are timezone-aware and come from the platform's clock, which may differ from the database's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

Definition = Mapping[str, Any]
"""A workflow's content as the adapter exchanges it: ``name``, ``settings`` and whatever else belongs to it.
JSON-serialisable. It never holds a secret: where a platform shows one, the adapter takes it out, and on saving keeps
the one that the platform has. A write that lacks one is refused or leaves it empty, as the adapter says."""


EVENT_HEADER = "x-reinstate-event"
"""Says with a replayed event which it is: the idempotency key."""
RUN_HEADER = "x-reinstate-run"
"""Says which run an event starts, where the platform has no runs of its own: workflows tag their writes with it."""


class PlatformError(Exception):
    """Something went wrong in or on the way to the platform: object, cause, next step in one line."""


class Permanent(PlatformError):
    """Trying again cannot help: wrong key, unknown workflow, refused content."""


class Retryable(PlatformError):
    """Trying again may help: time-out, connection refused, 429, 5xx, cut answer."""


class NotSent(Retryable):
    """The event surely did not reach the platform (connection refused): sending it again cannot run it twice."""


class RunState(StrEnum):
    NEW = "new"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCESS = "success"
    ERROR = "error"
    CANCELED = "canceled"
    CRASHED = "crashed"

    @property
    def in_flight(self) -> bool:
        return self in (RunState.NEW, RunState.RUNNING, RunState.WAITING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What the platform can do. What it cannot, Reinstate makes up for or refuses; :mod:`platforms.limits` says how."""

    executions: bool
    """It lists its runs. Without: :mod:`platforms.stand_in` takes events of the ingress for runs."""
    shows_in_flight: bool
    """A run is listed from its start, not only once it ended."""
    stops_runs: bool
    drops_in_flight: bool
    """Pausing throws away what is in flight."""
    keeps_versions: bool
    draft_apart_from_live: bool
    """Saving an active workflow does not publish it."""
    keeps_ids: bool
    """A workflow that was deleted can be made again under its own id."""
    names_authors: bool
    """It tells who changed a definition, and when."""
    replays_privately: bool
    reads_back_events: bool
    """:meth:`Platform.sent` tells surely which events ran, also after a restart of the platform. Without: an event
    whose answer was lost is *unknown*, and never sent a second time."""
    retriggers: bool
    tests_credentials: bool
    """It tells whether a credential works, not only whether there is one."""
    names_written_rows: bool = False
    """Its runs name the rows they wrote, all of them: that tells workflows apart which share one database role."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowInfo:
    id: str
    name: str
    active: bool
    updated_at: datetime | None = None
    live: str | None = None
    """The platform's own name of what is live, where the list tells: a version may be published without being saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One content of a workflow. ``hash`` is Reinstate's content hash (64 hex digits) over what the platform keeps
    per version; ``settings_hash`` over what it keeps per workflow only (n8n: name and settings), so that a changed
    setting is seen but never makes old runs look like runs of another version. Live equals planned when both are
    equal. ``platform_version`` is the platform's own name for the content, where it has one."""

    workflow_id: str
    hash: str
    definition: Definition = field(repr=False, compare=False)
    platform_version: str | None = None
    author: str | None = None
    created_at: datetime | None = None
    settings_hash: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution. ``version_hash`` is the content it really used and ``platform_version`` the platform's name for
    it, where that can be found out; with the hash ``None``, the name is what the platform recorded and may be wrong.
    ``stopped_at`` is ``None`` while the run is in flight."""

    id: str
    workflow_id: str
    state: RunState
    started_at: datetime | None
    stopped_at: datetime | None
    version_hash: str | None = None
    retry_of: str | None = None
    platform_version: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDetail:
    """``event`` is the trigger's input as it came in (for a webhook: ``{"body": ..., "headers": ...,
    "query": ...}``), with the trigger's name under ``"trigger"``; ``None`` when the platform did not keep it. The
    event of a replayed run is the original event plus the header ``x-reinstate-event``. ``outputs`` maps node name
    to returned items; nodes that had not ended when a run was stopped are missing. ``wrote`` are the keys (as text) of
    all rows it wrote, where the platform ``names_written_rows``: by the table's name in the platform and the kind of
    write (``I``, ``U``, ``D``; more than one where it cannot be told). ``status`` is the HTTP status of the answer to
    the event, where that is what is known of how it ended. ``error`` may quote row values: it is for comparing and for
    the platform's own pages, never for the record."""

    run: Run
    event: Mapping[str, Any] | None
    outputs: Mapping[str, Sequence[Mapping[str, Any]]]
    error: str | None = None
    status: int | None = None
    wrote: Mapping[str, Mapping[str, frozenset[str]]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    ok: bool
    detail: str
    now: datetime
    """The platform's clock (HTTP ``Date``, in whole seconds, where nothing better exists)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateEntry:
    """A private copy of a definition behind an address only Reinstate knows, used to replay events while the real
    workflow stays paused. ``version_hash`` is that of the definition it was made from, its own trigger path apart.

    A *callee* has no address: other copies call it, and ``called_as`` tells what they have to name, by what definitions
    that call its source name."""

    workflow_id: str
    source_workflow_id: str
    version_hash: str
    address: str = field(repr=False)
    called_as: Mapping[str, str] = field(default_factory=dict, hash=False)


class CredentialState(StrEnum):
    VALID = "valid"
    INVALID = "invalid"
    """The other side refuses it."""
    MISSING = "missing"
    """The definition names it and the platform does not have it."""
    UNREADABLE = "unreadable"
    """The platform has it and cannot decrypt it: its encryption key is not the one it was stored with."""
    PRESENT = "present"
    """It is there; nobody can tell whether it works."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """A credential that a saved definition names; never its value. ``changed_at`` is when it was last edited, where the
    platform tells: the reference in a definition stays the same when somebody changes the secret."""

    id: str
    name: str
    kind: str
    state: CredentialState
    detail: str = ""
    changed_at: datetime | None = None


class EntryKind(StrEnum):
    WEBHOOK = "webhook"
    SCHEDULE = "schedule"
    MANUAL = "manual"
    EVENT = "event"
    """Something in the platform: a changed row, a message."""
    CALL = "call"
    """Another workflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One way into a workflow. ``path`` as the ingress sees it below the platform's address, beginning with a slash;
    ``schedule`` as the platform writes it."""

    kind: EntryKind
    node: str
    method: str | None = None
    path: str | None = None
    schedule: str | None = None


class Access(StrEnum):
    READ = "read"
    WRITE = "write"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class TableUse:
    """A table that a node names in its parameters. ``schema`` is ``None`` where the node leaves it open; no
    ``columns``: all, or not to be known."""

    table: str
    access: Access
    schema: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One step of a definition in words that every platform shares. ``kind`` is the platform's type of node,
    ``parameters`` what decides how it behaves, without secrets. ``sql`` are statements as written (with the platform's
    placeholders), ``calls`` workflows it starts (ids or names), ``hosts`` servers it calls. ``unsure`` are sentences on
    what cannot be known from the definition alone."""

    name: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    disabled: bool = False
    sql: tuple[str, ...] = ()
    tables: tuple[TableUse, ...] = ()
    calls: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """A definition read: its entries, nodes and links (``(from, to)`` node names; one per connection, in order)."""

    name: str
    entries: tuple[Entry, ...]
    nodes: tuple[Node, ...]
    links: tuple[tuple[str, str], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


class Platform(Protocol):
    """One connected platform. Implementations are safe to share between threads."""

    @property
    def kind(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def health(self) -> Health:
        """Reachability, key validity and clock. Raises ``Permanent`` on a wrong key, ``Retryable`` if unreachable."""
        ...

    def workflows(self) -> list[WorkflowInfo]:
        """All workflows but Reinstate's own private entries."""
        ...

    def draft_version(self, workflow_id: str) -> Version:
        """The content last saved, which is not necessarily what production runs."""
        ...

    def live_version(self, workflow_id: str) -> Version | None:
        """The content the platform has set live; ``None`` while the workflow is inactive. A moment may pass until new
        runs use it: the ``version_hash`` of a later run is the proof."""
        ...

    def versions(self, workflow_id: str) -> list[Version]:
        """The platform's own history, newest first; empty where it keeps none."""
        ...

    def save(self, workflow_id: str, definition: Definition) -> Version:
        """Make ``definition`` the saved content (the draft) and return it. Where a draft is apart from live, live stays
        as it is; elsewhere saving an *active* workflow publishes at once. Idempotent: equal content is not written."""
        ...

    def create(self, definition: Definition, *, workflow_id: str | None = None) -> Version:
        """Make a workflow that is gone, inactive, under ``workflow_id`` where the platform ``keeps_ids`` (idempotent
        there), else under a new id: *not idempotent*, look for its name in :meth:`workflows` after a lost answer."""
        ...

    def hashes(self, definition: Definition) -> tuple[str, str]:
        """``(hash, settings_hash)`` of a :class:`Version` with this definition. Pure."""
        ...

    def outline(self, definition: Definition) -> Outline:
        """The definition read. Pure. Never fails on what it does not understand: that is a node with ``unsure``."""
        ...

    def credentials(self, workflow_id: str) -> list[Credential]:
        """The credentials that the saved definition names, each as it is now. Starts no run of any workflow listed."""
        ...

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        """Let the workflow run, with the saved content or the named version. Idempotent. Asynchronous: read back."""
        ...

    def deactivate(self, workflow_id: str) -> None:
        """Stop new runs. Idempotent. Asynchronous: runs may still start for a moment; prove the pause."""
        ...

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        """Runs, oldest first, that ended at or after ``since`` or have not ended yet, whatever their start.
        ``version_hash`` is filled where the platform tells at no great cost. Empty without ``executions``."""
        ...

    def latest_run(self, workflow_id: str) -> str | None:
        """The id of the youngest run in whatever state; ``None`` without one. A cheap question: asked twice, it tells
        whether anything started in between, however short."""
        ...

    def run_detail(self, run_id: str) -> RunDetail:
        """One run with its event and outputs, also without ``executions`` if it is one of a private entry. Raises
        ``Permanent`` when the platform no longer has it."""
        ...

    def stop(self, run_id: str) -> None:
        """Ask an unfinished run to stop. A run that already ended is left alone. A query it already sent to a
        database may still complete there: prove the pause in the database too."""
        ...

    def retrigger(self, run_id: str) -> Run:
        """Run the event of an ended run again, in the workflow itself, through what is saved now; returns the new run
        (its ``retry_of`` is ``run_id``). *Not idempotent*: look for ``retry_of`` among :meth:`runs` first, and after an
        answer that was lost. Raises ``Permanent`` without ``retriggers``, and for a run that succeeded."""
        ...

    def ingress_paused(self, workflow_id: str) -> bool:
        """Ask the workflow's own entry (webhook address) without starting a run: true when it answers as paused.
        True too for workflows without an outside entry that are inactive."""
        ...

    def ingress_open(self, workflow_id: str) -> bool:
        """Ask the same: true when, after a pause, calls reach what is live. A platform may call a version live before
        it runs it. True too for active workflows without an outside entry, and where asking would start a run."""
        ...

    def open_private_entry(self, version: Version) -> PrivateEntry:
        """Publish a private copy of ``version`` and wait until it answers. Calling again for the same source and
        version returns the open one, also one that a killed process left. The copy's triggers are replaced: only
        :meth:`send` starts it."""
        ...

    def open_private_callee(self, version: Version) -> PrivateEntry:
        """Publish a private copy of ``version`` that other private copies call while its source is paused: nothing else
        starts it. Calling again for the same source and version returns the open one. Where the platform lists runs,
        its runs are those of its ``workflow_id``. Raises ``Permanent`` when nothing in ``version`` can be called."""
        ...

    def send(self, entry: PrivateEntry, event: Mapping[str, Any], *, idempotency_key: str) -> Run:
        """Run ``event`` through the copy, wait for its end and return the run, also a failed one. The key is visible in
        the run's event (header ``x-reinstate-event``). *Not idempotent*: after an error look for the key in
        :meth:`sent` before sending again. The run's ``version_hash`` is the entry's."""
        ...

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        """Runs of the copy by idempotency key, oldest first."""
        ...

    def close_private_entry(self, entry: PrivateEntry) -> None:
        """Remove the copy. Idempotent. Some platforms drop its runs with it: record what :meth:`sent` told first."""
        ...

    def close(self) -> None: ...
