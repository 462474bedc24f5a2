"""Who asked for a recovery, and whether that is still needed: one number per flow run, one plan per anomaly.

A flow run asks before it does anything. A run that comes back (resumed after its plan was approved, or started again
after a crash) gets its number again, with the plan it showed or the recovery it started. A run that started by itself
(an event that may arrive twice, the steward) is told when the incident is in other hands already. What a person
starts is never turned away: a new plan takes the place of the one that waits.

The question is answered under the ledger's lock, so that of two runs that ask at once one is told of the other.
:func:`taken` holds the rules and is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from incidents import record
from incidents.errors import UnknownIncident
from ledger import kinds
from ledger.entry import Draft, Entry
from ledger.ledger import View
from recovery import approvals
from recovery.approvals import Standing, Verdict
from recovery.context import AppContext
from recovery.errors import NothingToRecover

AUTOMATIC: Final = frozenset({"event", "steward"})
"""Triggers without a person: for these, one run per incident is enough."""
CLAIM_S: Final = 120.0
"""A run that asked and made no plan within this time has died: another one may."""
CLAIMED: Final = timedelta(seconds=CLAIM_S)
READ: Final = (
    *approvals.READ,
    kinds.INCIDENT_OPENED,
    kinds.INCIDENT_JOINED,
    kinds.INCIDENT_DIAGNOSED,
    kinds.RELAPSE,
    kinds.RECOVERY_REQUESTED,
    kinds.RECOVERY_STARTED,
    kinds.RECOVERY_STOPPED,
    kinds.RECOVERY_ABANDONED,
    kinds.RECOVERY_FINISHED,
)
NEWS: Final = (kinds.INCIDENT_JOINED, kinds.INCIDENT_DIAGNOSED, kinds.RELAPSE)
"""After one of these, what was decided before no longer settles the incident."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The answer. ``number`` counts the app's requests. ``recovery`` and ``plan_hash`` are what this very run showed
    or started before. ``handled_by`` names the flow run (or says in words) who has the incident in hand; ``why`` is
    that as a sentence; then there is nothing to do."""

    number: int
    incident: str
    recovery: str | None = None
    plan_hash: str = ""
    handled_by: str | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """In whose hands an incident is."""

    by: str
    why: str


def ask(
    ctx: AppContext, *, flow_run: str, trigger: str, mode: str, incident: str | None, recovery: str | None
) -> Request:
    """Ask for a recovery of ``incident`` (the open one when ``None``). ``recovery`` names one on record that is to
    run, which is then never in other hands: its approval and the app's lease decide. Asking again records nothing.

    Raises ``UnknownIncident`` or :class:`NothingToRecover`."""
    answer: list[Request] = []

    def compose(view: View) -> Draft:
        requests = view.entries(app=ctx.app.key, kinds=[kinds.RECOVERY_REQUESTED])
        mine = [e for e in requests if e.body.get("flow_run") == flow_run]
        chosen = incident or (mine[-1].incident if mine else None) or _of_recovery(view, recovery)
        chosen = chosen or _open(view, ctx.app.key)
        entries = view.entries(incident=chosen, kinds=READ)
        number = _number(mine[-1]) if mine else max((_number(e) for e in requests), default=0) + 1
        shown = _mine(entries, flow_run)
        found = None
        _refuse_unknown(entries, chosen)
        if trigger in AUTOMATIC and recovery is None and shown is None:
            found = taken(entries, flow_run=flow_run, now=view.now(), expires_s=ctx.app.approvals.expires_s)
        elif shown is None:
            _refuse_closed(entries, chosen)
        answer.append(
            Request(
                number=number,
                incident=chosen,
                recovery=shown.recovery if shown else recovery,
                plan_hash=str(shown.body.get("plan_hash") or "") if shown else "",
                handled_by=found.by if found else None,
                why=found.why if found else "",
            )
        )
        if mine and (found or not mine[-1].body.get("handled_by")):
            raise _KnownError
        body = {"flow_run": flow_run, "trigger": trigger, "number": number, "mode": mode}
        if found:
            body["handled_by"] = found.by
        return Draft(
            kind=kinds.RECOVERY_REQUESTED, app=ctx.app.key, incident=chosen, recovery=recovery or None, body=body
        )

    with suppress(_KnownError):
        ctx.ledger.append_with(compose)
    return answer[-1]


def taken(entries: Sequence[Entry], *, flow_run: str, now: datetime, expires_s: float) -> Taken | None:
    """Whether somebody else than ``flow_run`` has the incident in hand, from its entries. Pure.

    In this order: it is closed; a recovery has started (whoever stopped half-way is continued, not replaced); one half
    was brought back on purpose; the newest plan waits, is approved, or was rejected; another run asked a moment ago.
    An expired plan, a relapse, or news of the incident after the decision leave it free."""
    if any(e.kind == kinds.INCIDENT_CLOSED for e in entries):
        return Taken(by="the end of the incident", why="the incident is closed")
    return (
        _started(entries, flow_run) or _planned(entries, flow_run, now, expires_s) or _claimed(entries, flow_run, now)
    )


def _started(entries: Sequence[Entry], flow_run: str) -> Taken | None:
    """A recovery that began and was not given up, unless there was news since its end."""
    last = _last(entries, (kinds.RECOVERY_STARTED,))
    if last is None or last.body.get("flow_run") == flow_run:
        return None
    after = [e for e in entries if e.seq > last.seq]
    ends = [e for e in after if e.recovery == last.recovery]
    if any(e.kind == kinds.RECOVERY_ABANDONED for e in ends):
        return None
    finished = _last(ends, (kinds.RECOVERY_FINISHED,))
    if finished is None:
        word = "has stopped and can be continued" if _last(ends, (kinds.RECOVERY_STOPPED,)) else "is running"
        return Taken(by=_run(last), why=f"recovery {last.recovery} {word}")
    if any(e.kind in NEWS for e in after if e.seq > finished.seq):
        return None
    return Taken(by=_run(last), why=f"recovery {last.recovery} has ended ({finished.body.get('state', 'done')})")


def _planned(entries: Sequence[Entry], flow_run: str, now: datetime, expires_s: float) -> Taken | None:
    """The newest plan, while it waits, is about to run, or a person has said no to it."""
    made = _last(entries, (kinds.PLAN_MADE,))
    if made is None or made.recovery is None:
        return None
    plan = str(made.body.get("hash") or "")
    ends = (kinds.RECOVERY_ABANDONED, kinds.RECOVERY_FINISHED)
    if any(e.kind in ends and e.recovery == made.recovery and e.seq > made.seq for e in entries):
        return None
    found = approvals.standing(entries, made.recovery, plan, now=now, expires_s=expires_s)
    if found.flow_run == flow_run:
        return None
    return _by_verdict(entries, made, found, flow_run, now)


def _by_verdict(entries: Sequence[Entry], made: Entry, found: Standing, flow_run: str, now: datetime) -> Taken | None:
    who = f"flow run {found.flow_run}" if found.flow_run else f"recovery {made.recovery}"
    if found.verdict is Verdict.WAITING:
        if found.flow_run is None and (_made_by(entries, made) == flow_run or now - made.at > CLAIMED):
            return None  # made by a run that died before it could show it
        until = f"{found.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        return Taken(by=who, why=f"the plan of {made.recovery} waits for approval until {until}")
    if found.verdict is Verdict.APPROVED:
        # The run that showed it may need a new process first; who died instead is found by `recovery.keeping`.
        return Taken(by=who, why=f"the plan of {made.recovery} is approved")
    if found.verdict is Verdict.REJECTED:
        decided = _last(entries, (kinds.PLAN_REJECTED,))
        if decided is not None and any(e.kind in NEWS for e in entries if e.seq > decided.seq):
            return None
        return Taken(by=found.by or "a person", why=f"{found.by or 'a person'} rejected the plan of {made.recovery}")
    return None


def _claimed(entries: Sequence[Entry], flow_run: str, now: datetime) -> Taken | None:
    """The newest other run that was let through a moment ago; later than this run's own claim, it is the one."""
    last = _last(_claims(entries), (kinds.RECOVERY_REQUESTED,))
    if last is None or last.body.get("flow_run") == flow_run or now - last.at > CLAIMED:
        return None
    planned = _last(entries, (kinds.PLAN_MADE,))
    if planned is not None and planned.seq > last.seq:
        return None  # what became of its plan is answered already
    return Taken(by=_run(last), why=f"run #{_number(last)} is making a plan")


def _claims(entries: Sequence[Entry]) -> list[Entry]:
    return [e for e in entries if e.kind == kinds.RECOVERY_REQUESTED and not e.body.get("handled_by")]


def _made_by(entries: Sequence[Entry], made: Entry) -> str | None:
    """The run that was let through last before the plan was made."""
    claims = [e for e in _claims(entries) if e.seq < made.seq]
    return str(claims[-1].body.get("flow_run")) if claims else None


def _mine(entries: Sequence[Entry], flow_run: str) -> Entry | None:
    """What this run started, else what it showed, most recently."""
    own = [e for e in entries if e.body.get("flow_run") == flow_run and e.recovery is not None]
    return _last(own, (kinds.RECOVERY_STARTED,)) or _last(own, (kinds.PLAN_SHOWN,))


def _refuse_unknown(entries: Sequence[Entry], incident: str) -> None:
    if not any(e.kind == kinds.INCIDENT_OPENED for e in entries):
        raise UnknownIncident(
            f"incident {incident}: the ledger knows no such incident; leave the field empty for the open one"
        )


def _refuse_closed(entries: Sequence[Entry], incident: str) -> None:
    closed = _last(entries, (kinds.INCIDENT_CLOSED,))
    if closed is not None:
        raise NothingToRecover(
            f"incident {incident}: closed at {closed.at:%Y-%m-%d %H:%M:%S} UTC; see `reinstate timeline`"
        )


def _open(view: View, app: str) -> str:
    incidents = record.fold(view.entries(app=app, kinds=record.FOLDED)).values()
    for found in incidents:
        if found.closed_at is None:
            return found.id
    raise NothingToRecover(f"app {app}: no open incident, so there is nothing to bring back; see `reinstate status`")


def _of_recovery(view: View, recovery: str | None) -> str | None:
    """The incident of a recovery on record."""
    if recovery is None:
        return None
    made = view.entries(recovery=recovery, kinds=[kinds.PLAN_MADE])
    if not made:
        raise NothingToRecover(f"recovery {recovery}: no plan in the ledger; leave the field empty to make one")
    return made[-1].incident


def _last(entries: Iterable[Entry], wanted: Sequence[str]) -> Entry | None:
    found = None
    for entry in entries:
        if entry.kind in wanted:
            found = entry
    return found


def _run(entry: Entry) -> str:
    flow_run = entry.body.get("flow_run")
    return f"flow run {flow_run}" if flow_run else "another process"


def _number(entry: Entry) -> int:
    number = entry.body.get("number")
    return number if isinstance(number, int) else 0


class _KnownError(Exception):
    """Asked before, with the same answer: nothing to record."""
