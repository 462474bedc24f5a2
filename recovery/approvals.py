"""Showing a plan and deciding about it: who said yes or no to exactly which plan, until when, on record.

A decision counts for one exact hash, before the plan expires, and while no newer plan of its incident was made. What
stands is a fold of the ledger's entries (:func:`standing`, pure); each decision is taken under the ledger's lock, so
that of two people who answer at once one is first and the other is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from ledger import kinds
from ledger.entry import Draft, Entry
from ledger.ledger import View
from ledger.metrics import instant
from recovery.context import AppContext
from recovery.errors import Expired, Refused, Rejected, Superseded
from recovery.leftover import Shown
from recovery.plan import Approval, Plan

READ: Final = (
    kinds.PLAN_MADE,
    kinds.PLAN_SHOWN,
    kinds.PLAN_APPROVED,
    kinds.PLAN_REJECTED,
    kinds.PLAN_EXPIRED,
    kinds.INCIDENT_CLOSED,
)
NEXT: Final = "the app stays paused and fenced; start `recover` again to make and show a new plan"


class Verdict(StrEnum):
    """What became of a plan. ``waiting``: shown, or only made, and still to be decided."""

    WAITING = "waiting"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where one plan stands. ``recorded`` is false for a plan whose time is over without an entry that says so.
    ``by``, ``at`` and ``reason`` tell of the decision, ``newer`` names what took its place."""

    verdict: Verdict
    expires_at: datetime
    flow_run: str | None = None
    recorded: bool = True
    by: str = ""
    at: datetime | None = None
    reason: str = ""
    newer: str = ""


def standing(entries: Iterable[Entry], recovery: str, plan_hash: str, *, now: datetime, expires_s: float) -> Standing:
    """Fold the incident's entries into where this plan stands. Pure. ``expires_s`` counts for a plan that was never
    shown, from when it was made."""
    found = [e for e in entries if e.kind in READ]
    mine = [e for e in found if e.recovery == recovery and _hash(e) == plan_hash]
    made = [e for e in mine if e.kind == kinds.PLAN_MADE]
    shown = [e for e in mine if e.kind == kinds.PLAN_SHOWN]
    expires = max((_expiry(e) for e in shown), default=None)
    expires = expires or (made[-1].at if made else now) + timedelta(seconds=expires_s)
    flow_run = str(shown[-1].body.get("flow_run") or "") or None if shown else None
    newest = next((e for e in reversed(found) if e.kind == kinds.PLAN_MADE), None)
    decided = next((e for e in reversed(mine) if e.kind in VERDICTS), None)
    if decided is not None and decided.kind in (kinds.PLAN_REJECTED, kinds.PLAN_EXPIRED):
        return Standing(
            verdict=VERDICTS[decided.kind],
            expires_at=expires,
            flow_run=flow_run,
            by=str(decided.body.get("by") or ""),
            at=decided.at,
            reason=str(decided.body.get("reason") or ""),
        )
    if newest is not None and (newest.recovery, _hash(newest)) != (recovery, plan_hash):
        newer = f"plan {_hash(newest)[:12]} of {newest.recovery}"
        return Standing(verdict=Verdict.SUPERSEDED, expires_at=expires, flow_run=flow_run, newer=newer)
    if decided is not None:
        return Standing(
            verdict=Verdict.APPROVED,
            expires_at=expires,
            flow_run=flow_run,
            by=str(decided.body.get("by") or ""),
            at=decided.at,
            reason=str(decided.body.get("reason") or ""),
        )
    if any(e.kind == kinds.INCIDENT_CLOSED for e in found):
        return Standing(verdict=Verdict.SUPERSEDED, expires_at=expires, flow_run=flow_run, newer="the incident's end")
    if now >= expires:
        return Standing(verdict=Verdict.EXPIRED, expires_at=expires, flow_run=flow_run, recorded=False)
    return Standing(verdict=Verdict.WAITING, expires_at=expires, flow_run=flow_run)


VERDICTS: Final = {
    kinds.PLAN_APPROVED: Verdict.APPROVED,
    kinds.PLAN_REJECTED: Verdict.REJECTED,
    kinds.PLAN_EXPIRED: Verdict.EXPIRED,
}


def of(ctx: AppContext, plan: Plan) -> Standing:
    """Where a plan stands now."""
    entries = ctx.ledger.entries(incident=plan.incident_id, kinds=READ)
    return standing(entries, plan.recovery_id, plan.hash, now=datetime.now(UTC), expires_s=ctx.app.approvals.expires_s)


def approval(ctx: AppContext, plan: Plan) -> Approval | None:
    """The recorded approval of exactly this plan, whatever came after it."""
    for entry in reversed(ctx.ledger.entries(recovery=plan.recovery_id, kinds=[kinds.PLAN_APPROVED])):
        given = Approval.model_validate(entry.body)
        if given.covers(plan):
            return given
    return None


def show(ctx: AppContext, plan: Plan, *, flow_run: str | None, expires_s: float) -> Shown:
    """Record that a plan waits for a decision, until ``expires_s`` seconds from now. A flow run that shows it again
    gets what it showed before. Raises :class:`Refused` or one of its kinds when it may not be decided any more."""
    again: list[Shown] = []

    def compose(view: View) -> Draft:
        entries = view.entries(incident=plan.incident_id, kinds=READ)
        _refuse(ctx, view, entries, plan, plan.hash)
        for entry in entries:
            if entry.kind == kinds.PLAN_SHOWN and _hash(entry) == plan.hash and entry.body.get("flow_run") == flow_run:
                again.append(_shown(entry))
                raise _KnownError
        body = {
            "plan_hash": plan.hash,
            "flow_run": flow_run,
            "expires_at": (view.now() + timedelta(seconds=expires_s)).isoformat(),
        }
        return _draft(kinds.PLAN_SHOWN, plan, body)

    try:
        return _shown(ctx.ledger.append_with(compose))
    except _KnownError:
        return again[-1]


def approve(ctx: AppContext, plan: Plan, *, plan_hash: str, by: str, reason: str) -> Approval:
    """Record a yes to the plan of this hash; a second yes changes nothing and returns the first. Identity is
    unproven. Raises :class:`Refused`, :class:`Rejected`, :class:`Expired` or :class:`Superseded`, in one line."""

    def compose(view: View) -> Draft:
        entries = view.entries(incident=plan.incident_id, kinds=READ)
        if _refuse(ctx, view, entries, plan, plan_hash).verdict is Verdict.APPROVED:
            raise _KnownError
        _named(plan, by)
        given = Approval(plan_hash=plan.hash, by=by.strip(), at=view.now().isoformat(), reason=reason.strip())
        return _draft(kinds.PLAN_APPROVED, plan, given.model_dump(mode="json"))

    try:
        return Approval.model_validate(ctx.ledger.append_with(compose).body)
    except _KnownError:
        given = approval(ctx, plan)
        if given is None:  # the entry is there, but does not cover the plan it is recorded with
            raise Refused(f"recovery {plan.recovery_id}: its approval cannot be read; verify the ledger") from None
        return given


def reject(ctx: AppContext, plan: Plan, *, plan_hash: str, by: str, reason: str) -> Standing:
    """Record a no to the plan of this hash; the app stays contained. A second no changes nothing. Raises
    :class:`Refused` when it is approved already, :class:`Expired` or :class:`Superseded` when it does not matter."""

    def compose(view: View) -> Draft:
        entries = view.entries(incident=plan.incident_id, kinds=READ)
        try:
            found = _refuse(ctx, view, entries, plan, plan_hash)
        except Rejected:
            raise _KnownError from None
        if found.verdict is Verdict.APPROVED:
            raise Refused(
                f"recovery {plan.recovery_id}: {found.by} approved its plan at {found.at:%Y-%m-%d %H:%M:%S} UTC; it "
                "cannot be rejected any more; see `reinstate timeline`"
            )
        _named(plan, by)
        body = {"plan_hash": plan.hash, "by": by.strip(), "reason": reason.strip()}
        return _draft(kinds.PLAN_REJECTED, plan, body)

    with suppress(_KnownError):
        ctx.ledger.append_with(compose)
    return of(ctx, plan)


def expire(ctx: AppContext, shown: Shown) -> bool:
    """Record that nobody decided in time. False, and nothing recorded, when somebody did, or there is time left."""

    def compose(view: View) -> Draft:
        entries = view.entries(incident=shown.incident, kinds=READ)
        found = standing(entries, shown.recovery, shown.plan_hash, now=view.now(), expires_s=0.0)
        if found.verdict is not Verdict.EXPIRED or found.recorded:
            raise _KnownError
        body = {"plan_hash": shown.plan_hash, "expires_at": shown.expires_at}
        return Draft(
            kind=kinds.PLAN_EXPIRED, app=ctx.app.key, incident=shown.incident, recovery=shown.recovery, body=body
        )

    try:
        ctx.ledger.append_with(compose)
    except _KnownError:
        return False
    return True


def waiting(ctx: AppContext) -> list[Shown]:
    """The app's plans that wait for a decision, oldest first."""
    entries = ctx.ledger.entries(app=ctx.app.key, kinds=READ)
    now = datetime.now(UTC)
    found: dict[tuple[str, str], Shown] = {}
    for entry in entries:
        if entry.kind != kinds.PLAN_SHOWN or entry.incident is None or entry.recovery is None:
            continue
        shown = _shown(entry)
        of_incident = [e for e in entries if e.incident == entry.incident]
        stands = standing(of_incident, shown.recovery, shown.plan_hash, now=now, expires_s=0.0)
        if stands.verdict is Verdict.WAITING:
            found[shown.recovery, shown.plan_hash] = shown
    return list(found.values())


def outdated(ctx: AppContext, plan: Plan) -> list[Shown]:
    """What other flow runs still show of this incident although ``plan`` took its place."""
    entries = ctx.ledger.entries(incident=plan.incident_id, kinds=READ)
    ended = {(e.recovery, _hash(e)) for e in entries if e.kind in VERDICTS}
    found = [_shown(e) for e in entries if e.kind == kinds.PLAN_SHOWN and e.recovery is not None]
    return [s for s in found if s.plan_hash != plan.hash and (s.recovery, s.plan_hash) not in ended]


class _KnownError(Exception):
    """It is on record already."""


def _refuse(ctx: AppContext, view: View, entries: Sequence[Entry], plan: Plan, plan_hash: str) -> Standing:
    """Raises why this plan may not be decided now. Returns where it stands otherwise: waiting or approved."""
    of_plan = f"recovery {plan.recovery_id}"
    if plan_hash != plan.hash:
        raise Refused(
            f"{of_plan}: the decision is about plan {plan_hash[:12] or '(none)'}, shown was {plan.hash[:12]}; "
            "read that plan and decide about it"
        )
    found = standing(entries, plan.recovery_id, plan.hash, now=view.now(), expires_s=ctx.app.approvals.expires_s)
    match found.verdict:
        case Verdict.REJECTED:
            why = f" ({found.reason})" if found.reason else ""
            raise Rejected(f"{of_plan}: {found.by or 'somebody'} rejected its plan {plan.hash[:12]}{why}; {NEXT}")
        case Verdict.EXPIRED:
            raise Expired(
                f"{of_plan}: plan {plan.hash[:12]} could be approved until {found.expires_at:%Y-%m-%d %H:%M:%S} UTC; "
                f"{NEXT}"
            )
        case Verdict.SUPERSEDED:
            raise Superseded(
                f"{of_plan}: {found.newer} took the place of plan {plan.hash[:12]}; decide about the newest, see "
                "`reinstate approvals`"
            )
    return found


def _named(plan: Plan, by: str) -> None:
    if not by.strip():
        raise Refused(f"recovery {plan.recovery_id}: a decision needs the name of who takes it; say by whom")


def _draft(kind: str, plan: Plan, body: Mapping[str, object]) -> Draft:
    return Draft(kind=kind, app=plan.app, incident=plan.incident_id, recovery=plan.recovery_id, body=body)


def _hash(entry: Entry) -> str:
    return str(entry.body.get("hash" if entry.kind == kinds.PLAN_MADE else "plan_hash") or "")


def _expiry(entry: Entry) -> datetime:
    """An entry without a readable time has expired: nobody may approve for ever."""
    return instant(entry.body.get("expires_at")) or entry.at


def _shown(entry: Entry) -> Shown:
    return Shown(
        recovery=str(entry.recovery),
        incident=str(entry.incident),
        plan_hash=_hash(entry),
        flow_run=str(entry.body.get("flow_run") or "") or None,
        expires_at=_expiry(entry),
    )
