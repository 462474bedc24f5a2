"""The runs that a recovery itself made and undid again (a canary, an attempt at a replay) leave nothing outside either:
their declared inverses are done at once, as those of the runs in the plan are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from recovery import compensated, compensation, facts, private
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.errors import NotCompensated
from recovery.plan import Compensation, Plan
from recovery.windows import fence_lowered


def frame_of(ctx: AppContext, plan: Plan) -> compensation.Frame:
    return compensation.Frame(
        recovery=plan.recovery_id,
        incident=plan.incident_id,
        plan_hash=plan.hash,
        version_of=partial(known_good, ctx, plan),
        paused=plan.contained,
    )


@contextmanager
def let_in(ctx: AppContext, plan: Plan, found: Iterable[Compensation], but: Collection[str] = ()) -> Iterator[None]:
    """Contained workflows that do these inverses may write, for that alone. ``but`` may already."""
    through = {c.through for c in found if c.action == "do" and c.through is not None}
    reached = private.reach(ctx, through, partial(known_good, ctx, plan), plan.contained) if through else []
    free = ctx.roles(tuple(but))  # fencing a role again that others share would stop them too
    fenced = sorted(k for k in set(reached) & set(plan.contained) if ctx.app.workflow(k).role not in free)
    if not fenced:
        yield
        return
    with ctx.connect("recoverer", "compensation") as connection, fence_lowered(ctx, connection, plan, fenced):
        yield


def of_own_run(ctx: AppContext, plan: Plan, workflow: str, run_id: str, *, may_write: Collection[str] = ()) -> None:
    """Take back what a run of the recovery did outside its rows, once. Irreversible steps stay, as the catalogue says.
    ``may_write`` are workflows whose fence is lowered already. Raises :class:`NotCompensated` where a critical one is
    not taken back: going on would do it a second time."""
    if workflow not in facts.concerned(ctx):
        return
    run = facts.Undone(workflow=workflow, run_id=run_id)
    found = facts.decided(ctx, plan.incident_id, [run]).compensations
    known = compensated.known(ctx) if found else {}
    for one in found:
        if one.inverse == "irreversible" or one.action == "settled":
            continue
        why = one.why
        if one.action == "do":
            past = compensated.of(known, one)
            with let_in(ctx, plan, [one], may_write):
                outcome = compensation.once(ctx, frame_of(ctx, plan), one, facts.facts_of(ctx, run), past)
            if outcome.taken_back:
                continue
            why = outcome.error
        if one.critical:
            hand = f" ({one.manual})" if one.manual else ""
            raise NotCompensated(
                f"step {one.step!r} of run {run_id} of {workflow}, which the recovery made itself, is not taken back: "
                f"{why}; take it back by hand{hand}, record that with `reinstate compensations settle`, "
                "then run `reinstate recover --continue`"
            )
