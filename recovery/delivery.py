"""The one place that sends an event a second time: replay, release of kept events, retrigger.

The record holds ``event.begun`` before the event is sent. After a lost answer, or a kill in between, the platform is
asked where it can be. What does not show ran surely not only where runs show from their start on and are kept; anywhere
else such an event is *unknown*: listed for a person, and never sent again. A person who finds that an unknown event did
not run says so (``event.settled``), and only then it may be sent once more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ledger import kinds
from ledger.entry import Entry
from platforms.base import NotSent, Permanent, Platform, Retryable, Run, RunState
from recovery.context import AppContext
from recovery.errors import StepFailed, one_line

ATTEMPTS: Final = 5
"""How often it is tried to reach a platform that surely did not get the event."""
WAIT_S: Final = 0.5
LOOKUP_S = 5.0
"""How long a run may take to show after its answer was lost."""
END_S = 60.0
"""How long a run that goes on is waited for."""
POLL_S: Final = 0.1
FORGETS: Final = ("saveDataSuccessExecution", "saveDataErrorExecution")
"""Settings of a workflow, as n8n names them, that make the platform forget its runs once they ended."""
KINDS: Final = (kinds.EVENT_BEGUN, kinds.EVENT_ENDED, kinds.EVENT_UNKNOWN, kinds.EVENT_SETTLED)


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    """It ran, and failed."""
    RUNNING = "running"
    """It arrived, and its run goes on; only of live deliveries, which stop no run."""
    UNKNOWN = "unknown"
    """It may have run or not; a person must look."""
    MISSED = "missed"
    """Its answer was lost and no run of it shows; only for those who can take a run back that shows after all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """How an event ended. ``there``: an earlier attempt had done it. ``status``: HTTP status where one came back.
    ``stopped``: after so many seconds its run was stopped by us."""

    outcome: Outcome
    run: Run | None = None
    status: int | None = None
    there: bool = False
    why: str = ""
    stopped: float | None = None


Send = Callable[[], Delivered | Run]
"""Sends once and tells how it ended; the end of a run in flight is waited for here. Raises ``NotSent`` or
``Permanent`` when the event surely did not run, ``Retryable`` when the answer is lost."""
TakeBack = Callable[[Delivered], None]
LookUp = Callable[[], Sequence[Run]]
"""The runs of the event so far, oldest first."""


class Past(StrEnum):
    """What the record says of an event."""

    NEVER = "never"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    RUNNING = "running"
    UNKNOWN = "unknown"


STANDS: Final[dict[str, Past]] = {
    Outcome.DONE: Past.DONE,
    Outcome.FAILED: Past.FAILED,
    Outcome.RUNNING: Past.RUNNING,
}


def past(entries: Sequence[Entry]) -> dict[tuple[str, str], Past]:
    """Where each event stands, by workflow and key, from entries in order. Pure."""
    found: dict[tuple[str, str], Past] = {}
    for entry in entries:
        if entry.kind in KINDS:
            found[str(entry.body["workflow"]), str(entry.body["event"])] = _after(entry)
    return found


def _after(entry: Entry) -> Past:
    if entry.kind == kinds.EVENT_BEGUN:
        return Past.BEGUN
    if entry.kind == kinds.EVENT_UNKNOWN:
        return Past.UNKNOWN
    if entry.kind == kinds.EVENT_SETTLED:
        return Past.DONE if entry.body.get("done") else Past.NEVER
    return STANDS.get(str(entry.body.get("outcome")), Past.NEVER)


@dataclass(frozen=True, slots=True)
class _Sending:
    workflow: str
    key: str
    look_up: LookUp | None
    known: frozenset[str]
    end_s: float | None
    live: bool
    take_back: TakeBack


class Courier:
    """Delivers events of one app, in the name of an incident and a recovery where there is one. Reads the record
    once: one courier at a time, under the app's lease."""

    def __init__(self, ctx: AppContext, *, incident: str | None = None, recovery: str | None = None) -> None:
        self._ctx = ctx
        self._incident = incident
        self._recovery = recovery
        recorded = ctx.ledger.entries(app=ctx.app.key, kinds=KINDS)
        self._past = past(recorded)
        begun = [e.body for e in recorded if e.kind == kinds.EVENT_BEGUN]
        self._attempts = Counter((str(b["workflow"]), str(b["event"])) for b in begun)
        self._cleared = {
            (str(e.body["workflow"]), str(e.body["event"]))
            for e in recorded
            if e.kind == kinds.EVENT_SETTLED and not e.body.get("done")
        }

    def past(self, workflow: str, key: str) -> Past:
        return self._past.get((workflow, key), Past.NEVER)

    @property
    def unknown(self) -> bool:
        """Whether any event is unknown: what builds on it may fail."""
        return Past.UNKNOWN in self._past.values()

    def knows(self, workflow: str, key: str) -> bool:
        """Whether the record says anything of the event."""
        return (workflow, key) in self._past

    def cleared(self, workflow: str, key: str) -> bool:
        """Whether a person found that the event did not run: it may be sent, whatever is known of its like."""
        return (workflow, key) in self._cleared and self.past(workflow, key) is Past.NEVER

    def deliver(
        self,
        *,
        workflow: str,
        key: str,
        send: Send,
        look_up: LookUp | None,
        kept: bool = True,
        sent_before: bool = True,
        known: frozenset[str] = frozenset(),
        end_s: float | None = None,
        live: bool = False,
        repeats_taken_back: bool = False,
        take_back: TakeBack = lambda _: None,
    ) -> Delivered:
        """Send the event unless it ran already; never twice. ``key`` names it over all attempts. ``look_up`` is None
        where the platform cannot be asked; ``kept`` False where it may have forgotten a run that ended.
        ``sent_before`` False spares the look before the first attempt; runs in ``known`` do not count. A run gets
        ``end_s`` (``END_S``) to end, then it is stopped. ``live``: the runs are production's own: none is stopped, one
        that goes on is ``RUNNING``, and what is on record as failed is not sent again. With ``repeats_taken_back`` an
        event that can be looked up is sent again when nothing shows, and a lost answer without a run is ``MISSED``,
        not unknown. ``take_back`` undoes what a failed run did before it is on record that it failed. Raises
        ``NotSent`` when the platform cannot be reached, what ``send`` raises as ``Permanent``, and what waiting for
        the end raises: the event stays begun then."""
        sending = _Sending(workflow, key, look_up, known, end_s, live, take_back)
        stands = self.past(workflow, key)
        if stands is Past.DONE:
            return Delivered(outcome=Outcome.DONE, run=_witness(_shown(sending)), there=True)
        again = repeats_taken_back and look_up is not None
        if sent_before or stands is not Past.NEVER:
            if (found := self._found(sending, within_s=0.0 if again else LOOKUP_S)) is not None:
                return replace(self._over(sending, found, noted=stands is not Past.NEVER), there=True)
            if live and stands in (Past.FAILED, Past.RUNNING):
                return Delivered(outcome=Outcome(stands), there=True, why="so it is on record; no run of it shows")
            if stands is Past.UNKNOWN:
                return Delivered(outcome=Outcome.UNKNOWN, there=True, why="listed as unknown before")
            shows = look_up is not None and kept and self._ctx.platform.capabilities.shows_in_flight
            if stands is Past.BEGUN and not (shows or again):
                # It may be under way, or over and forgotten: that nothing shows proves nothing.
                return self._unknown(workflow, key, "the process ended before the answer came")
        if not again:
            self._attempts[workflow, key] += 1
            self._note(kinds.EVENT_BEGUN, workflow, key, Past.BEGUN, attempt=self._attempts[workflow, key])
        return self._once(sending, send, again=again)

    def give_up(self, workflow: str, key: str, why: str) -> Delivered:
        """List an event as unknown without sending it."""
        return self._unknown(workflow, key, why)

    def _once(self, sending: _Sending, send: Send, *, again: bool) -> Delivered:
        """Sent and waited for. Only what sending itself raises can mean that nothing was sent."""
        workflow, key = sending.workflow, sending.key
        try:
            sent = self._sent(send)
        except (NotSent, Permanent) as refused:
            if not again:
                self._note(kinds.EVENT_ENDED, workflow, key, Past.NEVER, outcome="not-sent", why=one_line(refused))
            raise
        except Retryable as lost:
            return self._lost(sending, lost, again=again)
        try:
            how = sent if isinstance(sent, Delivered) else self._ended_as(sending, sent)
        except Permanent as error:
            if sending.look_up is not None:
                raise
            return self._lost(sending, error, again=again)
        except Retryable as lost:
            return self._lost(sending, lost, again=again)
        return self._over(sending, how, noted=not again)

    def _lost(self, sending: _Sending, lost: Exception, *, again: bool) -> Delivered:
        """The event was sent, or may have been, and its end is not known."""
        if (found := self._found(sending, within_s=LOOKUP_S)) is not None:
            return self._over(sending, found, noted=not again)
        if again:
            return Delivered(outcome=Outcome.MISSED, why=one_line(lost))
        asked = "" if sending.look_up is None else "; the platform shows no run of it"
        return self._unknown(sending.workflow, sending.key, one_line(lost) + asked)

    def _over(self, sending: _Sending, how: Delivered, *, noted: bool) -> Delivered:
        if how.outcome is Outcome.FAILED:
            sending.take_back(how)
        if noted:
            self._ended(sending.workflow, sending.key, how)
        return how

    def _sent(self, send: Send) -> Delivered | Run:
        """Sent, as soon as the platform takes it."""
        for attempt in range(ATTEMPTS - 1):
            try:
                return send()
            except NotSent:
                time.sleep(WAIT_S * 2**attempt)
        return send()

    def _found(self, sending: _Sending, *, within_s: float) -> Delivered | None:
        """The event's run once it shows and has ended; a good one if there are several, else one that goes on. None
        where nobody can be asked."""
        if sending.look_up is None:
            return None
        deadline = time.monotonic() + within_s
        while not (runs := _shown(sending)):
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_S)
        ends = [self._ended_as(sending, r) for r in runs]
        best = {e.outcome: e for e in ends}
        return best.get(Outcome.DONE) or best.get(Outcome.RUNNING) or ends[-1]

    def _ended_as(self, sending: _Sending, run: Run) -> Delivered:
        return waited(self._ctx, run, sending.end_s, stops=not sending.live)

    def _ended(self, workflow: str, key: str, how: Delivered) -> None:
        run = how.run.id if how.run else None
        self._note(kinds.EVENT_ENDED, workflow, key, STANDS[how.outcome], outcome=str(how.outcome), run=run)

    def _unknown(self, workflow: str, key: str, why: str) -> Delivered:
        self._note(kinds.EVENT_UNKNOWN, workflow, key, Past.UNKNOWN, why=why)
        return Delivered(outcome=Outcome.UNKNOWN, why=why)

    def _note(self, kind: str, workflow: str, key: str, stands: Past, **more: object) -> None:
        body = {"workflow": workflow, "event": key, **{k: v for k, v in more.items() if v is not None}}
        self._ctx.ledger.append(
            kind, app=self._ctx.app.key, incident=self._incident, recovery=self._recovery, body=body
        )
        self._past[workflow, key] = stands


def _shown(sending: _Sending) -> list[Run]:
    """The event's runs, as far as the platform shows any now."""
    return [r for r in sending.look_up() if r.id not in sending.known] if sending.look_up is not None else []


def _witness(runs: Sequence[Run]) -> Run | None:
    """The run by which an event is done: one that succeeded, else one that goes on. Pure."""
    good = [r for r in runs if r.state is RunState.SUCCESS]
    return next(reversed(good or [r for r in runs if r.state.in_flight]), None)


def waited(ctx: AppContext, run: Run, end_s: float | None = None, *, stops: bool = True) -> Delivered:
    """How the run stands for its event once it ended. One that has not after ``end_s`` (``END_S``) is stopped where the
    platform can, and told as ``stopped``; without ``stops`` it is left alone, and ``RUNNING``. Raises ``StepFailed``
    where it should be stopped and cannot."""
    patience = END_S if end_s is None else end_s
    deadline = time.monotonic() + patience
    stopped = None
    while run.state.in_flight:
        if time.monotonic() > deadline:
            if not stops:
                return Delivered(outcome=Outcome.RUNNING, run=run, why=f"its run still went on after {patience:g} s")
            if not ctx.platform.capabilities.stops_runs:
                raise StepFailed(
                    f"run {run.id}: it has not ended after {patience:.0f} s; wait for it, then run this again"
                )
            ctx.platform.stop(run.id)
            stopped = patience
            deadline += patience
        time.sleep(POLL_S)
        run = ctx.platform.run_detail(run.id).run
    # It may have ended by itself just before it was told to.
    return replace(of_run(run), stopped=stopped if run.state is RunState.CANCELED else None)


def ended(ctx: AppContext, run: Run, end_s: float | None = None) -> Run:
    """The run once it ended; see :func:`waited`, which stops it when it takes too long."""
    return waited(ctx, run, end_s).run or run


def of_run(run: Run) -> Delivered:
    """How a run that ended stands for its event."""
    return Delivered(outcome=Outcome.DONE if run.state is RunState.SUCCESS else Outcome.FAILED, run=run)


def keeps_runs(platform: Platform, workflow_id: str) -> bool:
    """Whether the platform keeps the workflow's runs once they ended, as far as its live definition says."""
    live = platform.live_version(workflow_id)
    settings = platform.outline(live.definition).settings if live is not None else {}
    return not any(settings.get(name) == "none" for name in FORGETS)


def retrigger(
    ctx: AppContext, workflow: str, run_id: str, *, incident: str | None = None, recovery: str | None = None
) -> Delivered:
    """Run the event of a failed run again, in the workflow itself, once: a new run shows by its ``retry_of``. One that
    takes long is left to itself: asked again, this tells how it ended. Raises ``Permanent`` where the platform
    cannot."""
    if not ctx.platform.capabilities.retriggers:
        raise Permanent(f"run {run_id}: {ctx.platform.kind} cannot run it again; replay its event instead")
    old = ctx.platform.run_detail(run_id).run

    def look_up() -> list[Run]:
        since = old.started_at or old.stopped_at
        return [r for r in ctx.platform.runs(old.workflow_id, since=since) if r.retry_of == run_id]

    def send() -> Run:
        return ctx.platform.retrigger(run_id)

    courier = Courier(ctx, incident=incident, recovery=recovery)
    kept = keeps_runs(ctx.platform, old.workflow_id)
    return courier.deliver(workflow=workflow, key=f"retry:{run_id}", send=send, look_up=look_up, kept=kept, live=True)


def unknown(ctx: AppContext) -> list[Entry]:
    """The ``event.unknown`` entries that no person has settled."""
    found = ctx.ledger.entries(app=ctx.app.key, kinds=KINDS)
    stands: Mapping[tuple[str, str], Past] = past(found)
    open_ones: dict[tuple[str, str], Entry] = {}
    for entry in found:
        key = str(entry.body["workflow"]), str(entry.body["event"])
        if entry.kind == kinds.EVENT_UNKNOWN and stands[key] is Past.UNKNOWN:
            open_ones[key] = entry
    return list(open_ones.values())
