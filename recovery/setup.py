"""What must be in place before anything goes wrong: the journal, with the roles it serves."""

from __future__ import annotations

from datetime import timedelta

import psycopg
from psycopg.conninfo import conninfo_to_dict

from recovery.context import AppContext, Role
from snapshots import journal, roles


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


def install_journal(ctx: AppContext, *, dry_run: bool = False) -> list[str]:
    """Install the journal on the app's tables, as the installer. Idempotent. Returns the SQL."""
    with ctx.connect("installer", "journal install") as connection:
        return journal.install(
            connection,
            ctx.tables,
            capturer=user(ctx, "capturer"),
            recoverer=user(ctx, "recoverer"),
            dry_run=dry_run,
            size_cap_mb=ctx.app.journal.size_cap_mb,
        )


def prune_journal(ctx: AppContext) -> str:
    """Forget what is older than the retention, and more where a twin is over its cap. Says what was forgotten."""
    retention = timedelta(days=ctx.app.journal.retention_days)
    with ctx.connect("installer", "journal prune") as connection:
        pruned = journal.prune(connection, retention=retention)
    return "; ".join(f"{p.table}: {p.rows} rows" for p in pruned) or "nothing to prune"
