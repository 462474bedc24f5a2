"""The watcher: detectors over what changed, and containment in this very process when one is confirmed.

It survives what it watches: while the database (or, during a containment, the platform) does not answer, it says so
once and tries again, ever more slowly. A pause that could not be proven is on record, and owed: the same process tries
again, and so does the next one. A watcher that starts looks back to where the last one stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg

from checks import confirm, detectors
from checks.model import Finding
from incidents import record
from ledger import kinds
from platforms.base import PlatformError
from recovery import handling
from recovery.containment import Say, quiet
from recovery.context import AppContext
from recovery.errors import RecoveryError, one_line
from recovery.handling import Caught, at_work, diagnose, handle, look_again
from recovery.looking import looking
from recovery.retry import is_retryable
from snapshots.errors import Refused as DataRefused
from snapshots.journal import journal
from snapshots.model import Position

__all__ = ["Caught", "diagnose", "handle", "look_again", "watch"]

INTERVAL_S = 0.5
WINDOW_S = 60.0
TICK_S = 5.0
REACH_S = 3600.0
"""How long a watcher may have been away for the next one to look at what changed meanwhile."""
TELL_AGAIN_S = 600.0
"""What lasts is said again after this time."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0


def watch(ctx: AppContext, *, say: Say = quiet, stop: Callable[[], bool] = lambda: False) -> Iterator[Caught]:
    """Yield each incident once it is opened, contained and diagnosed; runs until ``stop`` says so.

    Detectors look at the last minute of the journal, so that a rule with a grace time gets its second look. Raises
    when the database does not let it in at the start, and what no waiting cures (a broken detector, no journal)."""
    watcher = Watcher(ctx, say)
    with ctx.connect("recoverer", "watch"):
        pass  # what is wrong with the catalogue's references is said at once
    with looking(ctx, say):
        while not stop():
            try:
                with ctx.connect("recoverer", "watch") as connection:
                    yield from watcher.rounds(connection, stop)
            except Exception as error:
                if not lost(error):
                    raise
                watcher.outage(error)
                rest(watcher.wait_s, stop)


def lost(error: BaseException) -> bool:
    """Whether the database, the ledger or the platform may be back later."""
    return is_retryable(error) or isinstance(error, psycopg.InterfaceError)


def rest(seconds: float, stop: Callable[[], bool]) -> None:
    """Wait, unless told to stop meanwhile."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0 and not stop():
        time.sleep(min(left, 0.1))


@dataclass
class Watcher:
    """What one process remembers between rounds, whatever happens to its connection."""

    ctx: AppContext
    say: Say
    memory: confirm.Memory = field(default_factory=confirm.Memory)
    incident: str | None = None
    """The open incident that the memory is about."""
    joined: set[str] = field(default_factory=set)
    """Detectors that this incident knows."""
    read_to: int = -1
    """The newest entry of the ledger that :meth:`recall` has seen."""
    recent: deque[tuple[float, Position]] = field(default_factory=deque)
    told: dict[str, float] = field(default_factory=dict)
    ticked: float = 0.0
    wait_s: float = 0.0
    retry_at: float | None = 0.0
    """When to look for something begun and not finished; ``None`` when nothing is. At the start there may be."""
    retry_s: float = FIRST_WAIT_S

    def rounds(self, connection: psycopg.Connection, stop: Callable[[], bool]) -> Iterator[Caught]:
        """Look, decide, act, until told to stop. Raises what the connection raises when it breaks."""
        while not stop():
            now = time.monotonic()
            self.window(connection, now)
            if self.retry_at is not None and now >= self.retry_at:
                yield from self.finish()
            self.recall()
            try:
                findings = detectors.run(connection, self.ctx.app, since=self.recent[0][1])
            except DataRefused as error:
                self.say(f"{error}; looking from here on")
                self.recent.clear()
                continue
            connection.rollback()
            if self.wait_s:
                self.say("everything answers again: watching goes on")
                self.wait_s = 0.0
            yield from self.act(findings)
            rest(INTERVAL_S, stop)

    def window(self, connection: psycopg.Connection, now: float) -> None:
        """Keep the positions of the last minute. The first one is where an earlier watcher stopped looking."""
        if not self.recent:
            closed = handling.looking_back(self.ctx)
            first = journal.ticked(
                connection,
                back_s=WINDOW_S,
                reach_s=REACH_S,
                not_before=closed - timedelta(seconds=TICK_S) if closed else None,
            )
            connection.rollback()
            if first is not None:
                self.recent.append((now, first))
        if now - self.ticked >= TICK_S or not self.recent:
            self.recent.append((now, journal.tick(connection)))
            self.ticked = now
        while len(self.recent) > 1 and now - self.recent[1][0] > WINDOW_S:
            self.recent.popleft()

    def recall(self) -> None:
        """Follow the record: an incident that was closed is over, and one opened by an earlier process is ours."""
        head = self.ctx.ledger.head()[0]
        if head == self.read_to:
            return
        before, self.read_to = self.read_to, head
        found = record.find_open(self.ctx.ledger, self.ctx.app.key)
        if found is None:
            if self.incident is not None:
                # A relapse is a new incident, and rows of a false alarm are no reason for the next one.
                self.memory, self.incident, self.joined = confirm.Memory(), None, set()
                while len(self.recent) > 1:
                    self.recent.popleft()
            return
        if self.ctx.ledger.entries(incident=found.id, kinds=[kinds.RELAPSE], after_seq=before):
            self.retry_at = time.monotonic()  # who contains it may die of that
        if found.id != self.incident:
            known = {str(f.get("detector")) for f in found.findings}
            self.memory = confirm.Memory(acted=frozenset(known), since=found.opened_at)
            self.incident, self.joined = found.id, known

    def act(self, findings: Sequence[Finding]) -> Iterator[Caught]:
        """Decide about one round's findings, and do it."""
        for finding in findings:
            if not finding.contain:
                self.tell(finding.detector, f"warning: {finding.message}")
        self.memory, decision = confirm.decide(
            self.memory, findings, now=datetime.now(UTC), cooldown_s=self.ctx.app.autonomy.cooldown_s
        )
        serious = decision.contain or [f for f in decision.joined if f.detector not in self.joined]
        if serious and self.incident is not None and at_work(self.ctx):
            # A recovery moves rows, and watches for itself.
            for finding in serious:
                self.tell(finding.detector, f"during the recovery: {finding.message}")
        elif serious:
            yield from self.handle(serious)

    def handle(self, findings: Sequence[Finding]) -> Iterator[Caught]:
        """Act on findings; a pause that cannot be proven now is tried again later."""
        self.retry_at = time.monotonic()  # whatever stops this half way leaves something to finish
        try:
            caught = handle(self.ctx, findings, since=self.recent[0][1], say=self.say)
        except (PlatformError, RecoveryError) as error:
            self.joined |= {f.detector for f in findings}
            yield self.unproven(error, findings)
            return
        self.retry_at = None
        self.joined |= {f.detector for f in findings}
        if caught.opened or caught.contained is not None:
            yield caught

    def finish(self) -> Iterator[Caught]:
        """Do what this process or an earlier one could not finish."""
        try:
            caught = handling.finish_begun(self.ctx, say=self.say)
        except (PlatformError, RecoveryError) as error:
            yield self.unproven(error, ())
            return
        self.retry_at, self.retry_s = None, FIRST_WAIT_S
        if caught is not None:
            yield caught
        elif handling.waiting(self.ctx):
            self.retry_at = time.monotonic() + FIRST_WAIT_S

    def unproven(self, error: Exception, findings: Sequence[Finding]) -> Caught:
        """Say it, and when it is tried again."""
        why = one_line(error)
        self.say(f"{why}; trying again in {self.retry_s:.0f} s")
        self.retry_at = time.monotonic() + self.retry_s
        self.retry_s = min(self.retry_s * 2, 6 * LONGEST_WAIT_S)
        found = record.find_open(self.ctx.ledger, self.ctx.app.key)
        return Caught(
            incident=found.id if found else "",
            findings=tuple(findings),
            contained=None,
            diagnosis=None,
            unproven=why,
        )

    def outage(self, error: BaseException) -> None:
        """Say once that something does not answer, and wait longer each time."""
        if not self.wait_s:
            self.say(f"{one_line(error)}; trying again until it answers")
        self.wait_s = min(max(self.wait_s * 2, FIRST_WAIT_S), LONGEST_WAIT_S)

    def tell(self, what: str, text: str) -> None:
        """Say it, unless it was said a moment ago."""
        now = time.monotonic()
        if now - self.told.get(what, -TELL_AGAIN_S) >= TELL_AGAIN_S:
            self.told[what] = now
            self.say(text)
