"""What the entries of open incidents leave to do. Pure: entries and a time in, what is due out.

See :mod:`recovery.keeping`, which reads the ledger for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from incidents.record import Incident, Status
from ledger import kinds
from ledger.entry import Entry
from ledger.metrics import instant

CONTAINED: Final = "reinstate.incident.contained"
"""The event that starts a recovery."""
OPENED: Final = "reinstate.incident.opened"
"""The event of an incident that was not contained: the catalogue forbids it, or the pause could not be proven."""
DIAGNOSIS_S: Final = 10.0
"""A recovery cannot be planned without a diagnosis, which follows the containment: so long it is waited for."""
UNPROVEN_S: Final = 30.0
"""So long a containment may take before its incident is announced as open."""
AGAIN_S: Final = 180.0
"""An announcement that brought no plan within this time is repeated, up to :data:`ANNOUNCEMENTS` in all."""
ANNOUNCEMENTS: Final = 3
STARTED_S: Final = 20.0
APPROVED_S: Final = 60.0
"""A run that was approved may need a new process before it starts."""
CONTINUED_S: Final = 120.0
"""A run made to continue may wait for its turn before it starts."""
CONTINUATIONS: Final = 3

HANDLED = frozenset(
    {
        kinds.PLAN_REFUSED,
        kinds.PLAN_SHOWN,
        kinds.PLAN_APPROVED,
        kinds.PLAN_REJECTED,
        kinds.PLAN_EXPIRED,
        kinds.RECOVERY_STARTED,
    }
)
"""Any of these says that the announcement arrived, or that a person was quicker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A plan that waits, or waited, for a person's decision."""

    recovery: str
    incident: str
    plan_hash: str
    flow_run: str | None
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Dead:
    """A recovery to continue. ``attempt`` counts continuations, this one included; beyond :data:`CONTINUATIONS` there
    is none any more (:func:`recovery.keeping.continuing` then records that and says no)."""

    recovery: str
    incident: str
    mode: str
    flow_run: str | None
    attempt: int
    why: str

    @property
    def key(self) -> str:
        """The same for everybody who continues this attempt: make it the new run's idempotency key."""
        return f"{self.recovery}-continued-{self.attempt}"


def due(incident: Incident, entries: Sequence[Entry], now: datetime, *, may_contain: bool, at_work: bool) -> str | None:
    """The event that an open incident is to be announced with now. Pure."""
    proven = next((e for e in entries if e.kind in kinds.CONTAINED), None)
    sent = [e for e in entries if e.kind == kinds.INCIDENT_ANNOUNCED]
    if proven is None:
        waited = now - incident.opened_at >= timedelta(seconds=UNPROVEN_S)
        return OPENED if not sent and (waited or not may_contain) else None
    after = [e for e in sent if e.seq > proven.seq]
    diagnoses = [e for e in entries if e.kind in (kinds.INCIDENT_DIAGNOSED, kinds.INCIDENT_UNDIAGNOSED)]
    if not after:
        ready = diagnoses or now - proven.at >= timedelta(seconds=DIAGNOSIS_S)
        return CONTAINED if ready and incident.status is Status.CONTAINED else None
    if at_work or len(after) >= ANNOUNCEMENTS or now - after[-1].at < timedelta(seconds=AGAIN_S):
        return None
    diagnosed = bool(diagnoses) and diagnoses[-1].kind == kinds.INCIDENT_DIAGNOSED
    return CONTAINED if diagnosed and not _handled(entries) else None


def _handled(entries: Sequence[Entry]) -> bool:
    """Whether somebody has planned. A plan that an automatic start made and died before showing it is nobody's."""
    if any(e.kind in HANDLED for e in entries):
        return True
    started = [e for e in entries if e.kind in (kinds.RECOVERY_REQUESTED, kinds.PLAN_MADE)]
    by_itself = any(e.kind == kinds.RECOVERY_REQUESTED and e.body.get("trigger") != "operator" for e in started)
    return any(e.kind == kinds.PLAN_MADE for e in started) and not by_itself


DECISIONS = (
    kinds.PLAN_MADE,
    kinds.PLAN_SHOWN,
    kinds.PLAN_APPROVED,
    kinds.PLAN_REJECTED,
    kinds.PLAN_EXPIRED,
    kinds.RECOVERY_STARTED,
    kinds.RECOVERY_ABANDONED,
)


def pending(entries: Iterable[Entry]) -> list[Shown]:
    """Plans that were shown and are neither decided, expired nor replaced by a newer plan of their incident. Pure."""
    waiting: dict[str, Shown] = {}
    for entry in entries:
        incident, hash_ = str(entry.incident), str(entry.body.get("plan_hash", entry.body.get("hash", "")))
        shown = waiting.get(incident)
        if entry.kind == kinds.PLAN_SHOWN and entry.recovery is not None:
            if (expires := instant(entry.body.get("expires_at"))) is not None:
                waiting[incident] = Shown(
                    recovery=entry.recovery,
                    incident=incident,
                    plan_hash=hash_,
                    flow_run=entry.body.get("flow_run"),
                    expires_at=expires,
                )
        elif shown is None:
            continue
        elif entry.kind == kinds.PLAN_MADE:
            if hash_ != shown.plan_hash:
                del waiting[incident]
        elif entry.kind in (kinds.RECOVERY_STARTED, kinds.RECOVERY_ABANDONED):
            if entry.recovery == shown.recovery:
                del waiting[incident]
        elif entry.kind in DECISIONS and hash_ == shown.plan_hash:
            del waiting[incident]
    return list(waiting.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Life:
    """One recovery as its entries tell it. ``state``: planned, approved, started, ended (its own end is recorded),
    closing (that of its incident is not), stopped (a person decides) or interrupted (its surroundings failed)."""

    recovery: str
    plan_hash: str = ""
    mode: str = "both"
    state: str = "planned"
    flow_run: str | None = None
    continued: int = 0
    unanswered: bool = False
    """The newest entry is that of a continuation."""
    last: datetime
    why: str = ""


def lost(entries: Sequence[Entry], now: datetime) -> Dead | None:
    """The dead recovery of one open incident, provided that nobody holds the app's lease. Pure.

    Only the newest plan counts: a new plan takes the place of one that never started."""
    lives: dict[str, _Life] = {}
    newest = ""
    for entry in entries:
        if entry.recovery is None:
            continue
        known = lives.get(entry.recovery, _Life(recovery=entry.recovery, last=entry.at))
        lives[entry.recovery] = _lived(known, entry)
        if entry.kind in (kinds.PLAN_MADE, kinds.RECOVERY_STARTED):
            newest = entry.recovery
    life = lives.get(newest)
    if life is None or life.state not in GRACES:
        return None
    grace = CONTINUED_S if life.unanswered else GRACES[life.state] * 2**life.continued
    if now - life.last < timedelta(seconds=grace):
        return None
    incident = next(str(e.incident) for e in entries if e.recovery == newest)
    return Dead(
        recovery=life.recovery,
        incident=incident,
        mode=life.mode,
        flow_run=life.flow_run,
        attempt=life.continued + 1,
        why=life.why,
    )


GRACES: Mapping[str, float] = {
    "approved": APPROVED_S,
    "started": STARTED_S,
    "closing": STARTED_S,
    "interrupted": STARTED_S,
}
"""Seconds of silence after which a recovery in that state is dead; doubled with each continuation."""


def _lived(life: _Life, entry: Entry) -> _Life:  # noqa: PLR0911 - one return per kind of entry
    body = entry.body
    run = body.get("flow_run") or life.flow_run
    life = replace(life, last=entry.at, unanswered=False)
    match entry.kind:
        case kinds.PLAN_MADE:
            return _Life(
                recovery=life.recovery,
                plan_hash=str(body.get("hash", "")),
                mode=str(body.get("mode", "both")),
                last=entry.at,
            )
        case kinds.PLAN_SHOWN:
            return replace(life, flow_run=run)
        case kinds.PLAN_APPROVED if body.get("plan_hash") == life.plan_hash and life.state == "planned":
            return replace(life, state="approved", why="its plan was approved and never run")
        case kinds.PLAN_REJECTED | kinds.PLAN_EXPIRED if life.state == "approved":
            return replace(life, state="planned")
        case kinds.RECOVERY_STARTED if life.state != "ended":
            return replace(life, state="started", flow_run=run, why="its process ended without a word")
        case kinds.RECOVERY_CONTINUED:
            return replace(life, flow_run=run, continued=life.continued + 1, unanswered=True)
        case kinds.STEP_INTENT:
            title = body.get("title") or entry.step
            return replace(life, why=f"its process ended without a word after it began: {title}")
        case kinds.RECOVERY_STOPPED if body.get("heals"):
            return replace(life, state="interrupted", why=str(body.get("reason") or "it was interrupted"))
        case kinds.RECOVERY_STOPPED | kinds.RELAPSE:
            return replace(life, state="stopped", continued=0)
        case kinds.RECOVERY_FINISHED if body.get("resumed"):
            return replace(life, state="closing", why="it reached its end and its incident was not closed")
        case kinds.RECOVERY_FINISHED | kinds.RECOVERY_ABANDONED:
            return replace(life, state="ended")
    return life
