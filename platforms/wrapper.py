"""A platform over another one, passing everything on. What stands around platforms builds on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from platforms.base import (
    Capabilities,
    Credential,
    Definition,
    Health,
    Outline,
    Platform,
    PrivateEntry,
    Run,
    RunDetail,
    RunState,
    Version,
    WorkflowInfo,
)

T = TypeVar("T")


class Wrapper:
    """Every call that reaches the platform goes through :meth:`_call` with the name of its method."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._platform!r})"

    def _call(self, method: str, call: Callable[[], T]) -> T:  # noqa: ARG002 - wrappers decide by it
        return call()

    @property
    def kind(self) -> str:
        return self._platform.kind

    @property
    def capabilities(self) -> Capabilities:
        return self._platform.capabilities

    def health(self) -> Health:
        return self._call("health", self._platform.health)

    def workflows(self) -> list[WorkflowInfo]:
        return self._call("workflows", self._platform.workflows)

    def draft_version(self, workflow_id: str) -> Version:
        return self._call("draft_version", lambda: self._platform.draft_version(workflow_id))

    def live_version(self, workflow_id: str) -> Version | None:
        return self._call("live_version", lambda: self._platform.live_version(workflow_id))

    def versions(self, workflow_id: str) -> list[Version]:
        return self._call("versions", lambda: self._platform.versions(workflow_id))

    def save(self, workflow_id: str, definition: Definition) -> Version:
        return self._call("save", lambda: self._platform.save(workflow_id, definition))

    def create(self, definition: Definition, *, workflow_id: str | None = None) -> Version:
        return self._call("create", lambda: self._platform.create(definition, workflow_id=workflow_id))

    def hashes(self, definition: Definition) -> tuple[str, str]:
        return self._platform.hashes(definition)

    def outline(self, definition: Definition) -> Outline:
        return self._platform.outline(definition)

    def credentials(self, workflow_id: str) -> list[Credential]:
        return self._call("credentials", lambda: self._platform.credentials(workflow_id))

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        self._call("activate", lambda: self._platform.activate(workflow_id, platform_version))

    def deactivate(self, workflow_id: str) -> None:
        self._call("deactivate", lambda: self._platform.deactivate(workflow_id))

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        return self._call("runs", lambda: self._platform.runs(workflow_id, since=since, states=states))

    def latest_run(self, workflow_id: str) -> str | None:
        return self._call("latest_run", lambda: self._platform.latest_run(workflow_id))

    def run_detail(self, run_id: str) -> RunDetail:
        return self._call("run_detail", lambda: self._platform.run_detail(run_id))

    def stop(self, run_id: str) -> None:
        self._call("stop", lambda: self._platform.stop(run_id))

    def retrigger(self, run_id: str) -> Run:
        return self._call("retrigger", lambda: self._platform.retrigger(run_id))

    def ingress_paused(self, workflow_id: str) -> bool:
        return self._call("ingress_paused", lambda: self._platform.ingress_paused(workflow_id))

    def ingress_open(self, workflow_id: str) -> bool:
        return self._call("ingress_open", lambda: self._platform.ingress_open(workflow_id))

    def open_private_entry(self, version: Version) -> PrivateEntry:
        return self._call("open_private_entry", lambda: self._platform.open_private_entry(version))

    def open_private_callee(self, version: Version) -> PrivateEntry:
        return self._call("open_private_callee", lambda: self._platform.open_private_callee(version))

    def send(self, entry: PrivateEntry, event: Mapping[str, object], *, idempotency_key: str) -> Run:
        return self._call("send", lambda: self._platform.send(entry, event, idempotency_key=idempotency_key))

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        return self._call("sent", lambda: self._platform.sent(entry))

    def close_private_entry(self, entry: PrivateEntry) -> None:
        self._call("close_private_entry", lambda: self._platform.close_private_entry(entry))

    def close(self) -> None:
        self._platform.close()


_IMPLEMENTS: Callable[[Platform], Platform] = Wrapper
