"""What a diff against a recovery point would lose: offered when an undo is refused, never chosen."""

from __future__ import annotations

import psycopg

from checks.model import Diagnosis
from recovery.context import AppContext
from snapshots import diff, points


def offer_diff(ctx: AppContext, connection: psycopg.Connection, diagnosis: Diagnosis) -> str:
    """One sentence: the point, and by table the later rows that restoring it would overwrite."""
    if diagnosis.point_id is None:
        return "There is no verified recovery point to compare with either; take one with `reinstate protect`"
    point = points.load(ctx.store, ctx.app.key, diagnosis.point_id)
    loss = diff.would_lose(connection, point, ctx.store, [t.name for t in ctx.tables])
    connection.rollback()
    return (
        f"A diff against point {point.id} of {point.taken_at:%Y-%m-%d %H:%M} is possible, but needs approval: "
        f"{loss.sentence()}"
    )
