"""The one place that sends an event a second time: replay, release of kept events, retrigger.

Where the platform can be asked which events ran, a lost answer is looked up. Elsewhere the record holds
``event.begun`` before the event is sent, and a lost answer, or a kill in between, makes it *unknown*: listed for a
person, and never sent again. A person who finds that an unknown event did not run says so (``event.settled``), and only
then it may be sent once more.
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
from platforms.base import NotSent, Permanent, Retryable, Run, RunState
from recovery.context import AppContext
from recovery.errors import StepFailed, one_line

ATTEMPTS: Final = 5
"""How often it is tried to reach a platform that surely did not get the event."""
WAIT_S: Final = 0.5
LOOKUP_S = 5.0
"""How long a run may take to show after its answer was lost."""
END_S = 60.0
"""How long a run may take before it is stopped."""
POLL_S: Final = 0.1
KINDS: Final = (kinds.EVENT_BEGUN, kinds.EVENT_ENDED, kinds.EVENT_UNKNOWN, kinds.EVENT_SETTLED)


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    """It ran, and failed."""
    UNKNOWN = "unknown"
    """It may have run or not; a person must look."""
    MISSED = "missed"
    """Its answer was lost and no run of it shows; only for those who can take a run back that shows after all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """How an event ended. ``there``: an earlier attempt had done it. ``status``: HTTP status where one came back."""

    outcome: Outcome
    run: Run | None = None
    status: int | None = None
    there: bool = False
    why: str = ""


Send = Callable[[], Delivered]
"""Sends once and tells how it ended. Raises ``NotSent``, or ``Retryable`` when the answer is lost."""
TakeBack = Callable[[Delivered], None]
LookUp = Callable[[], Sequence[Run]]
"""The runs of the event so far, oldest first."""


class Past(StrEnum):
    """What the record says of an event that was sent where nobody can be asked."""

    NEVER = "never"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


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
    return {"done": Past.DONE, "failed": Past.FAILED}.get(str(entry.body.get("outcome")), Past.NEVER)


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

    def past(self, workflow: str, key: str) -> Past:
        return self._past.get((workflow, key), Past.NEVER)

    @property
    def unknown(self) -> bool:
        """Whether any event is unknown: what builds on it may fail."""
        return Past.UNKNOWN in self._past.values()

    def knows(self, workflow: str, key: str) -> bool:
        """Whether the record says anything of the event."""
        return (workflow, key) in self._past

    def deliver(
        self,
        *,
        workflow: str,
        key: str,
        send: Send,
        look_up: LookUp | None,
        sent_before: bool = True,
        known: frozenset[str] = frozenset(),
        repeats_taken_back: bool = False,
        take_back: TakeBack = lambda _: None,
    ) -> Delivered:
        """Send the event unless it ran already; never twice. ``key`` names it over all attempts. ``look_up`` is None
        where the platform cannot be asked. ``sent_before`` False spares the look before the first attempt; runs in
        ``known`` do not count. With ``repeats_taken_back`` a lost answer without a run is ``MISSED``, not unknown.
        ``take_back`` undoes what a failed run did before it is on record that it failed.
        Raises ``NotSent`` when the platform cannot be reached, and what ``send`` raises as ``Permanent``."""
        if self.past(workflow, key) is Past.DONE:
            return Delivered(outcome=Outcome.DONE, there=True)
        if look_up is None:
            return self._at_most_once(workflow, key, send, take_back)
        found = self._looked_up(workflow, key, send, look_up, sent_before, known, repeats_taken_back)
        if found.outcome is Outcome.FAILED:
            take_back(found)
        return found

    def give_up(self, workflow: str, key: str, why: str) -> Delivered:
        """List an event as unknown without sending it."""
        return self._unknown(workflow, key, why)

    def _at_most_once(self, workflow: str, key: str, send: Send, take_back: TakeBack) -> Delivered:
        """Where nobody can be asked: intent first, and an intent without an end is never sent again."""
        stands = self.past(workflow, key)
        if stands is Past.UNKNOWN:
            return Delivered(outcome=Outcome.UNKNOWN, there=True, why="listed as unknown before")
        if stands is Past.BEGUN:
            return self._unknown(workflow, key, "the process ended before the answer came")
        self._attempts[workflow, key] += 1
        self._note(kinds.EVENT_BEGUN, workflow, key, Past.BEGUN, attempt=self._attempts[workflow, key])
        try:
            ended = self._sent(send)
        except (NotSent, Permanent) as refused:
            self._note(kinds.EVENT_ENDED, workflow, key, Past.NEVER, outcome="not-sent", why=one_line(refused))
            raise
        except Retryable as lost:
            return self._unknown(workflow, key, one_line(lost))
        if ended.outcome is Outcome.FAILED:
            take_back(ended)
        self._ended(workflow, key, ended)
        return ended

    def _looked_up(
        self,
        workflow: str,
        key: str,
        send: Send,
        look_up: LookUp,
        sent_before: bool,
        known: frozenset[str],
        taken_back: bool,
    ) -> Delivered:
        """Where the platform can be asked: before an event is sent that may have been, and after a lost answer."""
        stands = self.past(workflow, key)
        if sent_before or stands is not Past.NEVER:
            found = self._found(look_up, known, within_s=0.0 if taken_back else LOOKUP_S)
            if found is not None:
                if stands is not Past.NEVER:
                    self._ended(workflow, key, found)
                return replace(found, there=True)
            if stands is Past.UNKNOWN:
                return Delivered(outcome=Outcome.UNKNOWN, there=True, why="listed as unknown before")
        try:
            return self._sent(send)
        except NotSent:
            raise
        except Retryable as lost:
            if (found := self._found(look_up, known, within_s=LOOKUP_S)) is not None:
                return found
            if taken_back:
                return Delivered(outcome=Outcome.MISSED, why=one_line(lost))
            return self._unknown(workflow, key, f"{one_line(lost)}; the platform shows no run of it")

    def _sent(self, send: Send) -> Delivered:
        """Sent, as soon as the platform takes it."""
        for attempt in range(ATTEMPTS - 1):
            try:
                return send()
            except NotSent:
                time.sleep(WAIT_S * 2**attempt)
        return send()

    def _found(self, look_up: LookUp, known: frozenset[str], *, within_s: float) -> Delivered | None:
        """The event's run once it shows and has ended; a good one if there are several."""
        deadline = time.monotonic() + within_s
        while not (runs := [r for r in look_up() if r.id not in known]):
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_S)
        ends = [of_run(ended(self._ctx, r)) for r in runs]
        return next((e for e in reversed(ends) if e.outcome is Outcome.DONE), ends[-1])

    def _ended(self, workflow: str, key: str, how: Delivered) -> None:
        stands = Past.DONE if how.outcome is Outcome.DONE else Past.FAILED
        run = how.run.id if how.run else None
        self._note(kinds.EVENT_ENDED, workflow, key, stands, outcome=str(how.outcome), run=run)

    def _unknown(self, workflow: str, key: str, why: str) -> Delivered:
        self._note(kinds.EVENT_UNKNOWN, workflow, key, Past.UNKNOWN, why=why)
        return Delivered(outcome=Outcome.UNKNOWN, why=why)

    def _note(self, kind: str, workflow: str, key: str, stands: Past, **more: object) -> None:
        body = {"workflow": workflow, "event": key, **{k: v for k, v in more.items() if v is not None}}
        self._ctx.ledger.append(
            kind, app=self._ctx.app.key, incident=self._incident, recovery=self._recovery, body=body
        )
        self._past[workflow, key] = stands


def ended(ctx: AppContext, run: Run) -> Run:
    """The run once it ended; one that does not end is stopped where the platform can."""
    deadline = time.monotonic() + END_S
    while run.state.in_flight:
        if time.monotonic() > deadline:
            if not ctx.platform.capabilities.stops_runs:
                raise StepFailed(
                    f"run {run.id}: it has not ended after {END_S:.0f} s; wait for it, then run this again"
                )
            ctx.platform.stop(run.id)
            deadline += END_S
        time.sleep(POLL_S)
        run = ctx.platform.run_detail(run.id).run
    return run


def of_run(run: Run) -> Delivered:
    """How a run that ended stands for its event."""
    return Delivered(outcome=Outcome.DONE if run.state is RunState.SUCCESS else Outcome.FAILED, run=run)


def retrigger(
    ctx: AppContext, workflow: str, run_id: str, *, incident: str | None = None, recovery: str | None = None
) -> Delivered:
    """Run the event of a failed run again, in the workflow itself, once: a new run shows by its ``retry_of``. Raises
    ``Permanent`` where the platform cannot."""
    if not ctx.platform.capabilities.retriggers:
        raise Permanent(f"run {run_id}: {ctx.platform.kind} cannot run it again; replay its event instead")
    old = ctx.platform.run_detail(run_id).run

    def look_up() -> list[Run]:
        since = old.started_at or old.stopped_at
        return [r for r in ctx.platform.runs(old.workflow_id, since=since) if r.retry_of == run_id]

    def send() -> Delivered:
        return of_run(ended(ctx, ctx.platform.retrigger(run_id)))

    courier = Courier(ctx, incident=incident, recovery=recovery)
    return courier.deliver(workflow=workflow, key=f"retry:{run_id}", send=send, look_up=look_up)


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
