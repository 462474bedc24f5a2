"""Faults of a platform, injected over any other: for drills and tests that must see them handled.

The pause that lies, the publish that stays a draft and the stopped run that completes after all are known faults of
real platforms (n8n issues 21770, 39037 and 25165).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from platforms.base import (
    Definition,
    Health,
    Permanent,
    Platform,
    PrivateEntry,
    Retryable,
    Run,
    RunDetail,
    RunState,
    Version,
    WorkflowInfo,
)
from platforms.wrapper import Wrapper

T = TypeVar("T")


class FaultKind(StrEnum):
    TIMEOUT = "timeout"
    """No answer; the call did not happen."""
    SERVER_ERROR = "server-error"
    """HTTP 500; the call did not happen."""
    LOST_REPLY = "lost-reply"
    """The call happened, its answer is lost."""
    CUT_ANSWER = "cut-answer"
    """The call happened, its answer is broken JSON."""
    SLOW = "slow"
    """The call happens ``seconds`` later."""
    EXPIRED_TOKEN = "expired-token"  # noqa: S105 - the name of a fault, no secret
    """The key is refused."""
    CLOCK_SKEW = "clock-skew"
    """Every time the platform tells is ``seconds`` ahead (or behind, if negative)."""
    LYING_PAUSE = "lying-pause"
    """Deactivation answers ok and the API says inactive, but runs go on; the workflow's own entry still answers."""
    LYING_PAUSE_AND_ENTRY = "lying-pause-and-entry"
    """The same, and the entry claims to be paused too: only runs and writes tell."""
    DRAFT_ONLY_PUBLISH = "draft-only-publish"
    """Activation answers ok, the draft reads back fine, production keeps the version it had."""

    CLOSED_ENTRY = "closed-entry"
    """Activation answers ok and reads back live; the first ``times`` that the entry is asked it does not answer."""
    STOPPED_RUN_COMPLETES = "stopped-run-completes"
    """A stopped run reads as canceled, goes on, and overwrites its status when it ends."""


LASTING = frozenset(
    {
        FaultKind.LYING_PAUSE,
        FaultKind.LYING_PAUSE_AND_ENTRY,
        FaultKind.DRAFT_ONLY_PUBLISH,
        FaultKind.CLOSED_ENTRY,
        FaultKind.STOPPED_RUN_COMPLETES,
        FaultKind.CLOCK_SKEW,
    }
)
"""Misbehaviour, rather than a call that goes wrong."""

LIES = (FaultKind.LYING_PAUSE, FaultKind.LYING_PAUSE_AND_ENTRY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """``method`` is a method of the port, ``None`` any; ``times`` how many calls are hit, ``None`` all; the first
    ``skip`` matching calls are spared. ``workflow_id`` narrows lasting misbehaviour to one workflow."""

    kind: FaultKind
    method: str | None = None
    times: int | None = 1
    skip: int = 0
    seconds: float = 0.0
    workflow_id: str | None = None


class Faulty(Wrapper):
    """``platform`` with ``faults``. ``hits`` counts how often each fault was met, to prove that a test met it."""

    def __init__(self, platform: Platform, faults: Sequence[Fault]) -> None:
        super().__init__(platform)
        self.faults = tuple(faults)
        self.hits = [0] * len(self.faults)
        self._seen = [0] * len(self.faults)
        self._lock = threading.Lock()
        self._pretended_inactive: set[str] = set()
        self._last_live: dict[str, str | None] = {}
        self._pretended_stopped: dict[str, datetime] = {}
        self._skew = timedelta(seconds=sum(f.seconds for f in self.faults if f.kind is FaultKind.CLOCK_SKEW))

    def __repr__(self) -> str:
        return f"Faulty({self._platform!r}, {[str(fault.kind) for fault in self.faults]})"

    def _strikes(self, index: int, method: str) -> bool:
        fault = self.faults[index]
        if fault.method not in (None, method):
            return False
        with self._lock:
            self._seen[index] += 1
            if self._seen[index] <= fault.skip or (fault.times is not None and self.hits[index] >= fault.times):
                return False
            self.hits[index] += 1
            return True

    def _behaves(self, kinds: Sequence[FaultKind], workflow_id: str) -> FaultKind | None:
        """The first lasting misbehaviour of ``kinds`` that is set for the workflow."""
        for fault in self.faults:
            if fault.kind in kinds and fault.workflow_id in (None, workflow_id):
                return fault.kind
        return None

    def _call(self, method: str, call: Callable[[], T]) -> T:
        after: list[Retryable] = []
        for index, fault in enumerate(self.faults):
            if fault.kind in LASTING or not self._strikes(index, method):
                continue
            if fault.kind is FaultKind.TIMEOUT:
                raise Retryable(f"{method}: the platform timed out (injected); check that it runs")
            if fault.kind is FaultKind.SERVER_ERROR:
                raise Retryable(f"{method}: the platform answered 500 (injected); trying again may help")
            if fault.kind is FaultKind.EXPIRED_TOKEN:
                raise Permanent(f"{method}: the platform refused the API key (401, injected); make a new key")
            if fault.kind is FaultKind.SLOW:
                time.sleep(fault.seconds)
            elif fault.kind is FaultKind.LOST_REPLY:
                after.append(Retryable(f"{method}: the answer was lost (injected); read the state back"))
            elif fault.kind is FaultKind.CUT_ANSWER:
                after.append(Retryable(f"{method}: the answer was cut off (injected); trying again may help"))
        result = call()
        if after:
            raise after[0]
        return result

    def _later(self, instant: datetime | None) -> datetime | None:
        return instant + self._skew if instant else None

    def _run(self, run: Run) -> Run:
        stopped = self._pretended_stopped.get(run.id)
        if stopped is not None and run.state.in_flight:
            run = replace(run, state=RunState.CANCELED, stopped_at=stopped)
        return replace(run, started_at=self._later(run.started_at), stopped_at=self._later(run.stopped_at))

    def _version(self, version: Version) -> Version:
        return replace(version, created_at=self._later(version.created_at))

    def health(self) -> Health:
        health = self._call("health", self._platform.health)
        return replace(health, now=health.now + self._skew)

    def workflows(self) -> list[WorkflowInfo]:
        listed = self._call("workflows", self._platform.workflows)
        return [
            replace(w, active=w.active and w.id not in self._pretended_inactive, updated_at=self._later(w.updated_at))
            for w in listed
        ]

    def draft_version(self, workflow_id: str) -> Version:
        return self._version(self._call("draft_version", lambda: self._platform.draft_version(workflow_id)))

    def live_version(self, workflow_id: str) -> Version | None:
        live = self._call("live_version", lambda: self._platform.live_version(workflow_id))
        return None if live is None or workflow_id in self._pretended_inactive else self._version(live)

    def versions(self, workflow_id: str) -> list[Version]:
        return [self._version(v) for v in self._call("versions", lambda: self._platform.versions(workflow_id))]

    def save(self, workflow_id: str, definition: Definition) -> Version:
        return self._version(self._call("save", lambda: self._platform.save(workflow_id, definition)))

    def create(self, definition: Definition, *, workflow_id: str | None = None) -> Version:
        return self._version(super().create(definition, workflow_id=workflow_id))

    def retrigger(self, run_id: str) -> Run:
        return self._run(super().retrigger(run_id))

    def activate(self, workflow_id: str, platform_version: str | None = None) -> None:
        if self._behaves([FaultKind.DRAFT_ONLY_PUBLISH], workflow_id):
            self._call("activate", lambda: self._activate_old(workflow_id, platform_version))
        else:
            self._call("activate", lambda: self._platform.activate(workflow_id, platform_version))
        self._pretended_inactive.discard(workflow_id)

    def _activate_old(self, workflow_id: str, platform_version: str | None) -> None:
        if self._platform.live_version(workflow_id) is None:
            self._platform.activate(workflow_id, self._last_live.get(workflow_id, platform_version))

    def deactivate(self, workflow_id: str) -> None:
        if self._behaves(LIES, workflow_id):
            self._call("deactivate", lambda: self._pretended_inactive.add(workflow_id))
            return
        if self._behaves([FaultKind.DRAFT_ONLY_PUBLISH], workflow_id):
            live = self._platform.live_version(workflow_id)
            if live is not None:
                self._last_live[workflow_id] = live.platform_version
        self._call("deactivate", lambda: self._platform.deactivate(workflow_id))

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        true_since = since - self._skew if since else None
        asked: Sequence[RunState] = () if self._pretended_stopped else states
        listed = self._call("runs", lambda: self._platform.runs(workflow_id, since=true_since, states=asked))
        told = [self._run(run) for run in listed]
        return [run for run in told if not states or run.state in states]

    def run_detail(self, run_id: str) -> RunDetail:
        detail = self._call("run_detail", lambda: self._platform.run_detail(run_id))
        return replace(detail, run=self._run(detail.run))

    def stop(self, run_id: str) -> None:
        if self._survives_stops(run_id):
            at = self._platform.health().now
            self._call("stop", lambda: self._pretended_stopped.setdefault(run_id, at))
        else:
            self._call("stop", lambda: self._platform.stop(run_id))

    def _survives_stops(self, run_id: str) -> bool:
        kind = FaultKind.STOPPED_RUN_COMPLETES
        if all(fault.kind is not kind for fault in self.faults):
            return False
        return self._behaves([kind], self._platform.run_detail(run_id).run.workflow_id) is kind

    def ingress_paused(self, workflow_id: str) -> bool:
        paused = self._call("ingress_paused", lambda: self._platform.ingress_paused(workflow_id))
        lied_about = workflow_id in self._pretended_inactive
        return paused or (lied_about and self._behaves(LIES, workflow_id) is FaultKind.LYING_PAUSE_AND_ENTRY)

    def ingress_open(self, workflow_id: str) -> bool:
        opened = self._call("ingress_open", lambda: self._platform.ingress_open(workflow_id))
        closing = [
            index
            for index, fault in enumerate(self.faults)
            if fault.kind is FaultKind.CLOSED_ENTRY and fault.workflow_id in (None, workflow_id)
        ]
        return opened and not any(self._strikes(index, "ingress_open") for index in closing)

    def send(self, entry: PrivateEntry, event: Mapping[str, object], *, idempotency_key: str) -> Run:
        return self._run(self._call("send", lambda: self._platform.send(entry, event, idempotency_key=idempotency_key)))

    def sent(self, entry: PrivateEntry) -> dict[str, list[Run]]:
        found = self._call("sent", lambda: self._platform.sent(entry))
        return {key: [self._run(run) for run in runs] for key, runs in found.items()}


_IMPLEMENTS: Callable[[Platform, Sequence[Fault]], Platform] = Faulty
