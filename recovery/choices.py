"""Where to go back to: the recovery points and the last tick before an incident, ranked for one app."""

from __future__ import annotations

from datetime import datetime

from incidents import record
from ledger import kinds
from recovery.context import AppContext
from snapshots.model import RecoveryPoint
from snapshots.points import points, ranking
from snapshots.points.ranking import Choice, Start
from snapshots.restore import diff


def ranked(ctx: AppContext, start: Start) -> tuple[Choice, ...]:
    """Every choice, best first. Where the journal does not reach, the best point is compared with live, exactly."""
    found = points.listing(ctx.store, ctx.app.key).points
    tables = [t.name for t in ctx.app.tables]
    with ctx.connect("recoverer", "ranking") as connection:

        def compare(point: RecoveryPoint) -> dict[str, int]:
            loss = diff.would_lose(connection, point, ctx.store, ctx.tables)
            return {t.table: t.rows for t in loss.tables if t.rows}

        return ranking.rank(connection, found, start, tables, compare=compare)


def start_of(ctx: AppContext, incident: str) -> Start:
    """When the incident began: as diagnosed, with the transactions that are to blame; else when it was noticed, which
    may be later than it began. Raises ``IncidentError`` for an unknown one."""
    known = record.read(ctx.ledger, incident)
    diagnosed = ctx.ledger.entries(app=ctx.app.key, incident=known.id, kinds=[kinds.INCIDENT_DIAGNOSED])
    if not diagnosed:
        return Start(at=known.detected_at)
    body = diagnosed[-1].body
    return Start(
        at=datetime.fromisoformat(str(body["first_bad_at"])),
        xid=int(body["first_bad_xid"]),
        bad_xids=frozenset(int(x) for run in body["bad_runs"] for x in run["xids"]),
    )
