"""`reinstate coverage`: how much of an app can be taken back, and what is missing, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json

if TYPE_CHECKING:
    from catalog.coverage import Coverage
    from catalog.models import App

Least = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Fail with exit code 5 when a smaller share is covered: for CI."),
]


def register(app: typer.Typer) -> None:
    app.command()(coverage)


def coverage(
    catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, least: Least = None, as_json: Json = False
) -> None:
    """Say which share of the declared steps is taken back without a person, and name the rest.

    Reversible steps are rows, which an undo takes back. Compensable ones leave the rows and have a declared inverse.
    Irreversible ones stay, and a person has a way back. Reads the catalogue alone; changes nothing.

    Examples: `reinstate coverage`, `reinstate coverage --least 0.9`, `reinstate coverage --app order-desk --json`.
    """
    from catalog.coverage import coverage as measured
    from catalog.load import load
    from catalog.models import Catalog as Loaded

    loaded: Loaded = load(catalog)
    chosen = [loaded.app(app)] if app else list(loaded.apps)
    found = [(one, measured(one)) for one in chosen]
    if as_json:
        output.emit([document(one, total) for one, total in found], as_json=True)
    else:
        for one, total in found:
            tell(one, total)
    low = [total for _, total in found if least is not None and total.covered < least]
    for total in low:
        output.progress(f"{total.of}: {total.covered:.1%} is covered, {least:.1%} is asked for")
    if low:
        raise typer.Exit(exits.REFUSED)


def rows(app: App) -> list[Coverage]:
    from catalog.coverage import workflow_coverage

    return [workflow_coverage(w) for w in app.workflows]


def tell(app: App, total: Coverage) -> None:
    output.table(
        app.key,
        ["workflow", "covered", "reversible", "compensated", "not compensated", "irreversible", "undeclared"],
        [
            (c.of, share(c), c.reversible, c.compensable, c.unprovided, c.irreversible, "yes" if c.undeclared else "")
            for c in rows(app)
        ],
    )
    known = total.reversible + total.compensable
    output.say(f"{app.key}: {known} of {total.steps} steps are taken back without a person ({share(total)})")
    for heading, lines in (("the rest:", total.rest), ("worth adding:", total.gaps)):
        if lines:
            output.say(heading)
            for line in lines:
                output.say(f"  {line}")


def share(found: Coverage) -> str:
    return f"{found.covered:.0%}" if found.steps else "-"


def document(app: App, total: Coverage) -> dict[str, Any]:
    def plain(found: Coverage) -> dict[str, Any]:
        return {**output.plain(found), "steps": found.steps, "covered": round(found.covered, 4)}

    return {**plain(total), "workflows": [plain(c) for c in rows(app)]}
