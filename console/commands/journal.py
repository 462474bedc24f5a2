"""`reinstate journal install | status | prune | remove`: who changed which row, kept inside the app's database."""

from __future__ import annotations

from typing import Annotated

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened


def register(app: typer.Typer) -> None:
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


def journal_install(
    catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Install the journal, or let it follow changed tables. Run again whenever you like.

    Examples: `reinstate journal install --dry-run`, `reinstate journal install`.
    """
    from recovery import setup

    with opened(catalog, app) as ctx:
        statements = setup.install_journal(ctx, dry_run=dry_run)
    if dry_run:
        text = "".join(f"{s};\n" for s in statements).rstrip() or "-- the journal is in place; nothing would be run"
    else:
        text = f"journal installed: {len(statements)} statements" if statements else "the journal is in place"
    output.emit({"dry_run": dry_run, "statements": statements}, as_json=as_json, text=text)


def journal_status(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Say what the journal records, how large it is, and where it has gaps. Exit code 5 while a gap is open.

    Example: `reinstate journal status --json`.
    """
    from recovery.standing import journal_line
    from snapshots import journal

    with opened(catalog, app) as ctx, ctx.connect("recoverer", "journal status") as connection:
        found = journal.status(connection, expected=[t.name for t in ctx.app.tables])
    lines = [journal_line(found), *(f"gap in {g.table}: {g.kind}: {g.detail}" for g in found.gaps)]
    output.emit(found, as_json=as_json, text="\n".join(lines))
    if found.missing or any(g.until is None for g in found.gaps):
        raise typer.Exit(exits.REFUSED)


def journal_prune(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Drop journal rows older than the retention, or beyond the size cap. Run it daily.

    Example: `reinstate journal prune`.
    """
    from recovery import setup

    with opened(catalog, app) as ctx:
        pruned = setup.prune_journal(ctx)
    output.emit({"pruned": pruned}, as_json=as_json, text=pruned)


def journal_remove(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the journal and everything it recorded. Nothing is left in the database.

    Example: `reinstate journal remove --yes`.
    """
    from snapshots import journal

    if as_json and not yes:
        raise BadUse("journal remove: --json asks no questions; add --yes")
    with opened(catalog, app) as ctx, ctx.connect("installer", "journal remove") as connection:
        if not yes:
            question = f"Remove the journal of {ctx.app.key}? Nothing from before now can be undone then"
            typer.confirm(question, abort=True)
        removed = journal.remove(connection)
        connection.commit()
    output.emit({"removed": removed}, as_json=as_json, text=f"journal removed: {len(removed)} objects")
