"""What earlier recoveries did: they are continued, replaced or built upon, never repeated."""

from __future__ import annotations

import psycopg

from ledger import steps
from recovery.context import AppContext
from recovery.errors import Refused
from recovery.selection import UNDO
from snapshots.undo import undo


def started(ctx: AppContext, incident: str) -> list[str]:
    """Recoveries of the incident that began, oldest first."""
    entries = ctx.ledger.entries(incident=incident, kinds=["recovery.started"])
    return list(dict.fromkeys(e.recovery for e in entries if e.recovery))


def unfinished(ctx: AppContext, incident: str) -> list[str]:
    """Recoveries that did at least one step and were neither finished nor abandoned."""
    ends = ctx.ledger.entries(incident=incident, kinds=["recovery.finished", "recovery.abandoned"])
    over = {e.recovery for e in ends}
    return [r for r in started(ctx, incident) if r not in over and steps.state(ctx.ledger, r)]


def next_id(ctx: AppContext, incident: str) -> str:
    """``R1-INC-...``: recoveries of one incident are numbered. An unfinished one that has changed rows must be
    continued: raises :class:`Refused`. One that has not may be planned again (see :func:`replaceable`)."""
    for recovery in unfinished(ctx, incident):
        if changed_rows(ctx, recovery):
            raise Refused(
                f"incident {incident}: recovery {recovery} has started and not finished; "
                f"continue it with `reinstate recover --incident {incident} --continue`"
            )
    return f"R{len(started(ctx, incident)) + 1}-{incident}"


def replaceable(ctx: AppContext, incident: str) -> list[str]:
    """Unfinished recoveries that have changed no rows: a new plan takes their place."""
    return [r for r in unfinished(ctx, incident) if not changed_rows(ctx, r)]


def changed_rows(ctx: AppContext, recovery: str) -> bool:
    """Whether its undo happened; the app's own database knows."""
    if UNDO not in steps.state(ctx.ledger, recovery):
        return False
    with ctx.connect("recoverer", "plan") as connection:
        return undo.applied(connection, recovery, UNDO) is not None


def undone(
    ctx: AppContext, connection: psycopg.Connection, *, but: str | None = None
) -> frozenset[tuple[str, str | None]]:
    """Workflow and run id of what the app's recoveries undid already, replaying its events: undoing it twice would
    damage counters and lose the replays. A version that comes back brings the runs of its first incident to mind
    again; ``but`` leaves out what the recoveries of that incident did. Needs the recoverer's connection."""
    found: set[tuple[str, str | None]] = set()
    begun = ctx.ledger.entries(app=ctx.app.key, kinds=["recovery.started"])
    for recovery in dict.fromkeys(e.recovery for e in begun if e.recovery and (but is None or e.incident != but)):
        applied = undo.applied(connection, recovery, UNDO)
        connection.rollback()
        if applied is None:
            continue  # it changed no rows, or those of a database that is gone
        for entry in ctx.ledger.entries(recovery=recovery, kinds=["plan.made"]):
            if entry.body["hash"] == applied.plan_hash:
                found |= {(s["workflow"], s["run_id"]) for s in entry.body["selection"]}
    return frozenset(found)
