"""What `reinstate discover` looks at: an app that a catalogue describes, or bare addresses; and the roles it makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import output
from console.errors import BadUse
from console.options import opened

if TYPE_CHECKING:
    from discovery.bundle import OwnRoles
    from discovery.draft import Draft, Known, References
    from discovery.look import Seen
    from platforms.base import Platform

REF = "a reference, env:NAME or file:PATH, never the value"


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
    folder: Path = Path()
    """Where files go unless somebody says so."""
    suites: str = "checks"


@contextmanager
def existing(catalog: Path, app: str | None) -> Iterator[Source]:
    """An app that a catalogue describes already."""
    from catalog.load import NAME
    from discovery.draft import References

    with opened(catalog, app) as ctx:
        from discovery.bundle import OwnRoles
        from discovery.draft import Known
        from recovery import setup

        main = catalog / NAME if catalog.is_dir() else catalog
        file = _file_of(ctx.app.key, main)
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
            folder=main.parent,
            suites=ctx.app.suites,
            home=ctx.home,
        )


def _file_of(key: str, main: Path) -> Path:
    """The file that describes the app: the main one, or its own in ``apps/``."""
    import yaml

    for file in (main, *sorted((main.parent / "apps").glob("*.yaml"))):
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if any(app.get("key") == key for app in content.get("apps") or [content]):
            return file
    return main


@contextmanager
def fresh(app: str | None, title: str | None, given: dict[str, Any]) -> Iterator[Source]:
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
        raise BadUse(f"discover: {', '.join(wrong)}: give {REF}")
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
            known=Known(own_roles=own_roles(app, "").all),
            file=None,
            text=None,
            home=home,
        )
    finally:
        live.close()


def own_roles(key: str, owner: str) -> OwnRoles:
    from discovery.bundle import OwnRoles

    base = key.replace("-", "_")
    return OwnRoles(
        installer=f"{base}_installer", capturer=f"{base}_capturer", recoverer=f"{base}_recoverer", owner=owner
    )


def passwords(connection: Any, source: Source, drafted: Draft, seen: Seen, own: OwnRoles) -> dict[str, str]:
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
