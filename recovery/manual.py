"""What a person starts by hand: an incident without a detector, the names they may use, a step out of turn."""

from __future__ import annotations

from collections.abc import Iterable

from catalog.errors import CatalogError
from incidents import record
from ledger import steps
from recovery.context import AppContext
from recovery.errors import NothingToRecover, Refused
from recovery.plan import Plan


def known_workflows(ctx: AppContext, keys: Iterable[str]) -> None:
    """Raises when a key is not in the catalogue, naming those that are."""
    known = {w.key for w in ctx.app.workflows}
    if unknown := sorted(set(keys) - known):
        raise CatalogError(
            f"workflow {', '.join(unknown)}: not in the catalogue of app {ctx.app.key}, which holds "
            f"{', '.join(sorted(known))}; correct the name"
        )


def reachable(ctx: AppContext) -> None:
    """Raises what platform or database raise when they cannot be reached: then nothing is begun."""
    ctx.infos()
    with ctx.connect("recoverer", "contain"):
        pass


def open_incident(ctx: AppContext, workflows: list[str], reason: str) -> str:
    """Join the open incident, or open one on a person's word."""
    return record.open_incident(
        ctx.ledger, app=ctx.app.key, severity="sev2", title=reason, impact="", workflows=workflows, by="operator"
    ).id


def ready_to_replay(ctx: AppContext, plan: Plan) -> None:
    """A replay comes after everything planned before it. Raises :class:`NothingToRecover` or :class:`Refused`."""
    before: list[str] = []
    for step in plan.steps:
        if step.kind == "replay":
            break
        before.append(step.id)
    else:
        raise NothingToRecover(f"recovery {plan.recovery_id}: its plan replays nothing; see `reinstate timeline`")
    known = steps.state(ctx.ledger, plan.recovery_id)
    if waiting := [s for s in before if s not in known or not known[s].done]:
        raise Refused(
            f"recovery {plan.recovery_id}: {', '.join(waiting)} must be done before the replay; "
            "run `reinstate recover --continue`"
        )


def rejected(ctx: AppContext, plan: Plan, *, by: str) -> None:
    """Record that a plan was shown and not approved."""
    ctx.ledger.append(
        "plan.rejected",
        app=plan.app,
        incident=plan.incident_id,
        recovery=plan.recovery_id,
        body={"plan_hash": plan.hash, "by": by, "reason": "not approved when shown"},
    )
