"""Relapses on record, and what is still owed for one when the process that noticed it died."""

from __future__ import annotations

from ledger import kinds
from ledger.entry import Entry
from recovery.context import AppContext


def unproven(ctx: AppContext, incident: str) -> Entry | None:
    """The relapse since which no pause was proven: the app may be at work."""
    last = ctx.ledger.entries(incident=incident, kinds=[kinds.CONTAIN_PROVEN, kinds.RELAPSE])[-1:]
    return last[0] if last and last[0].kind == kinds.RELAPSE else None


def end_last(ctx: AppContext, incident: str) -> None:
    """Record the end of the recovery that relapsed last, unless it is on record."""
    for relapse in ctx.ledger.entries(incident=incident, kinds=[kinds.RELAPSE])[-1:]:
        end(ctx, relapse)


def end(ctx: AppContext, relapse: Entry) -> None:
    """Record that the recovery is over, unless an end after the relapse is on record: what it proved no longer holds.
    A resume by hand has none."""
    if relapse.recovery is None:
        return
    ends = [kinds.RECOVERY_FINISHED, kinds.RECOVERY_ABANDONED]
    if ctx.ledger.entries(recovery=relapse.recovery, kinds=ends, after_seq=relapse.seq):
        return
    body = {"by": "reinstate", "reason": f"relapse: {'; '.join(relapse.body['findings'])}"}
    ctx.ledger.append(
        kinds.RECOVERY_ABANDONED, app=relapse.app, incident=relapse.incident, recovery=relapse.recovery, body=body
    )
