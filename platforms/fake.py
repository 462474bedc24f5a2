"""A platform in memory, with the habits of a real one: drafts apart from live, asynchronous publishing and pausing,
runs in flight across both, waiting runs, private entries. The contract suite proves it against live platforms.

A *handler* plays the workflow: ``handler(definition, event, run_id)`` does what the definition says, for instance
writes to a real database, and returns the outputs by node. It may raise (the run fails) or raise :class:`Suspend`
(the run waits). Definitions are in n8n's form; a node *Execute Workflow* shows in the outline as a call.

``capabilities`` makes it play a platform that can do less: :data:`FORGETFUL`, :data:`FLOW_ENGINE`, or
``replace(EVERYTHING, stops_runs=False)``. Without a capability it does what a real platform without it does:

- ``executions``: no runs are told, and asking for one is ``Permanent`` unless it is a private entry's;
  :meth:`FakePlatform.call` still returns it.
- ``shows_in_flight``: a run is told once it ended.
- ``stops_runs``, ``retriggers``, ``replays_privately``: asking for it is ``Permanent``.
- ``drops_in_flight`` (here what it *does*): a pause ends what is in flight; a handler asks
  :meth:`FakePlatform.alive` before it has an effect.
- ``keeps_versions``: no history, no names of versions, none with runs; activating a named one is ``Permanent``.
- ``draft_apart_from_live``: saving an active workflow publishes it. ``keeps_ids``: ``create`` takes the old id.
- ``names_authors``: no author, no time. ``reads_back_events``: ``sent`` tells nothing.
- ``tests_credentials``: one that is there is ``PRESENT``, whether it works or not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from platforms import n8n_outline
from platforms.base import (
    EVENT_HEADER,
    Capabilities,
    Credential,
    CredentialState,
    Definition,
    EntryKind,
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
from platforms.fake_model import EVERYTHING, FLOW_ENGINE, FORGETFUL, EntryClosed, Suspend, Workflow
from platforms.fake_runs import FakeRuns, Handler

__all__ = ["EVERYTHING", "FLOW_ENGINE", "FORGETFUL", "EntryClosed", "FakePlatform", "Suspend"]


class FakePlatform:
    """``handlers`` is one for all workflows or a mapping from workflow name. ``publish_delay_s`` and ``pause_delay_s``
    pass between the answer of an activation or deactivation and its effect; ``capabilities`` are what it can do."""

    def __init__(
        self,
        handlers: Handler | Mapping[str, Handler] | None = None,
        *,
        publish_delay_s: float = 0.0,
        pause_delay_s: float = 0.0,
        capabilities: Capabilities | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._publish_delay_s = publish_delay_s
        self._pause_delay_s = pause_delay_s
        self._can = capabilities or EVERYTHING
        self._now = now
        self._lock = threading.RLock()
        self._workflows: dict[str, Workflow] = {}
        self._runs = FakeRuns(handlers, now)
        self._count = 0
        self.vault: dict[str, Credential] = {}
        """The credentials that the platform has, by id; their values are nowhere. See :meth:`add_credential`."""

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
            self._runs.forget(workflow_id)

    def add_credential(self, credential_id: str, name: str, *, kind: str = "postgres") -> str:
        """The platform gets a credential that works; returns its id."""
        state = CredentialState.VALID
        self.vault[credential_id] = Credential(
            id=credential_id, name=name, kind=kind, state=state, changed_at=self._now()
        )
        return credential_id

    def set_credential(self, credential_id: str, state: CredentialState) -> None:
        """Somebody edits a credential, or it stops working; taken out of :attr:`vault` it is ``MISSING``."""
        detail = "" if state is CredentialState.VALID else f"it is {state}, says the platform in memory"
        changed = replace(self.vault[credential_id], state=state, detail=detail, changed_at=self._now())
        self.vault[credential_id] = changed

    def alive(self, run_id: str) -> bool:
        """Whether the run still is in flight: neither ended, stopped nor dropped by a pause."""
        return self._runs.alive(run_id)

    @property
    def handlers(self) -> Any:
        """Who plays the runs from now on: as given, to be changed or replaced."""
        return self._runs.handlers

    @handlers.setter
    def handlers(self, handlers: Handler | Mapping[str, Handler] | None) -> None:
        self._runs.handlers = handlers

    def begin(self, workflow_id: str, event: Mapping[str, Any]) -> str:
        """A run that has begun with the saved content, paused or not, and goes on until somebody stops it; its id."""
        return self._runs.begin(workflow_id, self.draft_version(workflow_id), event)

    def call(self, workflow_id: str, event: Mapping[str, Any]) -> Run:
        """An outside event, handled in the caller's thread until the run ends or waits. Raises ``EntryClosed``."""
        run_id, definition = self._begin(workflow_id, event)
        return self._runs.perform(run_id, definition, event)

    def start(self, workflow_id: str, event: Mapping[str, Any]) -> str:
        """An outside event, handled in a thread of its own; returns the run's id. Raises ``EntryClosed``."""
        run_id, definition = self._begin(workflow_id, event)
        self._runs.start(run_id, definition, event)
        return run_id

    def resume(self, run_id: str) -> Run:
        """Wake a waiting run and let it end. A run that was stopped meanwhile stays so."""
        return self._runs.wake(run_id)

    # The port

    @property
    def kind(self) -> str:
        return "fake"

    @property
    def capabilities(self) -> Capabilities:
        return self._can

    def health(self) -> Health:
        return Health(ok=True, detail="in memory", now=self._now())

    def workflows(self) -> list[WorkflowInfo]:
        with self._lock:
            told = self._can.keeps_versions
            return [
                WorkflowInfo(
                    id=w.id,
                    name=w.name,
                    active=w.live is not None,
                    updated_at=w.updated_at,
                    live=w.live if told else None,
                )
                for w in self._workflows.values()
                if w.entry_of is None
            ]

    def draft_version(self, workflow_id: str) -> Version:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return self._shown(workflow.version(workflow.newest()))

    def live_version(self, workflow_id: str) -> Version | None:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return self._shown(workflow.version(workflow.live)) if workflow.live else None

    def versions(self, workflow_id: str) -> list[Version]:
        with self._lock:
            workflow = self._workflow(workflow_id)
            named = [str(v.platform_version) for v in reversed(workflow.versions)]
            return [self._shown(workflow.version(name)) for name in named] if self._can.keeps_versions else []

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
            if workflow.live and not self._can.draft_apart_from_live:
                self._publish(workflow, workflow.newest())
            return self.draft_version(workflow_id)

    def create(self, definition: Definition, *, workflow_id: str | None = None) -> Version:
        with self._lock:
            own = workflow_id if workflow_id and self._can.keeps_ids else f"workflow-{self._next()}"
            self._workflows.setdefault(own, Workflow(id=own, name="", settings={}, versions=[]))
            return self.save(own, definition)

    def hashes(self, definition: Definition) -> tuple[str, str]:
        return content_hash(definition), settings_hash(definition)

    def outline(self, definition: Definition) -> Outline:
        return n8n_outline.outline(definition)

    def credentials(self, workflow_id: str) -> list[Credential]:
        with self._lock:
            named = n8n_outline.credentials_of(self.draft_version(workflow_id).definition)
            found = [self.vault.get(c.id, replace(c, state=CredentialState.MISSING)) for c in named]
        told = CredentialState.VALID, CredentialState.INVALID
        if not self._can.tests_credentials:
            found = [replace(c, state=CredentialState.PRESENT) if c.state in told else c for c in found]
        return found if self._can.names_authors else [replace(c, changed_at=None) for c in found]

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        with self._lock:
            workflow = self._workflow(workflow_id)
            if platform_version and not self._can.keeps_versions:
                raise Permanent(
                    f"workflow {workflow_id}: version {platform_version} is not kept; save its content first"
                )
            self._publish(workflow, platform_version or workflow.newest())

    def deactivate(self, workflow_id: str) -> None:
        with self._lock:
            workflow = self._workflow(workflow_id)
            if workflow.live is not None:
                workflow.live = None
                workflow.route(None, after_s=self._pause_delay_s)
                if self._can.drops_in_flight:
                    self._runs.drop(workflow_id)

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        with self._lock:
            return [
                run
                for run in map(self._told, self._visible())
                if (workflow_id is None or run.workflow_id == workflow_id)
                and (not states or run.state in states)
                and (since is None or run.stopped_at is None or run.stopped_at >= since)
            ]

    def latest_run(self, workflow_id: str) -> str | None:
        with self._lock:
            return next((run.id for run in reversed(self._visible()) if run.workflow_id == workflow_id), None)

    def run_detail(self, run_id: str) -> RunDetail:
        with self._lock:
            if run_id not in {run.id for run in self._visible()} and not self._replayed(run_id):
                raise Permanent(f"run {run_id}: the platform does not know it; check the id")
            detail = self._runs.by_id[run_id]
            return replace(detail, run=self._told(detail.run))

    def stop(self, run_id: str) -> None:
        with self._lock:
            if not self._can.stops_runs:
                raise Permanent(f"run {run_id}: the platform cannot stop runs; wait for its end behind the fence")
            self.run_detail(run_id)
            self._runs.end(run_id, RunState.CANCELED, {}, "the run was stopped")

    def retrigger(self, run_id: str) -> Run:
        with self._lock:
            if not self._can.retriggers:
                raise Permanent(f"run {run_id}: the platform cannot run it again; replay its event")
            old = self.run_detail(run_id)
            if old.run.state.in_flight or old.run.state is RunState.SUCCESS or old.event is None:
                raise Permanent(
                    f"run {run_id}: only a run that failed or was stopped can be run again; replay its event"
                )
            workflow = self._workflow(old.run.workflow_id)
            version = workflow.version(workflow.newest())
            new_id = self._runs.begin(workflow.id, version, old.event, retry_of=run_id)
        return self._told(self._runs.perform(new_id, version.definition, old.event))

    def ingress_paused(self, workflow_id: str) -> bool:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return workflow.live is None and workflow.routed() is None

    def ingress_open(self, workflow_id: str) -> bool:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return workflow.live is not None and workflow.routed() == workflow.live

    def open_private_entry(self, version: Version) -> PrivateEntry:
        with self._lock:
            copy = self._copy(version, "entry")
            self._refuse_paused_callees(copy, copy.newest())
            return PrivateEntry(
                workflow_id=copy.id,
                source_workflow_id=version.workflow_id,
                version_hash=version.hash,
                address=f"fake:{copy.id}",
            )

    def open_private_callee(self, version: Version) -> PrivateEntry:
        if all(entry.kind is not EntryKind.CALL for entry in self.outline(version.definition).entries):
            raise Permanent(f"workflow {version.workflow_id}: nothing in it can be called; give it a trigger for calls")
        with self._lock:
            copy = self._copy(version, "callee")
            if copy.live is None:
                self._publish(copy, copy.newest(), after_s=0)
            return PrivateEntry(
                workflow_id=copy.id,
                source_workflow_id=version.workflow_id,
                version_hash=version.hash,
                address="",
                called_as={version.workflow_id: copy.id},
            )

    def send(self, entry: PrivateEntry, event: Mapping[str, Any], *, idempotency_key: str) -> Run:
        with self._lock:
            if entry.workflow_id not in self._workflows:
                raise Permanent(f"event {idempotency_key}: the private entry is closed; open it again")
            version = self._workflows[entry.workflow_id].versions[-1]
            headers = {**(event.get("headers") or {}), EVENT_HEADER: idempotency_key}
            replayed = {**event, "headers": headers}
            run_id = self._runs.begin(entry.workflow_id, version, replayed)
        run = self._told(self._runs.perform(run_id, version.definition, replayed))
        return replace(run, version_hash=entry.version_hash)

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        by_key: dict[str, list[Run]] = {}
        with self._lock:
            for detail in self._runs.by_id.values() if self._can.reads_back_events else ():
                if detail.run.workflow_id == entry.workflow_id and detail.event is not None:
                    by_key.setdefault(detail.event["headers"][EVENT_HEADER], []).append(
                        replace(self._told(detail.run), version_hash=entry.version_hash)
                    )
        return by_key

    def close_private_entry(self, entry: PrivateEntry) -> None:
        self.delete(entry.workflow_id)

    def close(self) -> None:
        self._runs.join()

    # Parts

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _workflow(self, workflow_id: str) -> Workflow:
        workflow = self._workflows.get(workflow_id)
        if workflow is None:
            raise Permanent(f"workflow {workflow_id}: the platform does not know it; check the id in the catalogue")
        return workflow

    def _copy(self, version: Version, purpose: str) -> Workflow:
        """The open copy, or a new one."""
        if not self._can.replays_privately:
            raise Permanent(f"workflow {version.workflow_id}: the platform has no private entries; replay by its own")
        source = (version.workflow_id, version.hash, purpose)
        found = next((w for w in self._workflows.values() if w.entry_of == source), None)
        if found is None:
            self._workflow(version.workflow_id)
            found = self._workflows[self.add(version.definition)]
            found.entry_of = source
        return found

    def _publish(self, workflow: Workflow, name: str, *, after_s: float | None = None) -> None:
        self._refuse_paused_callees(workflow, name)
        workflow.live = workflow.version(name).platform_version
        workflow.route(name, after_s=self._publish_delay_s if after_s is None else after_s)

    def _refuse_paused_callees(self, workflow: Workflow, name: str) -> None:
        called = {call for node in self.outline(workflow.version(name).definition).nodes for call in node.calls}
        for other in (self._workflows[call] for call in sorted(called & self._workflows.keys()) if call != workflow.id):
            if self._can.draft_apart_from_live and other.live is None:
                raise Permanent(
                    f"workflow {workflow.id}: it calls {other.id}, which is not active; activate that first"
                )

    def _begin(self, workflow_id: str, event: Mapping[str, Any]) -> tuple[str, Definition]:
        with self._lock:
            workflow = self._workflow(workflow_id)
            routed = workflow.routed()
            if routed is None:
                raise EntryClosed(f"workflow {workflow_id} is paused")
            version = workflow.version(routed)
            return self._runs.begin(workflow_id, version, event), version.definition

    def _visible(self) -> list[Run]:
        """The runs that the platform tells of, by their start."""
        runs = [detail.run for detail in self._runs.by_id.values()] if self._can.executions else []
        return runs if self._can.shows_in_flight else [run for run in runs if not run.state.in_flight]

    def _replayed(self, run_id: str) -> bool:
        """Whether it is a run of a private entry of a platform that tells of no others."""
        detail = None if self._can.executions else self._runs.by_id.get(run_id)
        return detail is not None and self._workflow(detail.run.workflow_id).entry_of is not None

    def _told(self, run: Run) -> Run:
        return run if self._can.keeps_versions else replace(run, version_hash=None, platform_version=None)

    def _shown(self, version: Version) -> Version:
        if not self._can.keeps_versions:
            version = replace(version, platform_version=None)
        return version if self._can.names_authors else replace(version, author=None, created_at=None)


_IMPLEMENTS: Callable[[], Platform] = FakePlatform
