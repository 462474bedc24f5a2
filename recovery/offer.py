"""What a diff against a recovery point would lose: offered when an undo is refused, never chosen."""

from __future__ import annotations

from datetime import datetime

import psycopg

from recovery.context import AppContext
from recovery.errors import Refused
from snapshots.journal import journal
from snapshots.points import points
from snapshots.restore import diff


def offer_diff(ctx: AppContext, connection: psycopg.Connection, point_id: str | None) -> str:
    """One sentence: the point (the newest verified one by default), and the later rows that restoring it would
    overwrite, by table."""
    if point_id is None:
        newest = points.latest_verified(ctx.store, ctx.app.key)
        point_id = newest.id if newest else None
    if point_id is None:
        return "There is no verified recovery point to compare with either; take one with `reinstate protect`"
    point = points.load(ctx.store, ctx.app.key, point_id)
    loss = diff.would_lose(connection, point, ctx.store, [t.name for t in ctx.tables])
    connection.rollback()
    return (
        f"A diff against point {point.id} of {point.taken_at:%Y-%m-%d %H:%M} is possible, but needs approval: "
        f"{loss.sentence()}"
    )


def gaps(ctx: AppContext, connection: psycopg.Connection, since: datetime) -> list[str]:
    """Each stretch since then that the journal cannot vouch for, as a sentence."""
    found = journal.gaps(connection, since=since, tables=[t.name for t in ctx.tables])
    connection.rollback()
    return [f"the journal of {g.table} has a gap ({g.kind}: {g.detail})" for g in found]


def refuse_gaps(ctx: AppContext, connection: psycopg.Connection, since: datetime, point_id: str | None) -> None:
    """Raise :class:`Refused` with the gaps and the offer; an undo cannot know what the journal missed."""
    if found := gaps(ctx, connection, since):
        raise Refused(
            f"plan for app {ctx.app.key}: {'; '.join(found)}: an undo cannot vouch for the damaged range. "
            f"{offer_diff(ctx, connection, point_id)}"
        )


def undiagnosed(ctx: AppContext, why: str) -> Refused:
    """The refusal of an incident nobody could diagnose: a gap in the journal is often the reason."""
    with ctx.connect("recoverer", "offer") as connection:
        newest = points.latest_verified(ctx.store, ctx.app.key)
        if newest is not None:
            refuse_gaps(ctx, connection, newest.position.at, newest.id)
        return Refused(f"{why}. {offer_diff(ctx, connection, None)}")
