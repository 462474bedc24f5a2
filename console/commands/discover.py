"""`reinstate discover`: draft a catalogue from a live platform and database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console import exits, output
from console.discovering import REF, Source, existing, fresh, own_roles
from console.discovering import passwords as new_passwords
from console.errors import BadUse
from console.options import AppKey, DryRun, Json

if TYPE_CHECKING:
    from discovery.draft import Draft
    from discovery.yaml_writer import Doubt


def register(app: typer.Typer) -> None:
    app.command()(discover)


def discover(
    catalog: Annotated[
        Path | None, typer.Option("--catalog", "-c", envvar="REINSTATE_CATALOG", help="A catalogue to be extended.")
    ] = None,
    app: AppKey = None,
    title: Annotated[str | None, typer.Option(help="The app's name for people.")] = None,
    platform: Annotated[
        Literal["n8n", "node-red", "directus"] | None, typer.Option(help="Kind of platform, without a catalogue.")
    ] = None,
    url: Annotated[str | None, typer.Option(help=f"Its address: {REF}.")] = None,
    key: Annotated[str | None, typer.Option(help=f"Its API key: {REF}.")] = None,
    database: Annotated[str | None, typer.Option(help=f"The app's database, read only: {REF}.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the files; beside the catalogue.")] = None,
    passwords: Annotated[
        bool, typer.Option("--passwords", help="Make up passwords for new roles and keep them in secrets.env.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Draft a catalogue, suites, roles and run tags from what is there. Changes neither platform nor database.

    What it is not sure of is marked `# unsure:` and listed. A file that exists is never overwritten: what is new goes
    into NAME.discovered beside it.

    Examples: `reinstate discover --app shop --platform n8n --url env:SHOP_URL --key env:SHOP_KEY --database env:SHOP_DB
    --out shop`, `reinstate discover -c shop/catalog.yaml --dry-run`.
    """
    from catalog.load import NAME
    from discovery import bundle, look
    from discovery.draft import draft
    from snapshots import database as databases

    given = {"--platform": platform, "--url": url, "--key": key, "--database": database}
    if catalog is None and not all(given.values()):
        missing = ", ".join(name for name, value in given.items() if not value)
        raise BadUse(f"discover: give {missing}, or a catalogue to extend with --catalog")
    if catalog is not None and any(given.values()):
        raise BadUse("discover: give either a catalogue to extend, or platform and database")
    with existing(catalog, app) if catalog else fresh(app, title, given) as source:
        connection = databases.connect(source.dsn, purpose="discover")
        try:
            seen = look.look(connection, source.platform, say=output.progress)
            own = source.own or own_roles(source.key, bundle.owner_of(seen, own_roles(source.key, "").installer))
            drafted = draft(source.key, source.title, seen, source.references, source.known)
            made = new_passwords(connection, source, drafted, seen, own) if passwords and not dry_run else {}
        finally:
            connection.close()
        folder = out or source.folder
        text, added, left, doubts = _text(source, drafted)
        edits = bundle.edits(seen)
        files = {**_suites(source, drafted)}
        if source.file is None or added:
            files[source.file.name if source.file else NAME] = text
            files[bundle.ROLES] = bundle.roles_sql(drafted, seen, own, made)
        if edits:
            files[bundle.TAGS] = bundle.tags_page(edits)
        written = [] if dry_run else _write(folder, files)
    report = {
        "app": source.key,
        "workflows": len(drafted.keys),
        "tables": len(seen.tables),
        "added": added,
        "left": left,
        "unsure": output.plain(doubts),
        "tags": sum(1 for e in edits if e.after),
        "files": [str(p) for p in written] or sorted(files),
        "catalog": text,
    }
    output.emit(report, as_json=as_json)
    if not as_json:
        show(report, doubts, dry_run=dry_run, extended=source.text is not None)
    raise typer.Exit(exits.OK)


def show(report: dict[str, Any], doubts: tuple[Doubt, ...], *, dry_run: bool, extended: bool) -> None:
    """The outcome for people: what is unsure, what was written, what to do next."""
    if doubts:
        output.say("Unsure, to be looked at by a person:")
        for doubt in doubts:
            output.say(f"  {doubt.where}: {doubt.why}")
    output.say(f"{report['app']}: {report['workflows']} workflows, {report['tables']} tables, {len(doubts)} unsure")
    if extended:
        output.say(f"new: {', '.join(report['added']) or 'nothing'}")
    if report["left"]:
        output.say(f"write these in by hand, their list stands on one line: {', '.join(report['left'])}")
    for name in report["files"]:
        output.say(f"{'would write' if dry_run else 'written'}: {name}")
    if not dry_run and not extended:
        output.say("next: read catalog.yaml, let an administrator run roles.sql, then `reinstate journal install`")


def _text(source: Source, drafted: Draft) -> tuple[str, list[str], list[str], tuple[Doubt, ...]]:
    """The catalogue to be written, what was added to a person's, what found no place in it, and what is unsure."""
    from discovery import render

    if source.text is None:
        return render.catalogue(drafted), [], [], drafted.doubts
    merged = render.merge(source.text, source.key, drafted)
    return merged.text, list(merged.added), list(merged.left), merged.doubts


def _suites(source: Source, drafted: Draft) -> dict[str, str]:
    """All suites of a new app; of one that is known, those of new tables."""
    from discovery import bundle

    new = {n for n, s in drafted.suites.items() if s["table"] not in source.known.tables}
    found = {Path(path).name: text for path, text in bundle.suites(drafted).items()}
    return {f"{source.suites}/{name}": text for name, text in found.items() if name in new}


def _write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write each file, or its ``.discovered`` neighbour where somebody's own is there. Returns what was written."""
    written = []
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            if place.read_text(encoding="utf-8") == text:
                continue
            # Beside the folder of the suites, since every JSON file in it is one.
            place = folder / f"{place.parent.name}.discovered" / place.name if "/" in name else _beside(place)
            place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        if place.suffix == ".sql":
            place.chmod(0o600)
        written.append(place)
    return written


def _beside(place: Path) -> Path:
    """``catalog.yaml`` gives ``catalog.discovered.yaml``."""
    return place.with_name(f"{place.stem}.discovered{place.suffix}")
