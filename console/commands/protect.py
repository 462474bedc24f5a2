"""`reinstate protect`: take a recovery point."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened


def register(app: typer.Typer) -> None:
    app.command()(protect)


def protect(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    method: Annotated[
        Literal["auto", "full", "journal", "scan"] | None,
        typer.Option(help="How to find what changed since the last point; by default as the catalogue says."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Copy every row, as the first point does.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Sessions that read at once; the catalogue's by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take a recovery point: logic and data together, proven by the suites on the same snapshot.

    Only what changed since the newest point is read where that can be told for certain, else everything.

    Examples: `reinstate protect -c examples/order-desk`, `reinstate protect --full --workers 4`. Exit code 6 when the
    suites did not pass.
    """
    from recovery.protect import protect as take

    with opened(catalog, app) as ctx:
        point = take(ctx, method="full" if full else method, workers=workers, say=output.progress)
    shown = {
        "point": point.id,
        "verified": point.verified,
        "taken_at": point.taken_at,
        "base": point.base,
        "tables": {t.name: {"rows": t.rows, "method": t.method} for t in point.tables},
    }
    output.emit(shown, as_json=as_json, text=f"point {point.id}: {'verified' if point.verified else 'NOT verified'}")
    if not point.verified:
        from console.commands.points import failures

        for broken in failures(point):
            output.progress(f"failed: {broken}")
        output.progress("nothing recovers from it by itself: take another one when the rows are right again")
        raise typer.Exit(exits.NOT_PROVEN)
