"""`reinstate protect`: take a recovery point."""

from __future__ import annotations

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened


def register(app: typer.Typer) -> None:
    app.command()(protect)


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
