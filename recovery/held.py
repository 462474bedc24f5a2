"""Events that come while workflows are paused: the ingress holds them from the pause on, and lets them go afterwards.

Held events are sent in the order in which they came, once each (:mod:`recovery.delivery`), one after the other and no
faster than the catalogue says. What comes meanwhile queues behind them, and follows several at once, as live traffic
does; a workflow is free again once nothing waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx

from catalog import secrets
from ingress import request as wire
from ingress.errors import IngressError
from ingress.model import Event, Hold, Route, State
from ingress.queue import Queue
from ingress.reading import Brief
from ledger import kinds
from platforms.base import EntryKind, NotSent, Retryable, Run
from recovery import events, replayed
from recovery.context import AppContext
from recovery.delivery import Courier, Delivered, Outcome, keeps_runs
from recovery.errors import one_line

ANSWER_S = 300.0
"""How long a workflow may take to answer a released event."""
LOOK_BACK = timedelta(seconds=60)
"""How far the platform's clock may be behind ours when a released event is looked up."""
GATEWAY = (502, 503, 504)
"""Answers of what stands before a platform: they do not tell whether the event arrived."""
SAID_EVERY_S = 5.0
PAGE = 50
AT_ONCE = 8
BREATH_S = 0.02
COUNTING = threading.Lock()

STATE_OF = {
    Outcome.DONE: State.SENT,
    Outcome.RUNNING: State.SENT,
    Outcome.FAILED: State.FAILED,
    Outcome.UNKNOWN: State.UNKNOWN,
}

Say = Callable[[str], None]


@dataclass(kw_only=True)
class Released:
    """What became of held events; ids of those that a person should look at."""

    sent: int = 0
    repeated: int = 0
    failed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    by_workflow: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, event: Event, state: State) -> None:
        with COUNTING:
            if state is State.REPEATED:
                self.repeated += 1
            elif state is State.UNKNOWN:
                self.unknown.append(event.id)
            else:
                self.sent += 1
                self.by_workflow[event.workflow] = self.by_workflow.get(event.workflow, 0) + 1
            if state is State.FAILED:
                self.failed.append(event.id)


def hold(ctx: AppContext, workflows: Iterable[str], incident: str) -> tuple[str, ...]:
    """From now on the ingress passes nothing on to these workflows. Idempotent; what is new is recorded. Without an
    ingress there is nothing to hold. Never raises: a pause must not wait for a queue; the record says what failed.
    Returns the workflows that are held."""
    if ctx.events is None:
        return ()
    held, new, problem = [], {}, None
    for key in workflows:
        trigger = ctx.app.workflow(key).trigger
        try:
            if ctx.events.hold(key, trigger.during_pause, per_s=trigger.replay_per_s, incident=incident):
                new[key] = trigger.during_pause
            held.append(key)
        except IngressError as error:
            problem = one_line(error)
    if new or problem:
        body = {"workflows": sorted(new), "policy": new, **({"error": problem} if problem else {})}
        ctx.ledger.append(kinds.EVENTS_HELD, app=ctx.app.key, incident=incident, body=body)
    return tuple(held)


def routes(ctx: AppContext) -> tuple[Route, ...]:
    """The webhooks of the app's workflows, as their live and saved definitions say."""
    found: dict[tuple[str, str], Route] = {}
    infos = ctx.infos(partly=True)
    for workflow in (w for w in ctx.app.workflows if w.key in infos):
        platform_id = infos[workflow.key].id
        for version in (ctx.platform.live_version(platform_id), ctx.platform.draft_version(platform_id)):
            for entry in ctx.platform.outline(version.definition).entries if version is not None else ():
                if entry.kind is EntryKind.WEBHOOK and entry.method and entry.path:
                    route = Route(
                        workflow=workflow.key,
                        method=entry.method,
                        path=entry.path,
                        event_key=workflow.trigger.event_key,
                    )
                    found.setdefault((route.method, route.path), route)
    return tuple(found.values())


class Going:
    """Events on their way, several at once: what came since the resume goes as it would have come to an active
    workflow, in order and side by side. One by one, a busy workflow would never be free again."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(AT_ONCE)
        self.sent: dict[str, Future[None]] = {}

    def send(self, event_id: str, how: Callable[[], None]) -> None:
        """As soon as there is room."""
        while len(under_way := [f for f in self.sent.values() if not f.done()]) >= AT_ONCE:
            wait(under_way, return_when=FIRST_COMPLETED)
        self.check()
        self.sent[event_id] = self.pool.submit(how)

    def breathe(self) -> None:
        """A moment, so that what was sent last is on record as begun."""
        wait([f for f in self.sent.values() if not f.done()], timeout=BREATH_S)
        self.check()

    def check(self) -> None:
        """Raises what one of them raised."""
        for future in self.sent.values():
            if future.done():
                future.result()


@dataclass(kw_only=True)
class Release:
    """Letting the held events of workflows go, once they are active again. ``handled`` are ``(workflow, event key)``
    that recoveries replayed, ``unsure`` those that they may have replayed; ``dropped`` says whether an event that the
    pause dropped may be sent again: its run was undone, or wrote nothing. Continues where a killed one stopped."""

    ctx: AppContext
    queue: Queue
    workflows: tuple[str, ...]
    incident: str | None
    recovery: str | None
    say: Say
    handled: Collection[tuple[str, str]] = ()
    unsure: Collection[tuple[str, str]] = ()
    dropped: Callable[[Event], bool] = lambda _: False
    transport: httpx.BaseTransport | None = None
    _next_at: dict[str, float] = field(default_factory=dict)
    _keeping: dict[str, bool] = field(default_factory=dict)

    def run(self) -> Released:
        """Send until nothing waits. Raises ``NotSent`` when a workflow does not take its events: they stay held, and
        running again goes on."""
        began = said = time.monotonic()
        done = Released()
        self._courier = Courier(self.ctx, incident=self.incident, recovery=self.recovery)
        self._base = secrets.resolve(self.ctx.app.platform.url, self.ctx.home / "secrets.env")
        self._infos = self.ctx.infos(partly=True)
        how: dict[str, Any] = {"limits": httpx.Limits(max_keepalive_connections=0), "transport": self.transport}
        with httpx.Client(timeout=httpx.Timeout(ANSWER_S, connect=10.0), trust_env=False, **how) as self._client:
            holds = self.queue.holds()
            while begun := self.queue.sending(*self.workflows, limit=PAGE):  # by a process that died
                for event in begun:
                    self._one(event, holds.get(event.workflow), done)
            paused, since, going = list(self.workflows), datetime.now(UTC), Going()
            with going.pool:
                while paused := [w for w in paused if not self.queue.release(w)]:
                    holds = self.queue.holds()
                    page = [e for e in self.queue.held(*paused, limit=PAGE) if e.id not in going.sent]
                    waited = [e for e in page if e.received_at <= since]
                    for event in waited:
                        self._one(event, holds.get(event.workflow), done)
                    for event in page if not waited else ():
                        going.send(event.id, partial(self._one, event, holds.get(event.workflow), done))
                    going.breathe()
                    if time.monotonic() - said > SAID_EVERY_S:
                        said = time.monotonic()
                        self.say(f"sent {done.sent} held events; {sum(self.queue.waiting(*paused).values())} wait")
            going.check()
        done.seconds = round(time.monotonic() - began, 3)
        return done

    def _one(self, event: Event, hold: Hold | None, done: Released) -> None:
        if (why := self._needless(event)) is not None:
            self.queue.finish(event.id, State.REPEATED, why=why)
            done.count(event, State.REPEATED)
            return
        if (why := self._doubtful(event)) is not None:
            self._courier.give_up(event.workflow, name(event), why)
            self.queue.begin(event.id)
            self.queue.finish(event.id, State.UNKNOWN, why=why)
            done.count(event, State.UNKNOWN)
            return
        self._wait_for_turn(event.workflow, hold)
        sent_before = event.state is State.SENDING
        begun = self.queue.begin(event.id)
        # Held events go to the workflow's own entry, so the platform's list of runs tells what became of them. What it
        # tells of private copies (`reads_back_events`) is another question; and without a list of its own, what stands
        # in for its runs is our own queue, which knows no more than we do.
        readable = self.ctx.platform.capabilities.executions
        try:
            ended = self._courier.deliver(
                workflow=event.workflow,
                key=name(event),
                send=partial(self._send, begun),
                look_up=partial(self._look_up, begun) if readable else None,
                kept=self._keeps_runs(event.workflow),
                sent_before=sent_before,
                live=True,
            )
        except NotSent as error:
            self.queue.finish(event.id, State.HELD, why=one_line(error))
            raise
        state = STATE_OF[ended.outcome]
        self.queue.finish(
            event.id, state, status=ended.status, run=ended.run.id if ended.run else None, why=ended.why or None
        )
        done.count(event, state)

    def _needless(self, event: Event) -> str | None:
        """Why a held event is not sent: it was handled, as its key says."""
        if event.key is None or event.state is State.SENDING:
            return None
        if (event.workflow, event.key) in self.handled:
            return "a recovery replayed this event"
        if (other := self.queue.handled(event.workflow, event.key)) is not None:
            return f"event {other.id} was the same and was handled"
        return None

    def _doubtful(self, event: Event) -> str | None:
        """Why a held event may have run already, so that a person must look before it is sent."""
        if event.state is not State.HELD or self._courier.cleared(event.workflow, name(event)):
            return None
        known = self._courier.knows(event.workflow, name(event))
        if event.retry_of is not None and not known and not self.dropped(event):
            return "the pause dropped it while it ran, and nothing says how far it had come"
        if event.key is not None and self.queue.unsure(event.workflow, event.key):
            return "another event of the same key is unknown"
        if event.key is not None and (event.workflow, event.key) in self.unsure:
            return "a recovery sent this event again, and nobody knows whether it ran"
        return None

    def _keeps_runs(self, workflow: str) -> bool:
        """Whether the platform keeps the workflow's runs once they ended, as far as its live definition says."""
        if workflow not in self._keeping:
            self._keeping[workflow] = keeps_runs(self.ctx.platform, self._infos[workflow].id)
        return self._keeping[workflow]

    def _wait_for_turn(self, workflow: str, hold: Hold | None) -> None:
        now = time.monotonic()
        with COUNTING:
            due = max(now, self._next_at.get(workflow, now))
            if hold is not None and hold.per_s:
                self._next_at[workflow] = due + 1 / hold.per_s
        if due > now:
            time.sleep(due - now)

    def _send(self, event: Event) -> Delivered:
        """To the workflow's own entry, as the sender sent it."""
        request = httpx.Request(
            event.method,
            wire.target(self._base, event.path, event.query),
            headers=wire.outgoing(event),
            content=event.body,
        )
        try:
            answer = self._client.send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotSent(f"event {event.id}: the platform cannot be reached; it stays held, run this again") from error
        except httpx.HTTPError as error:
            raise Retryable(f"the answer was lost ({type(error).__name__})") from error
        called = {"method": event.method, "path": wire.path_of(request.url.raw_path)}
        unclear = wire.may_say_paused(answer.status_code, answer.content, **called)
        if unclear and (not self._paused(event) or self._look_up(event)):
            raise Retryable(f"answered {answer.status_code}, which the workflow itself may have said")
        if unclear or wire.says_paused(answer.status_code, answer.content, **called):
            raise NotSent(
                f"event {event.id}: {event.workflow} is paused in the platform; it stays held until it is resumed"
            )
        if answer.status_code in GATEWAY:
            raise Retryable(f"answered {answer.status_code}, which does not tell whether it arrived")
        good = answer.status_code < 400
        why = "" if good else f"answered {answer.status_code}"
        return Delivered(outcome=Outcome.DONE if good else Outcome.FAILED, status=answer.status_code, why=why)

    def _paused(self, event: Event) -> bool:
        return self.ctx.platform.ingress_paused(self._infos[event.workflow].id)

    def _look_up(self, event: Event) -> list[Run]:
        """The runs of the event: they show its id in a header, or have its key."""
        since = (event.forwarded_at or event.received_at) - LOOK_BACK
        path = self.ctx.app.workflow(event.workflow).trigger.event_key
        found = []
        for run in self.ctx.platform.runs(self._infos[event.workflow].id, since=since):
            if run.started_at is not None and run.started_at < since:
                continue
            seen = self.ctx.platform.run_detail(run.id).event or {}
            named = {str(k).lower(): v for k, v in (seen.get("headers") or {}).items()}
            by_key = path is not None and event.key is not None and events.look_up(seen, path) == event.key
            if named.get(wire.EVENT_HEADER, event.id if by_key else None) == event.id:
                found.append(run)
        return found


def name(event: Event | Brief) -> str:
    """What the record calls an event of the queue."""
    return event.id if event.key is None else f"{event.id}:{event.key}"


def release(
    ctx: AppContext,
    workflows: Iterable[str],
    *,
    incident: str | None,
    say: Say,
    recovery: str | None = None,
    dropped: Callable[[Event], bool] = lambda _: False,
) -> Released:
    """Let the held events of active workflows go; see :class:`Release`. Those of workflows that stay paused stay held,
    and what recoveries of their incidents replayed is not sent again. ``incident`` is the one in whose name they go.
    Recorded."""
    if ctx.events is None:
        return Released()
    infos = ctx.infos(partly=True)
    free = tuple(w for w in workflows if w in infos and infos[w].active)
    if not free:
        return Released()
    before = replayed.read(ctx, replayed.incidents(ctx.events, free, incident))
    going = Release(
        ctx=ctx,
        queue=ctx.events,
        workflows=free,
        incident=incident,
        recovery=recovery,
        say=say,
        handled=before.handled,
        unsure=before.unsure,
        dropped=dropped,
    )
    done = going.run()
    body = {
        "workflows": list(free),
        "sent": done.sent,
        "repeated": done.repeated,
        "failed": done.failed,
        "unknown": done.unknown,
        "by_workflow": done.by_workflow,
        "recorded_only": recorded_only(ctx.events, free, incident),
        "seconds": done.seconds,
    }
    ctx.ledger.append(kinds.EVENTS_RELEASED, app=ctx.app.key, incident=incident, recovery=recovery, body=body)
    if done.sent or done.unknown:
        say(f"{done.sent} held events sent, {len(done.failed)} of them failed; {len(done.unknown)} unknown")
    return done


def recorded_only(queue: Queue, workflows: Collection[str], incident: str | None) -> dict[str, int]:
    """How many events the pause discarded and turned away."""
    found = queue.counts_of(incident, workflows)
    return {str(s): found.get(s, 0) for s in (State.DISCARDED, State.REJECTED)}
