"""What a person starts by hand: an incident without a detector, the names they may use, a step out of turn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from catalog.errors import CatalogError
from incidents import record
from ledger import steps
from recovery import containment, resuming, session
from recovery.containment import Contained, Say, quiet
from recovery.context import AppContext, open_app
from recovery.errors import NothingToRecover, Refused, VerificationFailed
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


def contain(
    ctx: AppContext, workflows: Iterable[str], *, incident: str | None, reason: str, say: Say = quiet
) -> Contained:
    """Contain on a person's word, in the named incident, else the open one, else a new one.

    Nothing is begun when a name is unknown, or platform or database are out of reach."""
    keys = list(workflows)
    known_workflows(ctx, keys)
    chosen = session.incident_of(ctx, incident) if incident else None
    reachable(ctx)
    if chosen is None:
        chosen = open_incident(ctx, sorted(ctx.app.dependents(frozenset(keys))), reason)
    return containment.contain(ctx, keys, incident=chosen, say=say)


def resume(
    catalog: Path, app: str | None, *, incident: str | None, by: str, override: str | None, say: Say = quiet
) -> tuple[str, tuple[str, ...]]:
    """Resume a paused app on a person's word. Returns the incident and what is active again.

    Raises :class:`VerificationFailed` when the proof did not pass and nobody overrode it."""
    with open_app(catalog, app) as ctx, session.exclusive(catalog, ctx.app.key):
        chosen = session.incident_of(ctx, incident)
        back = resuming.resume(ctx, chosen, by=by, override=override, say=say)
        closed = record.read(ctx.ledger, chosen).closed_at is not None
    if not back and not closed:
        raise VerificationFailed(
            f"incident {chosen}: the proof did not pass, so the app stays paused; look at `reinstate report`, mend "
            'the cause, or resume on record with `reinstate resume --override "reason"`'
        )
    return chosen, back


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
