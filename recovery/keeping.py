"""What the ledger leaves to do for somebody who outlives the processes: announce, expire, continue. Reads, and the few
entries that keep two who read at once from doing it twice. Starts nothing itself.

The ledger is the outbox: whatever was recorded and not yet followed up is found here again, whoever died in between.

*Dead* is a recovery that nobody works on and nobody decides about: it was approved or had started, has no end, no
living lease, and has said nothing for a grace. What stopped by a refusal, a failed proof or a relapse is not dead: a
person decides. A process that dies leaves no ``recovery.stopped``; one whose Prefect server or platform went away
lives on long enough to record it, so there the entry says ``heals`` (see :func:`recovery.retry.heals`).

Each continuation is recorded before its run exists. After three without an end, the recovery is recorded as stopped
and left to a person. A run that a person *cancelled* leaves no trace here: who knows that a run was cancelled must
record ``recovery.stopped``, or it is continued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from incidents import record
from incidents.record import Incident
from ledger import kinds
from ledger.entry import Draft, Entry
from ledger.lease import held
from recovery.leftover import CONTAINED, CONTINUATIONS, DECISIONS, OPENED, Dead, Shown, due, lost, pending

if TYPE_CHECKING:
    from ledger.ledger import View
    from recovery.context import AppContext

__all__ = [
    "CONTAINED",
    "OPENED",
    "Announcement",
    "Dead",
    "Shown",
    "announced",
    "continuing",
    "dead",
    "overdue",
    "unannounced",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Announcement:
    """An event to emit, then to confirm with :func:`announced`. ``payload`` is plain JSON without row values."""

    incident: str
    event: str
    payload: dict[str, Any]


def unannounced(ctx: AppContext, now: datetime | None = None) -> list[Announcement]:
    """Events that should be emitted now."""
    found = []
    at_work = living(ctx)
    for incident in unclosed(ctx):
        entries = ctx.ledger.entries(incident=incident.id)
        event = due(incident, entries, now or datetime.now(UTC), may_contain=ctx.app.autonomy.contain, at_work=at_work)
        if event is not None:
            found.append(Announcement(incident=incident.id, event=event, payload=payload(incident, entries)))
    return found


def announced(ctx: AppContext, incident: str, event_id: str) -> None:
    """Record that the event was emitted."""
    ctx.ledger.append(kinds.INCIDENT_ANNOUNCED, app=ctx.app.key, incident=incident, body={"event": event_id})


def overdue(ctx: AppContext, now: datetime | None = None) -> list[Shown]:
    """Shown plans whose time is up without a decision: record ``plan.expired`` for each."""
    at = now or datetime.now(UTC)
    return [s for s in pending(ctx.ledger.entries(app=ctx.app.key, kinds=DECISIONS)) if s.expires_at <= at]


def dead(ctx: AppContext, now: datetime | None = None) -> list[Dead]:
    """Recoveries to continue: pass each to :func:`continuing`, and make a run only if that says yes."""
    if living(ctx):
        return []
    at = now or datetime.now(UTC)
    found = (lost(ctx.ledger.entries(incident=i.id), at) for i in unclosed(ctx))
    return [d for d in found if d is not None]


def continuing(ctx: AppContext, found: Dead, flow_run: str | None = None, *, now: datetime | None = None) -> bool:
    """Record that ``found`` is being continued, before its run exists. False: somebody else continues it, it has come
    back to life or ended meanwhile, or it was continued often enough, which is then recorded as its stop."""
    if living(ctx):
        return False

    def compose(view: View) -> Draft:
        again = lost(view.entries(incident=found.incident), now or view.now())
        closed = record.fold(view.entries(incident=found.incident, kinds=record.FOLDED))[found.incident].closed_at
        if closed is not None or again is None or (again.recovery, again.attempt) != (found.recovery, found.attempt):
            raise _ElsewhereError
        kind, body = kinds.RECOVERY_CONTINUED, {"why": found.why, "attempt": found.attempt, "previous": found.flow_run}
        if found.attempt > CONTINUATIONS:
            kind = kinds.RECOVERY_STOPPED
            body = {
                "state": "paused",
                "reason": f"continued {CONTINUATIONS} times without reaching its end: {found.why}",
                "next": "look at the logs, mend the cause, then `reinstate recover --continue`",
                "gave_up": True,
            }
        else:
            body["flow_run"] = flow_run or found.key
        return Draft(kind=kind, app=ctx.app.key, incident=found.incident, recovery=found.recovery, body=body)

    try:
        return ctx.ledger.append_with(compose).kind == kinds.RECOVERY_CONTINUED
    except _ElsewhereError:
        return False


class _ElsewhereError(Exception):
    """Nothing to record: the world moved on."""


def living(ctx: AppContext) -> bool:
    """Whether a process is at work on the app, for all that can be known from here."""
    holder = held(ctx.ledger, ctx.app.key)
    return holder is not None and holder.living


def unclosed(ctx: AppContext) -> list[Incident]:
    return [i for i in record.all_of(ctx.ledger, ctx.app.key) if i.closed_at is None]


def payload(incident: Incident, entries: Sequence[Entry]) -> dict[str, Any]:
    """What the event says: enough for an automation to choose by, and for a person to understand."""
    return {
        "incident": incident.id,
        "app": incident.app,
        "severity": incident.severity.value,
        "title": incident.title,
        "impact": incident.impact,
        "workflows": list(incident.workflows),
        "contained": any(e.kind in kinds.CONTAINED for e in entries),
        "diagnosed": any(e.kind == kinds.INCIDENT_DIAGNOSED for e in entries),
        "number": sum(e.kind == kinds.INCIDENT_ANNOUNCED for e in entries) + 1,
    }
