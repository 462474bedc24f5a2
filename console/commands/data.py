"""`reinstate roles | journal | protect | points`: what must be in place before anything goes wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened


def register(app: typer.Typer) -> None:
    app.command()(roles)
    journal = typer.Typer(
        help="The change journal inside the app's database.\n\nExamples: `reinstate journal install --dry-run`, "
        "`reinstate journal status`.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    journal.command("install")(journal_install)
    journal.command("status")(journal_status)
    journal.command("prune")(journal_prune)
    journal.command("remove")(journal_remove)
    app.add_typer(journal, name="journal")
    app.command()(protect)
    app.command()(points)


def roles(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    print_sql: Annotated[bool, typer.Option("--print-sql", help="Print the SQL; nothing is run.")] = True,  # noqa: ARG001
) -> None:
    """Print the SQL that gives the three least-privilege roles what they need. An administrator runs it once.

    Example: `reinstate roles --print-sql | psql "$ADMIN_DSN"`.
    """
    from recovery import setup

    with opened(catalog, app) as ctx:
        output.say(setup.roles_sql(ctx))


def journal_install(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, dry_run: DryRun = False) -> None:
    """Install the journal, or let it follow changed tables. Run again whenever you like.

    Examples: `reinstate journal install --dry-run`, `reinstate journal install`.
    """
    from recovery import setup

    with opened(catalog, app) as ctx:
        statements = setup.install_journal(ctx, dry_run=dry_run)
    if dry_run:
        output.say(";\n".join(statements))
    else:
        output.say(f"journal installed: {len(statements)} statements")


def journal_status(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Say what the journal records, how large it is, and where it has gaps. Exit code 5 while a gap is open."""
    from recovery.standing import journal_line
    from snapshots import journal

    with opened(catalog, app) as ctx, ctx.connect("recoverer", "journal status") as connection:
        found = journal.status(connection, expected=[t.name for t in ctx.app.tables])
    lines = [journal_line(found), *(f"gap in {g.table}: {g.kind}: {g.detail}" for g in found.gaps)]
    output.emit(found, as_json=as_json, text="\n".join(lines))
    if found.missing or any(g.until is None for g in found.gaps):
        raise typer.Exit(exits.REFUSED)


def journal_prune(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None) -> None:
    """Drop journal rows older than the retention, or beyond the size cap."""
    from recovery import setup

    with opened(catalog, app) as ctx:
        output.say(setup.prune_journal(ctx))


def journal_remove(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Remove the journal and everything it recorded. Nothing is left in the database.

    Example: `reinstate journal remove --yes`.
    """
    from snapshots import journal

    if not yes:
        typer.confirm("Remove the journal? Undo of anything before now becomes impossible", abort=True)
    with opened(catalog, app) as ctx, ctx.connect("installer", "journal remove") as connection:
        removed = journal.remove(connection)
        connection.commit()
    output.say(f"journal removed: {removed}")


def protect(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Take a recovery point: logic and data together, proven by the suites on the same snapshot.

    Example: `reinstate protect -c examples/order-desk`. Exit code 6 when the suites did not pass.
    """
    from recovery.protect import protect as take

    with opened(catalog, app) as ctx:
        point = take(ctx, say=output.progress)
    shown = {"point": point.id, "verified": point.verified, "taken_at": point.taken_at}
    output.emit(shown, as_json=as_json, text=f"point {point.id}: {'verified' if point.verified else 'NOT verified'}")
    if not point.verified:
        raise typer.Exit(exits.NOT_PROVEN)


def points(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """List the recovery points, newest first."""
    from snapshots import points as listing

    with opened(catalog, app) as ctx:
        found = listing.listing(ctx.store, ctx.app.key).points
    if as_json:
        rows = [
            {"id": p.id, "taken_at": p.taken_at, "verified": p.verified, "rows": sum(t.rows for t in p.tables)}
            for p in found
        ]
        output.emit(rows, as_json=True)
        return
    output.table(
        "Recovery points",
        ["id", "taken", "verified", "rows", "workflows", "in flight"],
        [
            (
                p.id,
                f"{p.taken_at:%Y-%m-%d %H:%M:%S}",
                "yes" if p.verified else "no",
                sum(t.rows for t in p.tables),
                len(p.workflows),
                len(p.in_flight),
            )
            for p in found
        ],
    )
