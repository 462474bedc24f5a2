"""The data half: undo the selection behind the fence; carry people's edits over the replay."""

from __future__ import annotations

from typing import Any

from recovery.containment import Say
from recovery.context import AppContext
from recovery.errors import StepFailed
from recovery.plan import Plan, Step
from recovery.selection import planned_spec
from snapshots.model import TableCounts, UndoPreview
from snapshots.undo import carry, undo

DONE = {"delete": "deleted", "update": "updated", "insert": "inserted", "merged": "with later work kept"}


def undo_act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    """Apply the undo once; its postcondition is that planning it again yields nothing."""
    expected = tuple(
        TableCounts(
            table=e.table, delete=e.delete, update=e.update, insert=e.insert, merged=e.merged, table_rows=e.table_rows
        )
        for e in plan.effects
    )
    with ctx.connect("recoverer", "undo") as connection:
        spec = planned_spec(ctx.tables, plan, ctx.app.caps)
        applied = undo.apply(
            connection,
            spec,
            recovery_id=plan.recovery_id,
            step=step.id,
            plan_hash=plan.hash,
            expected=expected,
            known_conflicts=tuple(plan.conflicts),
        )
    assert_undone(ctx, plan)
    say(f"undone: {describe(applied.detail)}; planning it again yields nothing")
    return {"xid": applied.xid, **without_keys(applied.detail)}


def assert_undone(ctx: AppContext, plan: Plan) -> None:
    if left := remaining(ctx, plan):
        raise StepFailed(
            f"undo of recovery {plan.recovery_id}: planning it again still finds {'; '.join(left)}; "
            "the app stays contained: look at `reinstate plan`"
        )


def remaining(ctx: AppContext, plan: Plan) -> list[str]:
    """What the planned undo would still change or cannot vouch for, as sentences. Empty when it is done."""
    with ctx.connect("recoverer", "verify") as connection:
        spec = planned_spec(ctx.tables, plan, ctx.app.caps, connection=connection)
        connection.rollback()
        preview = undo.preview(connection, spec)
    return left_over(preview)


def left_over(preview: UndoPreview) -> list[str]:
    """What an undo that was done would still change or cannot vouch for, as sentences."""
    left = [
        f"{c.table}: {c.delete} to delete, {c.update} to update, {c.insert} to insert"
        for c in preview.counts
        if c.delete or c.update or c.insert
    ]
    return left + list(preview.problems)


def carry_act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    """Re-apply edits that have no event to replay on top of the replayed rows."""
    with ctx.connect("recoverer", "carry") as connection:
        spec = planned_spec(ctx.tables, plan, ctx.app.caps)
        applied = carry.apply(
            connection, spec, plan.carried_xids, recovery_id=plan.recovery_id, step=step.id, plan_hash=plan.hash
        )
    say(f"carried over: {describe(applied.detail)}")
    if left := sum(len(applied.detail.get(kind, ())) for kind in ("missing", "exists", "refused")):
        say(
            f"{left} edits of people could not be carried: their rows are gone, taken or refused; "
            f"look at reinstate.applied of {plan.recovery_id} and enter them by hand"
        )
    return {"xid": applied.xid, **without_keys(applied.detail)}


def without_keys(detail: dict[str, Any]) -> dict[str, Any]:
    """For the ledger: row keys may be personal; they stay in the app's own database (``reinstate.applied``)."""
    return {
        k: len(v) if k in ("left", "missing", "exists", "refused") and isinstance(v, list) else v
        for k, v in detail.items()
    }


def describe(detail: dict[str, Any]) -> str:
    """Counts of an applied step in words."""
    words = []
    for table, counts in sorted(detail.get("tables", {}).items()):
        done = [f"{n} {DONE[kind]}" for kind, n in counts.items() if n and kind in DONE]
        if done:
            words.append(f"{table} {', '.join(done)}")
    return "; ".join(words) or "nothing to change"
