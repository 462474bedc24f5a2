"""Whether an automatic recovery approves its own plan: the catalogue's limits, applied to one exact plan.

Only what started by itself (the event of a contained incident, or the steward that goes on with such a start) may
approve itself. Whatever is outside a limit waits for a person, with every reason in words. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from catalog.models import App, Tier
from ledger import kinds
from ledger.entry import Entry
from ledger.metrics import instant
from recovery.plan import PERSON, Plan
from snapshots.model import Policy

if TYPE_CHECKING:
    from recovery.context import AppContext

APPROVER: Final = "reinstate (automatic)"
"""Who approved, in the record (``by``) of an approval that this module allowed: the cooldown is counted by it."""
AUTOMATIC: Final = frozenset({"event", "steward"})
SURE: Final = frozenset({"exact", "unique"})
"""Attributions that name one run."""
TIERS: Final = tuple(Tier)
LATER_WORK_SETTLED: Final = frozenset({Policy.KEEP_LATER.value, Policy.NON_CONFLICTING_ONLY.value})
"""Policies by which somebody decided beforehand what becomes of rows that later work touched."""
BLOCKING: Final = frozenset({"created-then-edited", "key-taken", "referenced", "parent-gone"})
"""Conflicts whose rows stay damaged: no policy lets those pass without a person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """``why`` is one line for the operator: what allowed it, or everything that stands against it."""

    approved: bool
    why: str


def decide(
    app: App,
    plan: Plan,
    *,
    trigger: str,
    last_automatic: datetime | None,
    now: datetime,
    unattributed: int = 0,
) -> Decision:
    """Decide from the catalogue and the plan alone. Pure.

    ``trigger`` is what started the recovery in the first place (operator, event, steward, command).
    ``last_automatic`` is when the app's last automatic recovery was approved; ``unattributed`` counts the writes by
    the blamed workflow's role that the diagnosis assigned to no run."""
    if trigger not in AUTOMATIC:
        return Decision(approved=False, why=f"started by {trigger or 'an unknown trigger'}: a person approves the plan")
    reasons = list(_against(app, plan, last_automatic=last_automatic, now=now, unattributed=unattributed))
    if reasons:
        return Decision(approved=False, why=f"a person must approve: {'; '.join(reasons)}")
    return Decision(
        approved=True,
        why=f"within the limits of the catalogue: {plan.rows} of at most {app.autonomy.max_rows} rows, "
        "no open conflict, every run attributed",
    )


def of(ctx: AppContext, plan: Plan, trigger: str, *, now: datetime | None = None) -> Decision:
    """The same, reading from the ledger what the plan does not hold: what the steward goes on with, when the last
    automatic recovery was, and which writes the diagnosis could not assign."""
    app = plan.app
    if trigger == "steward":
        requests = ctx.ledger.entries(incident=plan.incident_id, kinds=[kinds.RECOVERY_REQUESTED])
        trigger = origin(requests)
    diagnoses = ctx.ledger.entries(incident=plan.incident_id, kinds=[kinds.INCIDENT_DIAGNOSED])
    return decide(
        ctx.app,
        plan,
        trigger=trigger,
        last_automatic=last_automatic(ctx.ledger.entries(app=app, kinds=[kinds.PLAN_APPROVED]), but=plan.hash),
        now=now or datetime.now(UTC),
        unattributed=unattributed(diagnoses[-1], plan) if diagnoses else 0,
    )


def unattributed(diagnosis: Entry, plan: Plan) -> int:
    """Writes that no run explains, by the roles whose bad runs the plan undoes."""
    roles = {s.role for s in plan.selection if s.why in ("bad-version", "version-unknown")}
    listed = diagnosis.body.get("unattributed")
    return sum(1 for w in listed if w.get("actor") in roles) if isinstance(listed, list) else 0


def origin(requests: Iterable[Entry]) -> str:
    """What started what the steward goes on with: the newest start that was not the steward's own. Without one on
    record nothing says that it was automatic, so a person's it is."""
    triggers = [str(e.body.get("trigger", "")) for e in requests]
    return next((t for t in reversed(triggers) if t != "steward"), "operator")


def last_automatic(approvals: Iterable[Entry], *, but: str) -> datetime | None:
    """When the newest approval without a person was given, not counting that of plan ``but`` itself."""
    return max(
        (e.at for e in approvals if e.body.get("by") == APPROVER and e.body.get("plan_hash") != but), default=None
    )


def _against(
    app: App, plan: Plan, *, last_automatic: datetime | None, now: datetime, unattributed: int
) -> Iterator[str]:
    """Every reason to wait for a person."""
    limits = app.autonomy
    if not limits.recover:
        yield "the catalogue does not let this app recover by itself (`autonomy: {recover: true}`)"
    if plan.rows > limits.max_rows:
        yield f"it changes {plan.rows} rows, the limit is {limits.max_rows}"
    yield from _later_work(plan)
    yield from _tiers(app, plan)
    yield from _unsure(plan, unattributed)
    performed = sum(c.action == "do" for c in plan.compensations)
    if performed and not limits.compensate:
        yield f"it performs {performed} compensations outside the rows (`autonomy: {{compensate: true}}` allows it)"
    cooled = timedelta(seconds=limits.cooldown_s)
    if last_automatic is not None and now - last_automatic < cooled:
        yield (
            f"the last automatic recovery was at {last_automatic:%Y-%m-%d %H:%M:%S} UTC, "
            f"less than {limits.cooldown_s} s ago: something may be wrong with the remedy"
        )
    made = instant(plan.made_at)
    if made is not None and now - made > timedelta(seconds=app.approvals.expires_s):
        yield f"the plan is older than {app.approvals.expires_s} s"


def _later_work(plan: Plan) -> Iterator[str]:
    settled = plan.policy in LATER_WORK_SETTLED
    for kind, rows in sorted(plan.conflicts.items()):
        if rows and (kind in BLOCKING or not settled):
            yield f"{rows} conflicting rows ({kind})"
    if plan.suspects and not settled:
        yield f"{plan.suspects} later transactions may rest on damaged values (policy {plan.policy})"


def _tiers(app: App, plan: Plan) -> Iterator[str]:
    limit = app.autonomy.most_critical
    known = {w.key: w.tier for w in app.workflows}
    named = sorted(
        {
            *plan.contained,
            *(p.workflow for p in plan.publications),
            *(s.workflow for s in plan.selection),
            *(e.workflow for e in plan.events),
        }
    )
    tiers = [(f"app {app.key}", app.tier), *((f"workflow {k}", known[k]) for k in named if k in known)]
    for name, tier in tiers:
        if TIERS.index(tier) < TIERS.index(limit):
            yield f"{name} is of tier {tier}, automatic recovery ends at tier {limit}"
    if unknown := [k for k in named if k not in known]:
        yield f"the catalogue no longer holds {', '.join(unknown)}"


def _unsure(plan: Plan, unattributed: int) -> Iterator[str]:
    # A run that wrote nothing has nothing to attribute.
    if unsure := [s for s in plan.selection if s.xids and s.attribution not in SURE]:
        grades = ", ".join(sorted({s.attribution for s in unsure}))
        yield f"{len(unsure)} undone runs are not surely attributed ({grades})"
    if unattributed:
        yield f"{unattributed} writes of the blamed workflow belong to no single run, so some damage may stay"
    yield from (note for note in plan.notes if PERSON in note)
