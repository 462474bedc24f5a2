"""Where an app stands now: a read of platform, ledger, store and journal."""

from __future__ import annotations

from dataclasses import dataclass

from incidents import record
from ingress.model import State
from ledger import kinds
from recovery import events_kept
from recovery.context import AppContext
from recovery.errors import NotCompensated, NothingToRecover
from snapshots.journal import journal
from snapshots.points import points


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowStanding:
    key: str
    active: bool
    live: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    app: str
    workflows: tuple[WorkflowStanding, ...]
    incident: str | None
    point: str | None
    lines: tuple[str, ...]


def standing(ctx: AppContext) -> Standing:
    """Reads only; raises what the platform or the database raise when they cannot be reached."""
    workflows = []
    for key, info in ctx.infos().items():
        live = ctx.platform.live_version(info.id) if info.active else None
        workflows.append(WorkflowStanding(key=key, active=info.active, live=live.hash if live else None))
    incident = record.find_open(ctx.ledger, ctx.app.key)
    verified = [p for p in points.listing(ctx.store, ctx.app.key).points if p.verified]
    newest = max(verified, key=lambda p: p.taken_at, default=None)
    with ctx.connect("recoverer", "status") as connection:
        state = journal.status(connection, expected=[t.name for t in ctx.app.tables])
    problems = ctx.ledger.verify()
    lines = [
        f"incident: {incident.id} {incident.status} - {incident.title}" if incident else "incident: none open",
        f"newest verified point: {newest.id} of {newest.taken_at:%Y-%m-%d %H:%M:%S}"
        if newest
        else "no verified point: run `reinstate protect`",
        f"journal: {journal_line(state)}",
        f"ledger: {'; '.join(problems)}" if problems else f"ledger: {ctx.ledger.head()[0]} entries, chain intact",
    ]
    lines += stopped(ctx, incident.id) if incident else []
    lines += events_line(ctx)
    return Standing(
        app=ctx.app.key,
        workflows=tuple(workflows),
        incident=incident.id if incident else None,
        point=newest.id if newest else None,
        lines=tuple(lines),
    )


def stopped(ctx: AppContext, incident: str) -> list[str]:
    """Why the incident's recovery stopped and how it goes on; nothing while one is at work, or after its end."""
    lives = (kinds.RECOVERY_STARTED, kinds.RECOVERY_STOPPED, kinds.RECOVERY_ABANDONED, kinds.RECOVERY_FINISHED)
    found = ctx.ledger.entries(incident=incident, kinds=lives)
    if not found or found[-1].kind != kinds.RECOVERY_STOPPED:
        return []
    body = found[-1].body
    look = "`reinstate compensations list`, then " if body.get("state") == NotCompensated.state else ""
    return [
        f"stopped: {found[-1].recovery}: {body.get('reason') or 'no reason recorded'}",
        f"to go on: {look}`reinstate recover --continue`",
    ]


def events_line(ctx: AppContext) -> list[str]:
    """What waits for the end of a pause and what nobody is sure of; nothing when there is nothing."""
    held = sum(events_kept.waiting(ctx, ()).values())
    unknown = len(events_kept.listing(ctx, states=[State.UNKNOWN]))
    if not held and not unknown:
        return []
    return [f"events: {held} held, {unknown} unknown: `reinstate events list`"]


def journal_line(state: journal.Status) -> str:
    """The journal in one line: what is recorded, how large, which gaps last."""
    if not state.installed:
        return "not installed: run `reinstate journal install`"
    size = sum(t.bytes for t in state.tables) / 1_000_000
    open_gaps = [f"{g.table} ({g.kind})" for g in state.gaps if g.until is None]
    missing = f"; not journaled: {', '.join(state.missing)}" if state.missing else ""
    return f"{len(state.tables)} tables, {size:.1f} MB, open gaps: {', '.join(open_gaps) or 'none'}{missing}"


def incident_or_last(ctx: AppContext, incident: str | None) -> str:
    """The named incident, else the open one, else the last one."""
    if incident is not None:
        return record.read(ctx.ledger, incident).id
    if found := record.find_open(ctx.ledger, ctx.app.key):
        return found.id
    opened = ctx.ledger.entries(app=ctx.app.key, kinds=["incident.opened"])
    if not opened or opened[-1].incident is None:
        raise NothingToRecover(f"app {ctx.app.key}: there has been no incident yet")
    return opened[-1].incident
