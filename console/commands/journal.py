"""`reinstate journal install | status | verify | prune | remove`: who changed which row, kept in the app's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened

if TYPE_CHECKING:
    from recovery.setup import Audit
    from snapshots.journal.journal import Status, TableStatus
    from snapshots.journal.prune import Pruned

Tables = Annotated[list[str] | None, typer.Option("--table", "-t", help="Only this table; repeatable.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
By = Annotated[str, typer.Option(help="Who decided, for the record.")]


def register(app: typer.Typer) -> None:
    journal = typer.Typer(
        help="The change journal inside the app's database.\n\nExamples: `reinstate journal install --dry-run`, "
        "`reinstate journal status`, `reinstate journal verify`.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    journal.command("install")(journal_install)
    journal.command("status")(journal_status)
    journal.command("verify")(journal_verify)
    journal.command("prune")(journal_prune)
    journal.command("remove")(journal_remove)
    app.add_typer(journal, name="journal")


def journal_install(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    table: Tables = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Install the journal, or let it follow changed tables. Run again whenever you like.

    Examples: `reinstate journal install --dry-run`, `reinstate journal install --table public.orders`.
    """
    from recovery import setup

    with opened(catalog, app) as ctx:
        statements = setup.install_journal(ctx, dry_run=dry_run, tables=table or ())
    if dry_run:
        text = "".join(f"{s};\n" for s in statements).rstrip() or "-- the journal is in place; nothing would be run"
    else:
        done = f"journal installed: {len(statements)} statements" if statements else "the journal is in place"
        text = "\n".join([*(s[3:] for s in statements if s.startswith("-- ") and "\n" not in s), done])
    output.emit({"dry_run": dry_run, "statements": statements}, as_json=as_json, text=text)


def journal_status(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Say what the journal records, how large it is, how far back it reaches, what it costs, and where it has gaps.

    Exit code 5 while a gap is open. Example: `reinstate journal status --json`.
    """
    from snapshots.journal import journal

    with opened(catalog, app) as ctx, ctx.connect("recoverer", "journal status") as connection:
        found = journal.status(connection, expected=[t.name for t in ctx.app.tables])
    if as_json:
        output.emit(found, as_json=True)
    else:
        show_status(found)
    if found.missing or any(g.until is None for g in found.gaps):
        raise typer.Exit(exits.REFUSED)


def show_status(found: Status) -> None:
    """The journal for people."""
    from console.commands.store import size
    from recovery.standing import journal_line

    if found.tables:
        rows = [
            (
                t.table,
                size(t.bytes),
                f"{t.bytes / (t.size_cap_mb * 1024 * 1024):.0%}",
                t.pieces,
                f"{t.rows:,}",
                whole_since(found, t),
                size(t.bytes_per_day),
            )
            for t in found.tables
        ]
        output.table(
            "Journal", ["table", "size", "of its cap", "pieces", "images", "complete since (UTC)", "a day"], rows
        )
    output.say(journal_line(found))
    if found.last_tick:
        output.say(f"last tick: {found.last_tick:%Y-%m-%d %H:%M:%S} (UTC)")
    for gap in found.gaps:
        output.say(f"gap in {gap.table} since {gap.at:%Y-%m-%d %H:%M:%S}: {gap.kind}: {gap.detail}")
    for gap in found.past[-5:]:
        span = f"{gap.at:%Y-%m-%d %H:%M:%S} to {gap.until:%Y-%m-%d %H:%M:%S}"
        output.say(f"past gap in {gap.table}, {span}: {gap.kind}: {gap.detail}")


def whole_since(found: Status, table: TableStatus) -> str:
    """From when on, up to now, nothing is missing of the table: after its last gap."""
    if any(g.table == table.table for g in found.gaps):
        return "open gap"
    ends = [g.until for g in found.past if g.table == table.table and g.until is not None]
    return f"{max([table.complete_since, *ends]):%Y-%m-%d %H:%M:%S}"


def journal_verify(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    point: Annotated[str | None, typer.Option(help="Recovery point to compare with; the newest by default.")] = None,
    table: Tables = None,
    as_json: Json = False,
) -> None:
    """Audit the journal: a recovery point plus what was journaled since must give what is live.

    Names every change that the journal missed, and records a gap so that no undo crosses it. Exit code 5 then.
    Examples: `reinstate journal verify`, `reinstate journal verify --table public.orders --json`.
    """
    from recovery import setup

    with opened(catalog, app) as ctx:
        found = setup.audit_journal(ctx, point_id=point, tables=table or (), say=output.progress)
    if as_json:
        output.emit(found, as_json=True)
    else:
        show_audit(found)
    if found.missed:
        raise typer.Exit(exits.REFUSED)


def show_audit(found: Audit) -> None:
    """The outcome for people."""
    wrong = {m.table for m in found.missed}
    rows: list[tuple[object, ...]] = [(t, "complete", "", "") for t in found.tables if t not in wrong]
    for m in found.missed:
        keys = ["/".join(key) for key in m.keys[:5]]
        more = ["..."] if m.rows > len(keys) else []
        rows.append((m.table, f"MISSED {m.kind}", f"{m.rows:,}", ", ".join([*keys, *more])))
    output.table("Journal against live", ["table", "journal", "rows", "keys"], sorted(rows, key=str))
    since = f"point {found.point} of {found.since:%Y-%m-%d %H:%M:%S} (UTC)"
    if found.missed:
        total = sum(m.rows for m in found.missed)
        output.say(
            f"{total:,} rows changed without the journal since {since}: recorded as a gap, no undo crosses it. "
            "Find out who wrote past it, then take a new point: reinstate protect"
        )
    else:
        output.say(f"the journal saw every change since {since}")


def journal_prune(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    by: By = "operator",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Forget changes older than the catalogue's retention, or beyond the size cap. Shows what goes and asks.

    Run it daily. Examples: `reinstate journal prune --dry-run`, `reinstate journal prune --yes`.
    """
    from recovery import setup

    with opened(catalog, app) as ctx:
        planned = setup.pruning_journal(ctx)
        if not as_json:
            show_pruning(planned)
        done: list[Pruned] = []
        if planned and not dry_run:
            if as_json and not yes:
                raise BadUse("journal prune: --json asks no questions; add --yes or --dry-run")
            if not yes:
                typer.confirm("Forget them? Nothing from before can be undone then", abort=True)
            done = setup.prune_journal(ctx, by=by)
    if as_json:
        output.emit({"dry_run": dry_run, "pruned": planned if dry_run else done}, as_json=True)
    elif done:
        output.say(f"forgotten: {sum(p.rows for p in done):,} images")


def show_pruning(planned: list[Pruned]) -> None:
    """What would go, for people."""
    if not planned:
        output.say("nothing to prune")
        return
    rows = [(p.table, f"{p.rows:,}", f"{p.complete_since:%Y-%m-%d %H:%M:%S}") for p in planned]
    output.table("Pruning the journal", ["table", "images that go", "complete since then (UTC)"], rows)


def journal_remove(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    by: By = "operator",
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the journal and everything it recorded. Nothing is left in the database.

    Example: `reinstate journal remove --yes`.
    """
    from recovery import setup

    if as_json and not yes:
        raise BadUse("journal remove: --json asks no questions; add --yes")
    with opened(catalog, app) as ctx:
        if not yes:
            question = f"Remove the journal of {ctx.app.key}? Nothing from before now can be undone then"
            typer.confirm(question, abort=True)
        removed = setup.remove_journal(ctx, by=by)
    output.emit({"removed": removed}, as_json=as_json, text=f"journal removed: {len(removed)} objects")
