"""When the recovery itself lets fenced roles write: replay and canary, recorded so that nothing else can hide there.

Each lowering and raising is a ledger entry with the journal position at that moment. Windows of other workflows may lie
inside one another. A process that dies in between leaves the window open until the same workflows are fenced again,
which the next run does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import psycopg

from recovery.containment import lower_fence, raise_fence
from recovery.context import AppContext
from recovery.plan import Plan
from snapshots import position
from snapshots.journal import journal
from snapshots.model import Position

LOWERED = "fence.lowered"
RAISED = "fence.raised"
RESUMING = "resume.begun"


@contextmanager
def fence_lowered(
    ctx: AppContext, connection: psycopg.Connection, plan: Plan, workflows: Sequence[str]
) -> Iterator[Position]:
    """The workflows' roles may write while their workflows stay paused; fenced again whatever happens. Gives the
    position from before this recovery first let these workflows write."""
    note(ctx, connection, plan, LOWERED, workflows)
    try:
        lower_fence(ctx, connection, workflows, plan.incident_id)
        yield first_lowered(ctx, plan, workflows)
    finally:
        connection.rollback()
        raise_fence(ctx, connection, workflows, plan.incident_id)
        note(ctx, connection, plan, RAISED, workflows)


def first_lowered(ctx: AppContext, plan: Plan, workflows: Sequence[str]) -> Position:
    """Where the first of these windows was opened by the recovery, however often it was interrupted."""
    entries = ctx.ledger.entries(recovery=plan.recovery_id, kinds=[LOWERED])
    return decode(dict(next(e for e in entries if e.body["workflows"] == list(workflows)).body["position"]))


def note(ctx: AppContext, connection: psycopg.Connection, plan: Plan, kind: str, workflows: Sequence[str]) -> None:
    here = position.current(connection)
    connection.rollback()
    body = {"workflows": list(workflows), "position": encode(here)}
    ctx.ledger.append(kind, app=ctx.app.key, incident=plan.incident_id, recovery=plan.recovery_id, body=body)


def encode(here: Position) -> dict[str, Any]:
    return {**asdict(here), "at": here.at.isoformat()}


def decode(body: dict[str, Any]) -> Position:
    return Position(**{**body, "at": datetime.fromisoformat(body["at"])})


def proven_at(ctx: AppContext, incident: str) -> Position | None:
    """The journal position at which the pause was first proven; after a resume that was taken back, proven again."""
    found: Position | None = None
    for entry in ctx.ledger.entries(incident=incident, kinds=["contain.proven", RESUMING]):
        if entry.kind == RESUMING:
            found = None
        elif found is None and "position" in entry.body:
            found = decode(dict(entry.body["position"]))
    return found


def open_for_all(ctx: AppContext, incident: str) -> bool:
    """Whether a resume has begun and no pause was proven since."""
    entries = ctx.ledger.entries(incident=incident, kinds=["contain.proven", RESUMING])
    return bool(entries) and entries[-1].kind == RESUMING


def resuming_since(
    ctx: AppContext, connection: psycopg.Connection, incident: str, recovery: str | None, workflows: Sequence[str]
) -> Position:
    """Where the resume of these workflows began, recorded before anything is let through: what is written from here
    on is their own business, and watched. A recovery that is repeated gets the place of its first attempt."""
    if recovery is not None:
        for entry in ctx.ledger.entries(recovery=recovery, kinds=[RESUMING]):
            if entry.body["workflows"] == list(workflows):
                return decode(dict(entry.body["position"]))
    here = position.current(connection)
    connection.rollback()
    body = {"workflows": list(workflows), "position": encode(here)}
    ctx.ledger.append(RESUMING, app=ctx.app.key, incident=incident, recovery=recovery, body=body)
    return here


def allowed(ctx: AppContext, connection: psycopg.Connection, incident: str) -> frozenset[int]:
    """Transactions of roles that the recovery had let through at that time."""
    found: set[int] = set()
    opened: dict[tuple[str, ...], Position] = {}
    for entry in ctx.ledger.entries(incident=incident, kinds=[LOWERED, RAISED]):
        here, workflows = decode(dict(entry.body["position"])), tuple(entry.body["workflows"])
        if entry.kind == LOWERED:
            opened.setdefault(workflows, here)
        elif (since := opened.pop(workflows, None)) is not None:
            roles = ctx.roles(workflows)
            found |= written(connection, since, roles) - written(connection, here, roles)
    for workflows, since in opened.items():
        found |= written(connection, since, ctx.roles(workflows))
    return frozenset(found)


def written(connection: psycopg.Connection, since: Position, roles: Sequence[str]) -> set[int]:
    return {t.xid for t in journal.transactions(connection, since=since, actors=list(roles))}
