"""`reinstate points`: the recovery points of an app."""

from __future__ import annotations

import typer

from console import output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened


def register(app: typer.Typer) -> None:
    app.command()(points)


def points(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """List the recovery points, newest first.

    Example: `reinstate points --json`.
    """
    from snapshots import points as listing

    with opened(catalog, app) as ctx:
        found = listing.listing(ctx.store, ctx.app.key).points
    if not found and not as_json:
        output.say("no recovery point yet: run `reinstate protect`")
        return
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
