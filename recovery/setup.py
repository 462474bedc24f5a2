"""What must be in place before anything goes wrong: the journal, with the roles it serves."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ledger import kinds
from recovery.containment import Say, quiet
from recovery.context import AppContext, Role
from recovery.errors import NothingToRecover, Refused
from recovery.protect import newest
from snapshots import roles
from snapshots.journal import audit, journal
from snapshots.journal.audit import Missed
from snapshots.journal.prune import Pruned
from snapshots.points import points

LEASE_S = 60.0


def user(ctx: AppContext, role: Role) -> str:
    """The database user behind one of the catalogue's three connection strings."""
    return str(conninfo_to_dict(ctx.dsn(role))["user"])


def roles_sql(ctx: AppContext) -> str:
    """The SQL an administrator runs once; see :mod:`snapshots.roles`."""
    return roles.sql(
        database=str(conninfo_to_dict(ctx.dsn("installer"))["dbname"]),
        tables=[t.name for t in ctx.app.tables],
        installer=user(ctx, "installer"),
        capturer=user(ctx, "capturer"),
        recoverer=user(ctx, "recoverer"),
        workflow_roles=[w.role for w in ctx.app.workflows],
    )


def install_roles(ctx: AppContext, administrator_dsn: str) -> None:
    """Run that SQL as an administrator; the only thing an administrator ever does for Reinstate."""
    with psycopg.connect(administrator_dsn) as connection:
        connection.execute(roles_sql(ctx).encode())


def install_journal(ctx: AppContext, *, dry_run: bool = False, tables: Sequence[str] = ()) -> list[str]:
    """Install the journal on the app's tables (or on those of them in ``tables``), as the installer. Idempotent.
    Returns the SQL. Raises ``Refused`` for a table that the catalogue does not declare."""
    specs = ctx.tables
    if unknown := sorted(set(tables) - {t.name for t in specs}):
        raise Refused(f"table {', '.join(unknown)} is not in the catalogue of {ctx.app.key}: declare it there first")
    with ctx.connect("installer", "journal install") as connection:
        return journal.install(
            connection,
            [t for t in specs if not tables or t.name in tables],
            capturer=user(ctx, "capturer"),
            recoverer=user(ctx, "recoverer"),
            dry_run=dry_run,
            size_cap_mb=ctx.app.journal.size_cap_mb,
        )


def pruning_journal(ctx: AppContext) -> list[Pruned]:
    """What pruning by the catalogue's retention and cap would forget now; changes nothing."""
    with ctx.connect("recoverer", "journal prune") as connection:
        return journal.prune(connection, retention=_retention(ctx), dry_run=True)


def prune_journal(ctx: AppContext, *, by: str = "operator") -> list[Pruned]:
    """Forget what is older than the retention, and more where a twin is over its cap, under the app's lease and on
    record. Returns what was forgotten. Raises ``LeaseHeld`` while a recovery of the app runs: it may need it all."""
    app = ctx.app.key
    body: dict[str, Any] = {"operation": "journal prune", "by": by}
    with ctx.ledger.lease(app, _holder("pruning of the journal"), LEASE_S) as lease:
        days = ctx.app.journal.retention_days
        summary = [f"forgetting changes older than {days} days, and more where a twin is over its cap"]
        ctx.ledger.append(kinds.DATA_PLANNED, app=app, body={**body, "summary": summary}, lease=lease)
        with ctx.connect("recoverer", "journal prune") as connection:
            done = journal.prune(connection, retention=_retention(ctx))
        summary = [f"{p.table}: {p.rows} images until {p.complete_since.isoformat()}" for p in done]
        body = {**body, "summary": summary or ["nothing was old enough"]}
        ctx.ledger.append(kinds.DATA_APPLIED, app=app, body=body, lease=lease)
    return done


def remove_journal(ctx: AppContext, *, by: str = "operator") -> list[str]:
    """Take the journal off with all it recorded, as the installer, under the app's lease and on record. Returns what
    was removed."""
    app = ctx.app.key
    body: dict[str, Any] = {"operation": "journal remove", "by": by}
    with ctx.ledger.lease(app, _holder("removal of the journal"), LEASE_S) as lease:
        summary = ["removing the journal with all its history"]
        ctx.ledger.append(kinds.DATA_PLANNED, app=app, body={**body, "summary": summary}, lease=lease)
        with ctx.connect("installer", "journal remove") as connection:
            removed = journal.remove(connection)
            connection.commit()
        summary = [f"removed {len(removed)} objects"]
        ctx.ledger.append(kinds.DATA_APPLIED, app=app, body={**body, "summary": summary}, lease=lease)
    return removed


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit of the journal found. ``missed`` is empty when the journal saw everything since the point."""

    point: str
    since: datetime
    tables: tuple[str, ...]
    missed: tuple[Missed, ...]


def audit_journal(
    ctx: AppContext, *, point_id: str | None = None, tables: Sequence[str] = (), say: Say = quiet
) -> Audit:
    """Compare live with a recovery point (default: the newest) plus the journal since it, as the recoverer. What the
    journal missed is named, and recorded as a gap so that no undo crosses it. Fit for a schedule: a point with
    fingerprints (``capture.fingerprint``) costs one scan of each table, another one about the same.

    Raises ``NothingToRecover`` without a point and ``Refused`` where the journal or the point cannot tell."""
    point = points.load(ctx.store, ctx.app.key, point_id) if point_id else newest(ctx, say=say)
    if point is None:
        raise NothingToRecover(
            f"app {ctx.app.key}: there is no recovery point to audit the journal against; take one: `reinstate protect`"
        )
    if unknown := sorted(set(tables) - {t.name for t in ctx.tables}):
        raise Refused(f"table {', '.join(unknown)} is not in the catalogue of {ctx.app.key}")
    missed: list[Missed] = []
    specs = [t for t in ctx.tables if not tables or t.name in tables]
    with ctx.connect("recoverer", "journal verify") as connection:
        journal.tick(connection)
        try:
            for number, spec in enumerate(specs, 1):
                say(f"{spec.name}: live against point {point.id} and the journal ({number} of {len(specs)})")
                missed += audit.audit(connection, point, ctx.store, [spec])
        finally:  # what is known of the tables before one that cannot be audited counts
            if missed:
                audit.record(connection, missed)
    return Audit(point=point.id, since=point.position.at, tables=tuple(s.name for s in specs), missed=tuple(missed))


def _retention(ctx: AppContext) -> timedelta:
    return timedelta(days=ctx.app.journal.retention_days)


def _holder(what: str) -> str:
    return f"{what} by process {os.getpid()} on {socket.gethostname()}"
