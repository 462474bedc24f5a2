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
"""A workflow's content as the platform exchanges it: name, nodes, connections, settings. JSON-serialisable."""


class PlatformError(Exception):
    """Something went wrong in or on the way to the platform: object, cause, next step in one line."""


class Permanent(PlatformError):
    """Trying again cannot help: wrong key, unknown workflow, refused content."""


class Retryable(PlatformError):
    """Trying again may help: time-out, connection refused, 429, 5xx, cut answer."""


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
    """What the platform can do; Reinstate makes up for, or refuses, what it cannot."""

    executions: bool
    stops_runs: bool
    keeps_versions: bool
    draft_apart_from_live: bool
    replays_privately: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowInfo:
    id: str
    name: str
    active: bool
    updated_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One content of a workflow. ``hash`` is Reinstate's content hash over the canonical form (64 hex digits);
    ``platform_version`` is the platform's own name for it, where it has one."""

    workflow_id: str
    hash: str
    definition: Definition = field(repr=False, compare=False)
    platform_version: str | None = None
    author: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution. ``version_hash`` is the content it really used, where the platform tells (else ``None``)."""

    id: str
    workflow_id: str
    state: RunState
    started_at: datetime | None
    stopped_at: datetime | None
    version_hash: str | None = None
    retry_of: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDetail:
    """``event`` is the trigger's input as it came in (for a webhook: ``{"body": ..., "headers": ...,
    "query": ...}``), ``None`` when the platform did not keep it. ``outputs`` maps node name to returned items."""

    run: Run
    event: Mapping[str, Any] | None
    outputs: Mapping[str, Sequence[Mapping[str, Any]]]
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    ok: bool
    detail: str
    now: datetime
    """The platform's clock (HTTP ``Date`` where nothing better exists)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateEntry:
    """A private copy of a definition behind an address only Reinstate knows, used to replay events while the real
    workflow stays paused. ``version_hash`` is that of the definition it was made from, its own trigger path apart."""

    workflow_id: str
    source_workflow_id: str
    version_hash: str
    address: str = field(repr=False)


class Platform(Protocol):
    """One connected platform. Implementations are safe to share between threads."""

    @property
    def kind(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def health(self) -> Health:
        """Reachability, key validity and clock. Raises ``Permanent`` on a wrong key, ``Retryable`` if unreachable."""
        ...

    def workflows(self) -> list[WorkflowInfo]: ...

    def draft_version(self, workflow_id: str) -> Version:
        """The content last saved, which is not necessarily what production runs."""
        ...

    def live_version(self, workflow_id: str) -> Version | None:
        """The content production runs; ``None`` while the workflow is inactive."""
        ...

    def versions(self, workflow_id: str) -> list[Version]:
        """The platform's own history, newest first; empty where it keeps none."""
        ...

    def save(self, workflow_id: str, definition: Definition) -> Version:
        """Make ``definition`` the saved content. On an *active* workflow some platforms publish at once. Idempotent."""
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
        """Runs, oldest first, in flight included, whose end (or start, while unfinished) is not before ``since``.
        ``version_hash`` is filled where the platform tells at no great cost. Empty without ``executions``."""
        ...

    def run_detail(self, run_id: str) -> RunDetail: ...

    def stop(self, run_id: str) -> None:
        """Ask an unfinished run to stop. A run that already ended is left alone. A query it already sent to a
        database may still complete there: prove the pause in the database too."""
        ...

    def ingress_paused(self, workflow_id: str) -> bool:
        """Ask the workflow's own entry (webhook address) without starting a run: true when it answers as paused.
        True too for workflows without an outside entry that are inactive."""
        ...

    def open_private_entry(self, version: Version) -> PrivateEntry:
        """Publish a private copy of ``version``. Calling again for the same source and version returns the open one."""
        ...

    def send(self, entry: PrivateEntry, event: Mapping[str, Any], *, idempotency_key: str) -> Run:
        """Run ``event`` through the copy, wait for its end and return the run. The key is visible in the run's
        event (header ``x-reinstate-event``), so that an ambiguous send can be found again by :meth:`sent`."""
        ...

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        """Runs of the copy by idempotency key, oldest first."""
        ...

    def close_private_entry(self, entry: PrivateEntry) -> None:
        """Remove the copy. Idempotent."""
        ...

    def close(self) -> None: ...
