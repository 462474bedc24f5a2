"""What must be in place before an app of one's own is watched: each with one line, the first that fails ends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.models import Catalog
    from recovery.context import AppContext

Say = Callable[[str], None]


def catalogue(path: Path, say: Say) -> Catalog:
    """Load it. Raises ``catalog.errors.CatalogError`` naming every mistake."""
    from catalog.load import load

    found = load(path)
    for app in found.apps:
        say(
            f"catalogue: {app.key} has {len(app.workflows)} workflows, {len(app.tables)} tables and "
            f"{len(app.detectors)} detectors"
        )
    return found


def app(path: Path, key: str, home: Path, say: Say) -> None:
    """Secrets, platform and database of one app. Raises the error of what is missing, with the next step."""
    from recovery.context import open_app

    with open_app(path, key, home) as ctx:
        for role in ("installer", "capturer", "recoverer"):
            ctx.dsn(role)
        say(f"secrets: all of {key} are there")
        ctx.platform.health()
        say(f"platform: {ctx.app.platform.kind} answers and has all {len(ctx.infos())} workflows of {key}")
        database(ctx, say)
        points(ctx, say)


def database(ctx: AppContext, say: Say) -> None:
    """Reachable, with the journal on every table of the catalogue. Raises ``recovery.errors.Refused`` without it."""
    from recovery.errors import Refused
    from snapshots.journal import journal

    tables = [t.name for t in ctx.app.tables]
    with ctx.connect("recoverer", "up") as connection:
        state = journal.status(connection, expected=tables)
    if not state.installed or state.missing:
        raise Refused(
            f"database: the journal of {ctx.app.key} is not installed on {', '.join(state.missing) or 'any table'}; "
            "run `reinstate journal install`"
        )
    say(f"database: {ctx.app.key} answers, with the journal on {len(tables)} tables")


def points(ctx: AppContext, say: Say) -> None:
    """Whether there is a verified recovery point; the schedule takes one, so its absence only warns."""
    from snapshots.points.points import latest_verified

    newest = latest_verified(ctx.store, ctx.app.key)
    if newest is None:
        say(f"points: {ctx.app.key} has no verified recovery point yet; run `reinstate protect` before you need one")
    else:
        say(f"points: {ctx.app.key} was verified at {newest.taken_at:%Y-%m-%d %H:%M:%S} UTC ({newest.id})")
