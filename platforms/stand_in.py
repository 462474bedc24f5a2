"""Runs for a platform that lists none: the events which the ingress passed on to it stand in for them.

An event is a run: its id is the event's, it began when the event was passed on, ended when the platform answered, and
failed if the answer was an error. What had no answer when the workflow was paused, on a platform that drops what is in
flight, is *canceled*; the ingress keeps its event. What is not seen through the ingress (schedules, messages) is no
run here: attribution calls such writes unattributed, and containment relies on the fence for them. Runs of private
copies never pass the ingress: by their ids the platform itself is asked.

Only a workflow that was found inactive, or that was known and is gone, has dropped something: whoever sent an event
that was dropped sends it again. Events of a workflow that cannot be told are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from platforms.base import Permanent, Platform, Run, RunDetail, RunState, WorkflowInfo
from platforms.wrapper import Wrapper

NO_ANSWER = {
    "passing": RunState.RUNNING,
    "sending": RunState.RUNNING,
    "dropped": RunState.CANCELED,
    "cut": RunState.CRASHED,
    "unknown": RunState.CRASHED,
    "done": RunState.SUCCESS,
}


class Passed(Protocol):
    """An event that the ingress passed on, or may have."""

    @property
    def id(self) -> str: ...

    @property
    def workflow(self) -> str:
        """The catalogue's key."""
        ...

    @property
    def state(self) -> str: ...

    @property
    def forwarded_at(self) -> datetime | None: ...

    @property
    def answered_at(self) -> datetime | None: ...

    @property
    def status(self) -> int | None:
        """HTTP status of the platform's answer."""
        ...

    @property
    def retry_of(self) -> str | None: ...

    @property
    def why(self) -> str | None: ...

    @property
    def input(self) -> Mapping[str, Any]:
        """``body``, ``headers`` and ``query`` as a trigger sees them."""
        ...


class EventLog(Protocol):
    """What the ingress remembers; :class:`ingress.queue.Queue` is one. An empty log stands for no ingress."""

    def passed(
        self, workflow: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Sequence[Passed]:
        """Events passed on before ``until``, unanswered or answered at or after ``since``, oldest first."""
        ...

    def in_flight(self, workflow: str | None = None) -> Sequence[Passed]: ...

    def latest(self, workflow: str) -> str | None: ...

    def event(self, event_id: str) -> Passed:
        """Raises ``LookupError`` for an id that is none of its events."""
        ...

    def drop(self, event_id: str, why: str) -> object: ...


Locate = Callable[[Sequence[WorkflowInfo]], Mapping[str, WorkflowInfo | None]]
"""Which of the listed workflows is which, by the catalogue's key: ``None`` for one that was known and is gone, and
without those that cannot be told."""


class StandIn(Wrapper):
    """``platform`` with runs from ``log``. Stands aside where the platform lists its runs itself. ``capabilities`` stay
    the platform's own."""

    def __init__(self, platform: Platform, log: EventLog, locate: Locate) -> None:
        super().__init__(platform)
        self._log = log
        self._locate = locate
        self._key_of: dict[str, str] = {}
        self._needed = not platform.capabilities.executions

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        if not self._needed:
            return super().runs(workflow_id, since=since, states=states)
        key = None if workflow_id is None else self._key(workflow_id)
        if workflow_id is not None and key is None:
            return []
        if states and all(s.in_flight for s in states):
            found = self._log.in_flight(key)
        else:
            found = self._log.passed(key, since)
        if any(e.state == "passing" for e in found) and self._drop_what_a_pause_dropped(found):
            return self.runs(workflow_id, since=since, states=states)
        ids = self._ids() if found else {}
        runs = [_run(event, ids[event.workflow]) for event in found if event.workflow in ids]
        return [r for r in runs if not states or r.state in states]

    def latest_run(self, workflow_id: str) -> str | None:
        if not self._needed:
            return super().latest_run(workflow_id)
        key = self._key(workflow_id)
        return None if key is None else self._log.latest(key)

    def run_detail(self, run_id: str) -> RunDetail:
        if not self._needed:
            return super().run_detail(run_id)
        event = self._event(run_id)
        if event is None:
            return super().run_detail(run_id)
        run = _run(event, self._ids().get(event.workflow, ""))
        error = event.why
        if event.status is not None and event.status >= 400:
            error = f"answered {event.status}"
        return RunDetail(run=run, event=event.input, outputs={}, error=error, status=event.status)

    def stop(self, run_id: str) -> None:
        """Nothing can be stopped here; an event in flight counts as stopped once its workflow is paused."""
        event = self._event(run_id) if self._needed else None
        if event is None:
            super().stop(run_id)
            return
        if event.state == "passing" and not self._drop_what_a_pause_dropped([event]):
            raise Permanent(f"run {run_id}: {self.kind} cannot stop it; pause its workflow")

    def _drop_what_a_pause_dropped(self, events: Sequence[Passed]) -> bool:
        """Whether an event was in flight in a workflow that is paused or gone now, on a platform that drops those."""
        if not self.capabilities.drops_in_flight:
            return False
        located = self._located()
        inactive = {key for key, info in located.items() if info is None or not info.active}
        dropped = [e for e in events if e.state == "passing" and e.workflow in inactive]
        for event in dropped:
            self._log.drop(event.id, "the pause dropped it")
        return bool(dropped)

    def _event(self, run_id: str) -> Passed | None:
        try:
            return self._log.event(run_id)
        except LookupError:
            return None

    def _located(self) -> Mapping[str, WorkflowInfo | None]:
        return self._locate(self._platform.workflows())

    def _ids(self) -> dict[str, str]:
        """Ids of the platform by key, and the other way round for later."""
        ids = {key: info.id for key, info in self._located().items() if info is not None}
        self._key_of |= {platform_id: key for key, platform_id in ids.items()}
        return ids

    def _key(self, workflow_id: str) -> str | None:
        if workflow_id not in self._key_of:
            self._ids()
        return self._key_of.get(workflow_id)


def _run(event: Passed, workflow_id: str) -> Run:
    failed = event.status is not None and event.status >= 400
    answered = RunState.ERROR if failed else RunState.SUCCESS
    state = NO_ANSWER.get(event.state, answered)
    return Run(
        id=event.id,
        workflow_id=workflow_id,
        state=state,
        started_at=event.forwarded_at,
        stopped_at=None if state.in_flight else (event.answered_at or event.forwarded_at or datetime.now(UTC)),
        retry_of=event.retry_of,
    )


_IMPLEMENTS: Callable[[Platform, EventLog, Locate], Platform] = StandIn
