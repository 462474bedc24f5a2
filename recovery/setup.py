"""What must be in place before anything goes wrong: the journal, with the roles it serves."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict

from recovery.context import AppContext, Role
from snapshots import journal


def user(ctx: AppContext, role: Role) -> str:
    """The database user behind one of the catalogue's three connection strings."""
    return str(conninfo_to_dict(ctx.dsn(role))["user"])


def install_journal(ctx: AppContext, *, dry_run: bool = False) -> list[str]:
    """Install the journal on the app's tables, as the installer. Idempotent. Returns the SQL."""
    with ctx.connect("installer", "journal install") as connection:
        return journal.install(
            connection,
            ctx.tables,
            capturer=user(ctx, "capturer"),
            recoverer=user(ctx, "recoverer"),
            dry_run=dry_run,
        )


def prune_journal(ctx: AppContext) -> str:
    policy = ctx.app.journal
    with ctx.connect("installer", "journal prune") as connection:
        removed = journal.prune(connection, retention_days=policy.retention_days, size_cap_mb=policy.size_cap_mb)
        connection.commit()
    return f"pruned: {removed}"
