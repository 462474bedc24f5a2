"""The runs of the in-memory platform: begun, performed by a handler, put to sleep, woken, stopped, dropped."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from platforms.base import Definition, Run, RunDetail, RunState, Version
from platforms.fake_model import Outputs, Suspend

Handler = Callable[[Definition, Mapping[str, Any], str], Outputs]


class FakeRuns:
    """All runs by id, in the order of their start. What a run does after its end was recorded is not recorded."""

    def __init__(self, handlers: Handler | Mapping[str, Handler] | None, now: Callable[[], datetime]) -> None:
        self.by_id: dict[str, RunDetail] = {}
        self.handlers = handlers
        self._now = now
        self._lock = threading.RLock()
        self._asleep: dict[str, Callable[[], Outputs]] = {}
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count(1)

    def alive(self, run_id: str) -> bool:
        with self._lock:
            return run_id in self.by_id and self.by_id[run_id].run.state.in_flight

    def begin(
        self, workflow_id: str, version: Version, event: Mapping[str, Any], *, retry_of: str | None = None
    ) -> str:
        """A run that has started; its id."""
        run = Run(
            id=str(next(self._numbers)),
            workflow_id=workflow_id,
            state=RunState.RUNNING,
            started_at=self._now(),
            stopped_at=None,
            version_hash=version.hash,
            retry_of=retry_of,
            platform_version=version.platform_version,
        )
        with self._lock:
            self.by_id[run.id] = RunDetail(run=run, event=dict(event), outputs={})
        return run.id

    def perform(self, run_id: str, definition: Definition, event: Mapping[str, Any]) -> Run:
        """Let the handler do the work in the caller's thread; the run as it then is."""
        handlers = self.handlers
        handler = handlers.get(str(definition["name"])) if isinstance(handlers, Mapping) else handlers
        return self._conclude(run_id, lambda: handler(definition, event, run_id) if handler else {})

    def start(self, run_id: str, definition: Definition, event: Mapping[str, Any]) -> None:
        """The same in a thread of its own."""
        thread = threading.Thread(target=self.perform, args=(run_id, definition, event), daemon=True)
        self._threads.append(thread)
        thread.start()

    def wake(self, run_id: str) -> Run:
        """Let a run that waits end. One that was stopped meanwhile stays so."""
        with self._lock:
            then = self._asleep.pop(run_id, None)
            if then is None or not self.by_id[run_id].run.state.in_flight:
                return self.by_id[run_id].run
            self._change(run_id, state=RunState.RUNNING)
        return self._conclude(run_id, then)

    def end(self, run_id: str, state: RunState, outputs: Outputs, error: str | None) -> None:
        """Record the end, unless one is recorded."""
        with self._lock:
            if self.alive(run_id):
                self._asleep.pop(run_id, None)
                self._change(run_id, state=state, stopped_at=self._now())
                self.by_id[run_id] = replace(self.by_id[run_id], outputs=outputs, error=error)

    def drop(self, workflow_id: str) -> None:
        """A pause throws away what is in flight."""
        with self._lock:
            for run_id, detail in self.by_id.items():
                if detail.run.workflow_id == workflow_id:
                    self.end(run_id, RunState.CANCELED, {}, "the pause dropped the run")

    def forget(self, workflow_id: str) -> None:
        """The workflow is deleted, and its runs with it."""
        with self._lock:
            for run_id in [i for i, d in self.by_id.items() if d.run.workflow_id == workflow_id]:
                del self.by_id[run_id]

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=10)

    def _conclude(self, run_id: str, work: Callable[[], Outputs]) -> Run:
        last = self.by_id[run_id].run
        try:
            outputs = work()
        except Suspend as sleep:
            with self._lock:
                if self.alive(run_id):
                    self._asleep[run_id] = sleep.then
                    self._change(run_id, state=RunState.WAITING)
        except Exception as problem:  # noqa: BLE001 - whatever a handler raises is the run's error
            self.end(run_id, RunState.ERROR, {}, str(problem))
        else:
            self.end(run_id, RunState.SUCCESS, outputs, None)
        with self._lock:
            return self.by_id[run_id].run if run_id in self.by_id else last

    def _change(self, run_id: str, **changes: Any) -> None:
        detail = self.by_id[run_id]
        self.by_id[run_id] = replace(detail, run=replace(detail.run, **changes))
