"""A platform in memory, with the habits of a real one: drafts apart from live, asynchronous publishing and pausing,
runs in flight across both, waiting runs, private entries. The contract suite proves it against live n8n.

A *handler* plays the workflow: ``handler(definition, event, run_id)`` does what the definition says, for instance
writes to a real database, and returns the outputs by node. It may raise (the run fails) or raise :class:`Suspend`
(the run waits).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from platforms import n8n_outline
from platforms.base import (
    Capabilities,
    Credential,
    CredentialState,
    Definition,
    Health,
    Outline,
    Permanent,
    Platform,
    PrivateEntry,
    Run,
    RunDetail,
    RunState,
    Version,
    WorkflowInfo,
)
from platforms.canonical import content_hash, settings_hash

Outputs = Mapping[str, Sequence[Mapping[str, Any]]]
Handler = Callable[[Definition, Mapping[str, Any], str], Outputs]
KEY_HEADER = "x-reinstate-event"


class EntryClosed(Exception):
    """The workflow's entry did not take the call: it is paused. n8n answers 404."""


class Suspend(Exception):
    """Raised by a handler: the run waits until :meth:`FakePlatform.resume`, then ``then()`` gives its outputs."""

    def __init__(self, then: Callable[[], Outputs]) -> None:
        super().__init__("the run waits")
        self.then = then


@dataclass(slots=True)
class _Workflow:
    id: str
    name: str
    settings: Mapping[str, Any]
    versions: list[Version]
    live: str | None = None
    routes: list[tuple[float, str | None]] = field(default_factory=list)
    updated_at: datetime | None = None
    entry_of: tuple[str, str] | None = None

    def routed(self) -> str | None:
        """The version that a call reaches now."""
        due = [version for at, version in self.routes if at <= time.monotonic()]
        return due[-1] if due else None

    def version(self, platform_version: str) -> Version:
        """One version, with the name and settings the workflow has now."""
        for version in self.versions:
            if version.platform_version == platform_version:
                definition = {**version.definition, "name": self.name, "settings": self.settings}
                return replace(version, definition=definition, settings_hash=settings_hash(definition))
        raise Permanent(f"workflow {self.id}: version {platform_version} is unknown; save its content again")


class FakePlatform:
    """``handlers`` is one for all workflows or a mapping from workflow name. ``publish_delay_s`` and ``pause_delay_s``
    pass between the answer of an activation or deactivation and its effect."""

    def __init__(
        self,
        handlers: Handler | Mapping[str, Handler] | None = None,
        *,
        publish_delay_s: float = 0.0,
        pause_delay_s: float = 0.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._handlers = handlers
        self._publish_delay_s = publish_delay_s
        self._pause_delay_s = pause_delay_s
        self._now = now
        self._lock = threading.RLock()
        self._workflows: dict[str, _Workflow] = {}
        self._runs: dict[str, RunDetail] = {}
        self._asleep: dict[str, Callable[[], Outputs]] = {}
        self._threads: list[threading.Thread] = []
        self._count = 0
        self.vault: dict[str, Credential] = {}
        """The credentials that the platform has, by id."""

    # For tests: the world outside the port

    def add(self, definition: Definition, *, active: bool = False) -> str:
        """A new workflow; returns its id."""
        workflow_id = self.create(definition).workflow_id
        if active:
            self.activate(workflow_id)
        return workflow_id

    def delete(self, workflow_id: str) -> None:
        """Somebody deletes a workflow: its runs go with it."""
        with self._lock:
            self._workflows.pop(workflow_id, None)
            for run_id in [i for i, d in self._runs.items() if d.run.workflow_id == workflow_id]:
                del self._runs[run_id]

    def call(self, workflow_id: str, event: Mapping[str, Any]) -> Run:
        """An outside event, handled in the caller's thread until the run ends or waits. Raises ``EntryClosed``."""
        run_id, definition = self._begin(workflow_id, event)
        return self._perform(run_id, definition, event)

    def start(self, workflow_id: str, event: Mapping[str, Any]) -> str:
        """An outside event, handled in a thread of its own; returns the run's id. Raises ``EntryClosed``."""
        run_id, definition = self._begin(workflow_id, event)
        thread = threading.Thread(target=self._perform, args=(run_id, definition, event), daemon=True)
        self._threads.append(thread)
        thread.start()
        return run_id

    def resume(self, run_id: str) -> Run:
        """Wake a waiting run and let it end. A run that was stopped meanwhile stays so."""
        with self._lock:
            then = self._asleep.pop(run_id, None)
            if then is None or not self._runs[run_id].run.state.in_flight:
                return self._runs[run_id].run
            self._change(run_id, state=RunState.RUNNING)
        return self._conclude(run_id, then)

    # The port

    @property
    def kind(self) -> str:
        return "fake"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            executions=True,
            shows_in_flight=True,
            stops_runs=True,
            drops_in_flight=False,
            keeps_versions=True,
            draft_apart_from_live=True,
            keeps_ids=False,
            names_authors=True,
            replays_privately=True,
            reads_back_events=True,
            retriggers=True,
            tests_credentials=True,
        )

    def health(self) -> Health:
        return Health(ok=True, detail="in memory", now=self._now())

    def workflows(self) -> list[WorkflowInfo]:
        with self._lock:
            return [
                WorkflowInfo(id=w.id, name=w.name, active=w.live is not None, updated_at=w.updated_at)
                for w in self._workflows.values()
                if w.entry_of is None
            ]

    def draft_version(self, workflow_id: str) -> Version:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return workflow.version(str(workflow.versions[-1].platform_version))

    def live_version(self, workflow_id: str) -> Version | None:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return workflow.version(workflow.live) if workflow.live else None

    def versions(self, workflow_id: str) -> list[Version]:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return [workflow.version(str(v.platform_version)) for v in reversed(workflow.versions)]

    def save(self, workflow_id: str, definition: Definition) -> Version:
        with self._lock:
            workflow = self._workflow(workflow_id)
            workflow.name = str(definition["name"])
            workflow.settings = dict(definition.get("settings") or {})
            content = content_hash(definition)
            if not workflow.versions or workflow.versions[-1].hash != content:
                number = len(workflow.versions) + 1
                workflow.versions.append(
                    Version(
                        workflow_id=workflow_id,
                        hash=content,
                        definition=dict(definition),
                        platform_version=f"{workflow_id}-{number}",
                        author="fake",
                        created_at=self._now(),
                    )
                )
            workflow.updated_at = self._now()
            return self.draft_version(workflow_id)

    def create(self, definition: Definition, *, workflow_id: str | None = None) -> Version:  # noqa: ARG002 - gives ids
        with self._lock:
            new_id = f"workflow-{self._next()}"
            self._workflows[new_id] = _Workflow(id=new_id, name="", settings={}, versions=[])
            return self.save(new_id, definition)

    def hashes(self, definition: Definition) -> tuple[str, str]:
        return content_hash(definition), settings_hash(definition)

    def outline(self, definition: Definition) -> Outline:
        return n8n_outline.outline(definition)

    def credentials(self, workflow_id: str) -> list[Credential]:
        with self._lock:
            named = n8n_outline.credentials_of(self.draft_version(workflow_id).definition)
            return [self.vault.get(c.id, replace(c, state=CredentialState.MISSING)) for c in named]

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        with self._lock:
            workflow = self._workflow(workflow_id)
            wanted = platform_version or str(workflow.versions[-1].platform_version)
            workflow.live = workflow.version(wanted).platform_version
            workflow.routes.append((time.monotonic() + self._publish_delay_s, workflow.live))

    def deactivate(self, workflow_id: str) -> None:
        with self._lock:
            workflow = self._workflow(workflow_id)
            if workflow.live is not None:
                workflow.live = None
                workflow.routes.append((time.monotonic() + self._pause_delay_s, None))

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        with self._lock:
            return [
                detail.run
                for detail in self._runs.values()
                if (workflow_id is None or detail.run.workflow_id == workflow_id)
                and (not states or detail.run.state in states)
                and (since is None or detail.run.stopped_at is None or detail.run.stopped_at >= since)
            ]

    def latest_run(self, workflow_id: str) -> str | None:
        with self._lock:
            return next((i for i in reversed(self._runs) if self._runs[i].run.workflow_id == workflow_id), None)

    def run_detail(self, run_id: str) -> RunDetail:
        with self._lock:
            if run_id not in self._runs:
                raise Permanent(f"run {run_id}: the platform does not know it; check the id")
            return self._runs[run_id]

    def stop(self, run_id: str) -> None:
        with self._lock:
            if self.run_detail(run_id).run.state.in_flight:
                self._asleep.pop(run_id, None)
                self._end(run_id, RunState.CANCELED, {}, "the run was stopped")

    def retrigger(self, run_id: str) -> Run:
        with self._lock:
            old = self.run_detail(run_id)
            if old.run.state.in_flight or old.event is None:
                raise Permanent(f"run {run_id}: it has not ended, so it cannot be run again; stop it first")
            version = self.draft_version(old.run.workflow_id)
            new_id = self._record(old.run.workflow_id, version, old.event)
            self._change(new_id, retry_of=run_id)
        return self._perform(new_id, version.definition, old.event)

    def ingress_paused(self, workflow_id: str) -> bool:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return workflow.live is None and workflow.routed() is None

    def open_private_entry(self, version: Version) -> PrivateEntry:
        with self._lock:
            source = (version.workflow_id, version.hash)
            open_id = next((w.id for w in self._workflows.values() if w.entry_of == source), None)
            if open_id is None:
                open_id = self.add(version.definition)
                self._workflows[open_id].entry_of = source
            return PrivateEntry(
                workflow_id=open_id,
                source_workflow_id=version.workflow_id,
                version_hash=version.hash,
                address=f"fake:{open_id}",
            )

    def send(self, entry: PrivateEntry, event: Mapping[str, Any], *, idempotency_key: str) -> Run:
        with self._lock:
            if entry.workflow_id not in self._workflows:
                raise Permanent(f"event {idempotency_key}: the private entry is closed; open it again")
            version = self._workflows[entry.workflow_id].versions[-1]
            headers = {**(event.get("headers") or {}), KEY_HEADER: idempotency_key}
            replayed = {**event, "headers": headers}
            run_id = self._record(entry.workflow_id, version, replayed)
        return self._perform(run_id, version.definition, replayed)

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        with self._lock:
            by_key: dict[str, list[Run]] = {}
            for detail in self._runs.values():
                if detail.run.workflow_id == entry.workflow_id and detail.event is not None:
                    by_key.setdefault(detail.event["headers"][KEY_HEADER], []).append(detail.run)
            return by_key

    def close_private_entry(self, entry: PrivateEntry) -> None:
        with self._lock:
            self._workflows.pop(entry.workflow_id, None)
            for run_id in [i for i, d in self._runs.items() if d.run.workflow_id == entry.workflow_id]:
                del self._runs[run_id]

    def close(self) -> None:
        for thread in self._threads:
            thread.join(timeout=10)

    # Parts

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _workflow(self, workflow_id: str) -> _Workflow:
        workflow = self._workflows.get(workflow_id)
        if workflow is None:
            raise Permanent(f"workflow {workflow_id}: the platform does not know it; check the id in the catalogue")
        return workflow

    def _begin(self, workflow_id: str, event: Mapping[str, Any]) -> tuple[str, Definition]:
        with self._lock:
            workflow = self._workflow(workflow_id)
            routed = workflow.routed()
            if routed is None:
                raise EntryClosed(f"workflow {workflow_id} is paused")
            version = workflow.version(routed)
            return self._record(workflow_id, version, event), version.definition

    def _record(self, workflow_id: str, version: Version, event: Mapping[str, Any]) -> str:
        run = Run(
            id=str(self._next()),
            workflow_id=workflow_id,
            state=RunState.RUNNING,
            started_at=self._now(),
            stopped_at=None,
            version_hash=version.hash,
            platform_version=version.platform_version,
        )
        self._runs[run.id] = RunDetail(run=run, event=dict(event), outputs={})
        return run.id

    def _perform(self, run_id: str, definition: Definition, event: Mapping[str, Any]) -> Run:
        handlers = self._handlers
        handler = handlers.get(str(definition["name"])) if isinstance(handlers, Mapping) else handlers
        return self._conclude(run_id, lambda: handler(definition, event, run_id) if handler else {})

    def _conclude(self, run_id: str, work: Callable[[], Outputs]) -> Run:
        """Do the work, then end the run or let it sleep. What a run does after it was stopped is not recorded."""
        try:
            outputs = work()
        except Suspend as sleep:
            with self._lock:
                if run_id in self._runs and self._runs[run_id].run.state.in_flight:
                    self._asleep[run_id] = sleep.then
                    self._change(run_id, state=RunState.WAITING)
        except Exception as problem:  # noqa: BLE001 - whatever a handler raises is the run's error
            self._end(run_id, RunState.ERROR, {}, str(problem))
        else:
            self._end(run_id, RunState.SUCCESS, outputs, None)
        return self.run_detail(run_id).run

    def _end(self, run_id: str, state: RunState, outputs: Outputs, error: str | None) -> None:
        with self._lock:
            if run_id in self._runs and self._runs[run_id].run.state.in_flight:
                self._change(run_id, state=state, stopped_at=self._now())
                self._runs[run_id] = replace(self._runs[run_id], outputs=outputs, error=error)

    def _change(self, run_id: str, **changes: Any) -> None:
        detail = self._runs[run_id]
        self._runs[run_id] = replace(detail, run=replace(detail.run, **changes))


_IMPLEMENTS: Callable[[], Platform] = FakePlatform
