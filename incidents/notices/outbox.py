"""What is still to be told, from the ledger alone. Pure, apart from reading it.

Every attempt is recorded before it is made (``notice.begun``) and after it (``notice.sent``, ``notice.failed``), so
that a process that dies in between leaves a trace: the notice is then sent once more, and not again.

Per channel and incident:

- state changes are told in order, each once; once a channel was told of an incident, it hears of it to the end;
- a channel that was told nothing yet gets what is at most an hour old; of an older incident that is still open it
  gets the present state, once; an incident that is over and older stays untold (a channel that is added later);
- after a failure only the newest state is tried again: older ones would be out of date;
- while the incident goes on, an interim notice follows whenever the promised time of the next update comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from catalog.models import App, Channel
from incidents.notices import states
from incidents.notices.states import Change, State
from ledger import kinds
from ledger.entry import Entry
from ledger.metrics import instant
from ledger.process import Process, surely_dead

if TYPE_CHECKING:
    from ledger.ledger import Ledger, View

FRESH: Final = timedelta(hours=1)
"""How old news may be for a channel that was told nothing of the incident."""
LOOK_BACK: Final = timedelta(days=7)
"""Incidents that were closed longer ago are not looked at any more."""
ATTEMPTS: Final = 6
UNKNOWN: Final = 2
"""So many attempts may end without anybody knowing how: each may have arrived."""
FIRST_WAIT_S: Final = 15.0
LONGEST_WAIT_S: Final = 300.0
MARGIN_S: Final = 60.0
"""An interim notice goes out up to this much early, at most a tenth of its interval: the promise is a latest time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """One notice to be sent on one channel. ``update`` counts interim notices about the same state, 0 is the change
    itself; ``attempt`` counts from 1. ``give_up`` says why it is not tried any more."""

    channel: Channel
    change: Change
    update: int
    attempt: int
    give_up: str = ""

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.channel.key, self.change.seq, self.update)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt on record. ``outcome``: ``sent``, ``failed``, ``gave-up``, ``running`` or ``unknown``."""

    channel: str
    incident: str
    about: int
    update: int
    at: datetime
    outcome: str
    next_by: datetime | None = None

    @property
    def over(self) -> bool:
        return self.outcome in ("sent", "gave-up")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outbox:
    """State changes and attempts of an app's incidents, oldest first."""

    changes: dict[str, tuple[Change, ...]]
    attempts: tuple[Attempt, ...]


def read(source: Ledger | View, app: App, now: datetime) -> Outbox:
    """What the ledger holds about incidents that are open or were closed lately."""
    ends = source.entries(app=app.key, kinds=[kinds.INCIDENT_OPENED, kinds.INCIDENT_CLOSED])
    old = {e.incident for e in ends if e.kind == kinds.INCIDENT_CLOSED and now - e.at > LOOK_BACK}
    opened = [e for e in ends if e.kind == kinds.INCIDENT_OPENED and e.incident not in old]
    if not opened:
        return Outbox(changes={}, attempts=())
    wanted = {e.incident for e in opened}
    entries = source.entries(app=app.key, kinds=[*states.KINDS, *_NOTICES], after_seq=opened[0].seq - 1)
    found = states.changes(e for e in entries if e.incident in wanted)
    return Outbox(changes=found, attempts=attempts((e for e in entries if e.kind in _NOTICES), now))


def attempts(entries: Iterable[Entry], now: datetime) -> tuple[Attempt, ...]:
    """Attempts with their outcomes. One without is running while its process may live and its time is not up."""
    begun: dict[int, Attempt] = {}
    for entry in entries:
        body = entry.body
        if entry.kind == kinds.NOTICE_BEGUN:
            found = _attempt(body, str(body.get("incident_id")), entry.at, _unfinished(body, now))
            begun[entry.seq] = found
        else:
            outcome = "sent" if entry.kind == kinds.NOTICE_SENT else "gave-up" if body.get("gave_up") else "failed"
            begun[_count(body.get("begun")) or entry.seq] = _attempt(body, str(entry.incident), entry.at, outcome)
    return tuple(begun.values())


def due(app: App, outbox: Outbox, now: datetime) -> list[Due]:
    """What to send now, oldest first on each channel. Nothing on a channel on which an attempt is running."""
    found: list[Due] = []
    for channel in app.channels:
        mine = [a for a in outbox.attempts if a.channel == channel.key]
        if any(a.outcome == "running" for a in mine):
            continue
        for incident, changed in outbox.changes.items():
            found += _of_incident(channel, changed, [a for a in mine if a.incident == incident], now)
    return found


def _of_incident(channel: Channel, changed: Sequence[Change], mine: Sequence[Attempt], now: datetime) -> list[Due]:
    if not changed:
        return []
    newest = changed[-1]
    news = _news(channel, changed, mine, now)
    last = mine[-1] if mine else None
    if last is not None and not last.over:
        news = news[-1:]
    if news:
        return [d for c in news if (d := _try(channel, c, 0, mine, now))]
    if newest.state.final or last is None:
        return []
    if not last.over and last.update and last.about == newest.seq:
        again = _try(channel, newest, last.update, mine, now)
        return [again] if again else []
    told = [a for a in mine if a.over]
    if not told or now < _promised(channel, told[-1]) - _margin(channel):
        return []
    update = 1 + max((a.update for a in mine if a.about == newest.seq), default=0)
    return [Due(channel=channel, change=newest, update=update, attempt=1)]


def _news(channel: Channel, changed: Sequence[Change], mine: Sequence[Attempt], now: datetime) -> list[Change]:
    """State changes that this channel has not heard of."""
    newest = changed[-1]
    telling = [c for c in changed if _tells(channel, c, newest)]
    if mine:
        heard = max((a.about for a in mine if a.over), default=mine[0].about - 1)
        return [c for c in telling if c.seq > heard]
    fresh = [c for c in telling if c.severity in channel.severities and now - c.at <= FRESH]
    if not fresh and not newest.state.final and newest.severity in channel.severities:
        return telling[-1:]
    return fresh


def _tells(channel: Channel, change: Change, newest: Change) -> bool:
    if change.state is not State.WAITING:
        return True
    # Only who can approve is asked, and only while there is something to approve.
    return channel.audience == "responders" and change is newest and not change.over


def _try(channel: Channel, change: Change, update: int, mine: Sequence[Attempt], now: datetime) -> Due | None:
    same = [a for a in mine if (a.about, a.update) == (change.seq, update)]
    give_up = ""
    if sum(a.outcome == "unknown" for a in same) >= UNKNOWN:
        give_up = "its sending was cut off more than once; whether it arrived is not known"
    elif len(same) >= ATTEMPTS:
        give_up = f"{len(same)} attempts failed"
    elif same and same[-1].outcome == "failed" and now < same[-1].at + timedelta(seconds=wait_s(len(same))):
        return None
    return Due(channel=channel, change=change, update=update, attempt=len(same) + 1, give_up=give_up)


def wait_s(failures: int) -> float:
    """Seconds from one failed attempt to the next: doubling."""
    return min(FIRST_WAIT_S * float(2 ** max(failures - 1, 0)), LONGEST_WAIT_S)


def _promised(channel: Channel, told: Attempt) -> datetime:
    return told.next_by or told.at + timedelta(seconds=channel.updates_every_s)


def _margin(channel: Channel) -> timedelta:
    return timedelta(seconds=min(MARGIN_S, channel.updates_every_s / 10))


def _attempt(body: dict[str, Any], incident: str, at: datetime, outcome: str) -> Attempt:
    return Attempt(
        channel=str(body.get("channel")),
        incident=incident,
        about=_count(body.get("about")),
        update=_count(body.get("update")),
        at=at,
        outcome=outcome,
        next_by=instant(body.get("next_by")),
    )


def _unfinished(body: dict[str, Any], now: datetime) -> str:
    until, by = instant(body.get("until")), body.get("process")
    if until is None or until <= now or not isinstance(by, dict):
        return "unknown"
    pid = by.get("pid")
    process = Process(host=str(by.get("host")), pid=pid if isinstance(pid, int) else -1, started=str(by.get("started")))
    return "unknown" if surely_dead(process) else "running"


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


_NOTICES: Final = (kinds.NOTICE_BEGUN, kinds.NOTICE_SENT, kinds.NOTICE_FAILED)
