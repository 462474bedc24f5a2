"""`reinstate maintain`: keep journal and recovery points in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened

if TYPE_CHECKING:
    from recovery.maintain import Maintained


def register(app: typer.Typer) -> None:
    app.command()(maintain)


def maintain(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    by: Annotated[str, typer.Option(help="Who did it, for the record.")] = "operator",
    as_json: Json = False,
) -> None:
    """Let the journal forget what is old, prove that it saw every change, read the newest point to its last object.

    `reinstate up` does this every night. Rows of the app are never touched. Exit code 5 when something is not in
    order: each thing is named with its next step. Examples: `reinstate maintain`, `reinstate maintain --json`.
    """
    from recovery.maintain import maintain as keep

    with opened(catalog, app) as ctx:
        done = keep(ctx, by=by, say=output.progress)
    if as_json:
        output.emit({**output.plain(done), "in_order": done.in_order}, as_json=True)
    else:
        show(done)
    if not done.in_order:
        raise typer.Exit(exits.REFUSED)


def show(done: Maintained) -> None:
    """The outcome for people."""
    images = sum(done.forgotten.values())
    rows = [
        ("journal pruned", f"{images:,} images" if images else "nothing was old enough"),
        ("journal audited", f"against point {done.audited}, {done.missed:,} rows missed" if done.audited else "no"),
        ("point read", f"{done.read}, {done.bytes:,} bytes" if done.read else "no"),
    ]
    output.table("Maintained", ["what", "outcome"], rows)
    for waits in done.waits:
        output.say(f"left: {waits}")
    for problem in done.problems:
        output.say(f"NOT IN ORDER: {problem}")
    if done.in_order:
        output.say("journal and points are in order" if done.audited else "the points are in order")
