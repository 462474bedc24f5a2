"""Take back what the undone runs did outside their rows: the latest run first, of each run the last step first.

It comes after the undo and before the replay, so that an event that is sent again does its steps anew on a clean slate.
A critical step that cannot be taken back stops the recovery here, with the rows back and nothing replayed; another one
is left, by name, to a person. What comes later in the order is never done before what comes earlier is settled.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from recovery import compensated, compensation
from recovery.compensating import by_hand
from recovery.containment import Say
from recovery.context import AppContext
from recovery.errors import NotCompensated
from recovery.facts import Undone, facts_of
from recovery.plan import Compensation, Plan, Step
from recovery.taking_back import frame_of, let_in


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:  # noqa: ARG001 - one signature for all acts
    frame = frame_of(ctx, plan)
    todo = [c for c in plan.compensations if c.action == "do"]
    counts: Counter[str] = Counter()
    known = compensated.known(ctx)
    left = [c for c in plan.compensations if c.action == "manual" and not settled(compensated.of(known, c))]
    with let_in(ctx, plan, todo):
        for number, one in enumerate(todo, start=1):
            status = settle(ctx, frame, one, compensated.of(known, one), say)
            counts[status] += 1
            if status not in compensated.TAKEN_BACK:
                left.append(one)
            if number % 25 == 0 or number == len(todo):
                say(f"{number} of {len(todo)} steps of undone runs are settled")
    return {
        "compensations": len(todo),
        "done": counts["done"],
        "not_needed": counts["not-needed"],
        "skipped": sum(n for status, n in counts.items() if status not in compensated.TAKEN_BACK),
        "by_hand": by_hand(left),
    }


def settled(past: compensated.StepRecord | None) -> bool:
    return past is not None and past.taken_back


def settle(
    ctx: AppContext, frame: compensation.Frame, one: Compensation, past: compensated.StepRecord | None, say: Say
) -> str:
    """One inverse, once. What this recovery left to a person stays so: what comes after it may be done already."""
    left = past is not None and past.recovery == frame.recovery and not past.open and not one.critical
    if past is not None and past.status is not None and (past.taken_back or left):
        return past.status
    facts = facts_of(ctx, Undone(workflow=one.workflow, run_id=one.run_id))
    outcome = compensation.once(ctx, frame, one, facts, past, say=say)
    if outcome.taken_back:
        return outcome.status
    if one.critical:
        raise NotCompensated(refusal(one, outcome))
    say(f"{one.step} of run {one.run_id} of {one.workflow} is left to a person: {outcome.error}")
    return outcome.status


def refusal(one: Compensation, outcome: compensation.Outcome) -> str:
    said = "may or may not have been taken back" if outcome.status == "unknown" else "could not be taken back"
    hand = f" ({one.manual})" if one.manual else ""
    return (
        f"step {one.step!r} of run {one.run_id} of {one.workflow} {said}: {outcome.error}; the rows are undone, "
        f"nothing is replayed, the app stays paused: mend the cause, or take it back by hand{hand} and record that "
        "with `reinstate compensations settle`, then run `reinstate recover --continue`"
    )
