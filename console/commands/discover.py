"""`reinstate discover`: draft a catalogue from a live platform and database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console import exits, output
from console.errors import BadUse
from console.options import AppKey, DryRun, Json, opened

if TYPE_CHECKING:
    from discovery.bundle import OwnRoles
    from discovery.draft import Draft, Known, References
    from discovery.look import Seen
    from discovery.yaml_writer import Doubt
    from platforms.base import Platform

Ref = "a reference, env:NAME or file:PATH, never the value"


def register(app: typer.Typer) -> None:
    app.command()(discover)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to look at, and what is known of it. ``text`` is the person's catalogue where there is one."""

    key: str
    title: str
    platform: Platform
    dsn: str
    references: References
    own: OwnRoles | None
    known: Known
    file: Path | None
    text: str | None
    home: Path


def discover(
    catalog: Annotated[
        Path | None, typer.Option("--catalog", "-c", envvar="REINSTATE_CATALOG", help="A catalogue to be extended.")
    ] = None,
    app: AppKey = None,
    title: Annotated[str | None, typer.Option(help="The app's name for people.")] = None,
    platform: Annotated[
        Literal["n8n", "node-red", "directus"] | None, typer.Option(help="Kind of platform, without a catalogue.")
    ] = None,
    url: Annotated[str | None, typer.Option(help=f"Its address: {Ref}.")] = None,
    key: Annotated[str | None, typer.Option(help=f"Its API key: {Ref}.")] = None,
    database: Annotated[str | None, typer.Option(help=f"The app's database, read only: {Ref}.")] = None,
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
    with _existing(catalog, app) if catalog else _fresh(app, title, given) as source:
        connection = databases.connect(source.dsn, purpose="discover")
        try:
            seen = look.look(connection, source.platform, say=output.progress)
            own = source.own or _own(source.key, bundle.owner_of(seen, _own(source.key, "").installer))
            drafted = draft(source.key, source.title, seen, source.references, source.known)
            made = _passwords(connection, source, drafted, seen, own) if passwords and not dry_run else {}
        finally:
            connection.close()
        folder = out or (source.file.parent if source.file else Path())
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


@contextmanager
def _existing(catalog: Path, app: str | None) -> Iterator[Source]:
    """An app that a catalogue describes already."""
    from catalog.load import NAME
    from discovery.draft import References

    with opened(catalog, app) as ctx:
        from discovery.bundle import OwnRoles
        from discovery.draft import Known
        from recovery import setup

        file = catalog / NAME if catalog.is_dir() else catalog
        part = file.parent / "apps" / f"{ctx.app.key}.yaml"
        if f"key: {ctx.app.key}" not in file.read_text(encoding="utf-8") and part.exists():
            file = part
        refs = ctx.app.database
        installer = setup.user(ctx, "installer")
        yield Source(
            key=ctx.app.key,
            title=ctx.app.title,
            platform=ctx.platform,
            dsn=ctx.dsn("capturer"),
            references=References(
                url=ctx.app.platform.url,
                api_key=ctx.app.platform.api_key,
                installer=refs.installer,
                capturer=refs.capturer,
                recoverer=refs.recoverer,
            ),
            own=OwnRoles(
                installer=installer,
                capturer=setup.user(ctx, "capturer"),
                recoverer=setup.user(ctx, "recoverer"),
                owner=installer,
            ),
            known=Known(
                workflow_keys={w.name: w.key for w in ctx.app.workflows},
                workflow_roles={w.key: w.role for w in ctx.app.workflows},
                tables=[t.name for t in ctx.app.tables],
                own_roles=[installer, setup.user(ctx, "capturer"), setup.user(ctx, "recoverer")],
            ),
            file=file,
            text=file.read_text(encoding="utf-8"),
            home=ctx.home,
        )


@contextmanager
def _fresh(app: str | None, title: str | None, given: dict[str, Any]) -> Iterator[Source]:
    """An app that nobody has described, at the addresses given."""
    from catalog import secrets
    from discovery.draft import Known, References
    from discovery.guesses import key_of
    from platforms.registry import open_platform
    from platforms.retrying import Retrying
    from recovery.context import default_home

    if app is None:
        raise BadUse("discover: name the app with --app, in small letters, such as web-shop")
    if key_of(app) != app:
        raise BadUse(f"discover: --app {app}: write it in small letters, digits and dashes, such as {key_of(app)}")
    home = default_home()
    wrong = [n for n, v in given.items() if n != "--platform" and not str(v).startswith(("env:", "file:"))]
    if wrong:
        raise BadUse(f"discover: {', '.join(wrong)}: give {Ref}")
    values = {n: secrets.resolve(str(v), home / "secrets.env") for n, v in given.items() if n != "--platform"}
    names = app.upper().replace("-", "_")
    live = Retrying(open_platform(str(given["--platform"]), values["--url"], values["--key"]))
    try:
        yield Source(
            key=app,
            title=title or app.replace("-", " ").capitalize(),
            platform=live,
            dsn=values["--database"],
            references=References(
                url=str(given["--url"]),
                api_key=str(given["--key"]),
                **{role: f"env:{names}_DB_{role.upper()}" for role in ("installer", "capturer", "recoverer")},
            ),
            own=None,
            known=Known(own_roles=_own(app, "").all),
            file=None,
            text=None,
            home=home,
        )
    finally:
        live.close()


def _own(key: str, owner: str) -> OwnRoles:
    from discovery.bundle import OwnRoles

    base = key.replace("-", "_")
    return OwnRoles(
        installer=f"{base}_installer", capturer=f"{base}_capturer", recoverer=f"{base}_recoverer", owner=owner
    )


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
    return {path: text for path, text in bundle.suites(drafted).items() if Path(path).name in new}


def _passwords(connection: Any, source: Source, drafted: Draft, seen: Seen, own: OwnRoles) -> dict[str, str]:
    """Passwords for roles that the database does not have yet: kept as addresses in secrets.env, and returned as the
    server stores them, by role."""
    import secrets as random
    from urllib.parse import quote

    from psycopg.conninfo import conninfo_to_dict

    from estate import secrets

    file = source.home / secrets.FILE
    names = source.key.upper().replace("-", "_")
    wanted = {f"{names}_DB_{role.upper()}": user for role, user in zip(
        ("installer", "capturer", "recoverer"), own.all, strict=True)}  # fmt: skip
    wanted |= {f"{names}_DB_{g.role.upper()}": g.role for g in drafted.roles.values() if not g.exists}
    known = secrets.read(file)
    info = connection.info
    verifiers, kept = {}, {}
    for name, role in wanted.items():
        if seen.database.role(role) is not None:
            continue
        # Made up by an earlier call whose roles.sql nobody has run yet.
        password = str(conninfo_to_dict(known[name]).get("password", "")) if name in known else ""
        if not password:
            password = random.token_urlsafe(24)
            at = f"{quote(info.host, safe='')}:{info.port}/{quote(info.dbname)}"
            kept[name] = f"postgresql://{quote(role)}:{quote(password, safe='')}@{at}"
        encrypted = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        verifiers[role] = encrypted.decode()
    if kept:
        secrets.write(file, kept)
        output.progress(f"kept {len(kept)} addresses with new passwords in {file}")
    return verifiers


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
