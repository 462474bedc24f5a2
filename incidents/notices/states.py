"""Which entries of the ledger are state changes of an incident worth a notice. Pure.

A state change is told once: findings that join an incident, a pause that is proven again and a recovery that is
continued while it runs change nothing that people would have to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from incidents.severity import Severity, worse
from ledger import kinds
from ledger.entry import Entry


class State(StrEnum):
    """Where an incident stands, in the words of a subject line."""

    NOTICED = "noticed"
    CONTAINED = "contained"
    NOT_CONTAINED = "not contained"
    WAITING = "waiting for approval"
    RECOVERING = "recovering"
    HELD = "held"
    HALF_RESTORED = "half restored"
    RELAPSE = "relapse"
    RECOVERED = "recovered"
    FALSE_ALARM = "false alarm"
    HANDED_OVER = "handed over"

    @property
    def final(self) -> bool:
        """Whether no further update is owed."""
        return self in (State.RECOVERED, State.FALSE_ALARM, State.HANDED_OVER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One state change. ``seq`` is that of the entry that made it, ``severity`` the worst until the next change.

    ``why``, when held: ``stopped``, ``rejected``, ``expired``, ``abandoned``, ``undiagnosed``
    or ``unplanned``. ``proven``: the
    newest word on the pause was its proof. ``over``: what was asked for has been given (an approval)."""

    incident: str
    state: State
    seq: int
    at: datetime
    severity: Severity
    recovery: str | None = None
    why: str = ""
    plan_hash: str = ""
    proven: bool = False
    over: bool = False


@dataclass(kw_only=True, slots=True)
class _Track:
    """One incident while its entries are read."""

    severity: Severity = Severity.SEV3
    changes: list[Change] = field(default_factory=list)
    proven: bool = False
    failing: bool = False
    closed: bool = False
    shown: str = ""
    relapsed: set[str | None] = field(default_factory=set)

    @property
    def state(self) -> State | None:
        return self.changes[-1].state if self.changes else None

    def to(self, state: State, entry: Entry, *, why: str = "") -> None:
        self.changes.append(
            Change(
                incident=str(entry.incident),
                state=state,
                seq=entry.seq,
                at=entry.at,
                severity=self.severity,
                recovery=entry.recovery,
                why=why,
                plan_hash=self.shown if state is State.WAITING else "",
                proven=self.proven,
            )
        )


def changes(entries: Iterable[Entry]) -> dict[str, tuple[Change, ...]]:
    """State changes by incident, from entries in order; entries of other kinds change nothing."""
    tracks: dict[str, _Track] = {}
    for entry in entries:
        if entry.incident is None or entry.kind not in _RULES:
            continue
        if entry.kind == kinds.INCIDENT_OPENED:
            tracks.setdefault(entry.incident, _Track())
        track = tracks.get(entry.incident)
        if track is not None and not track.closed:
            _RULES[entry.kind](track, entry)
    return {incident: tuple(track.changes) for incident, track in tracks.items()}


def _opened(track: _Track, entry: Entry) -> None:
    if track.state is None:
        track.severity = _severity(entry) or track.severity
        track.to(State.NOTICED, entry)


def _joined(track: _Track, entry: Entry) -> None:
    track.severity = worse(track.severity, _severity(entry) or track.severity)
    track.changes[-1] = replace(track.changes[-1], severity=track.severity)


def _proven(track: _Track, entry: Entry) -> None:
    was_failing, track.proven, track.failing = track.failing, True, False
    news = (State.NOTICED, State.NOT_CONTAINED, State.RELAPSE, State.RECOVERED)
    if track.state in news or (track.state is State.HELD and was_failing):
        track.to(State.CONTAINED, entry)


def _failed(track: _Track, entry: Entry) -> None:
    was_failing, track.proven, track.failing = track.failing, False, True
    if not was_failing:
        track.to(State.NOT_CONTAINED, entry)


def _undiagnosed(track: _Track, entry: Entry) -> None:
    if track.state is State.CONTAINED:
        track.to(State.HELD, entry, why="undiagnosed")


def _unplanned(track: _Track, entry: Entry) -> None:
    if track.state not in (State.HELD, State.WAITING, State.RECOVERING, State.RECOVERED):
        track.to(State.HELD, entry, why="unplanned")


def _shown(track: _Track, entry: Entry) -> None:
    plan_hash = _hash(entry)
    if track.state is not State.WAITING or plan_hash != track.shown:
        track.shown = plan_hash
        track.to(State.WAITING, entry)


def _approved(track: _Track, entry: Entry) -> None:
    if track.state is State.WAITING and _hash(entry) == track.shown:
        track.changes[-1] = replace(track.changes[-1], over=True)


def _refused(why: str) -> Callable[[_Track, Entry], None]:
    def rule(track: _Track, entry: Entry) -> None:
        newest = track.shown in ("", _hash(entry))
        if newest and track.state not in (State.HELD, State.RECOVERING, State.RECOVERED):
            track.to(State.HELD, entry, why=why)

    return rule


def _started(track: _Track, entry: Entry) -> None:
    if track.state is not State.RECOVERING:
        track.to(State.RECOVERING, entry)


def _stopped(track: _Track, entry: Entry) -> None:
    if track.state not in (State.HELD, State.RECOVERED) and entry.recovery not in track.relapsed:
        track.to(State.HELD, entry, why="stopped")


def _abandoned(track: _Track, entry: Entry) -> None:
    # What is planned again, or was ended by a relapse, is told by that.
    if track.state is State.RECOVERING and track.changes[-1].recovery == entry.recovery:
        track.to(State.HELD, entry, why="abandoned")


def _finished(track: _Track, entry: Entry) -> None:
    whole = entry.body.get("state", kinds.RESUMED) == kinds.RESUMED
    state = State.RECOVERED if whole else State.HALF_RESTORED
    if track.state is not state:
        track.to(state, entry)


def _relapse(track: _Track, entry: Entry) -> None:
    if entry.recovery is not None:
        track.relapsed.add(entry.recovery)
    track.proven = False
    if track.state is not State.RELAPSE:
        track.to(State.RELAPSE, entry)


def _closed(track: _Track, entry: Entry) -> None:
    track.closed = True
    resolution = entry.body.get("resolution")
    if resolution == "false-alarm":
        track.to(State.FALSE_ALARM, entry)
    elif resolution == "handed-over":
        track.to(State.HANDED_OVER, entry)
    elif track.state is not State.RECOVERED:
        track.to(State.RECOVERED, entry)


def _severity(entry: Entry) -> Severity | None:
    word = entry.body.get("severity")
    return Severity(word) if isinstance(word, str) and word in list(Severity) else None


def _hash(entry: Entry) -> str:
    return str(entry.body.get("plan_hash") or "")


_RULES: dict[str, Callable[[_Track, Entry], None]] = {
    kinds.INCIDENT_OPENED: _opened,
    kinds.INCIDENT_JOINED: _joined,
    kinds.INCIDENT_CONTAINED: _proven,
    kinds.CONTAIN_PROVEN: _proven,
    kinds.CONTAIN_FAILED: _failed,
    kinds.INCIDENT_UNDIAGNOSED: _undiagnosed,
    kinds.PLAN_SHOWN: _shown,
    kinds.PLAN_APPROVED: _approved,
    kinds.PLAN_REJECTED: _refused("rejected"),
    kinds.PLAN_EXPIRED: _refused("expired"),
    kinds.PLAN_REFUSED: _unplanned,
    kinds.RECOVERY_STARTED: _started,
    kinds.RECOVERY_STOPPED: _stopped,
    kinds.RECOVERY_ABANDONED: _abandoned,
    kinds.RECOVERY_FINISHED: _finished,
    kinds.RELAPSE: _relapse,
    kinds.INCIDENT_CLOSED: _closed,
}
KINDS = tuple(_RULES)
"""The kinds that are read for state changes."""
