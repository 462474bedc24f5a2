"""`reinstate agreement`: do logic and data fit, as named clauses."""

from __future__ import annotations

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened


def register(app: typer.Typer) -> None:
    app.command()(agreement)


def agreement(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Ask whether logic and data fit: versions, settings, active set, schema, credentials, late writes, suites.

    It is the gate before a resume, asked on its own; it changes nothing. Of an app at work, what should be is what the
    newest verified point holds, with what was published since. Exit code 0 only when every clause holds, else 6.

    Examples: `reinstate agreement`, `reinstate agreement --json`.
    """
    from checks import agreement as clauses
    from recovery import verification

    with opened(catalog, app) as ctx:
        output.progress("asking the platform and the database, and running the suites")
        proof = verification.standing(ctx)
    found = clauses.check(proof.clauses, clauses.suites(proof.suites))
    broken = clauses.drift(found)
    if as_json:
        output.emit({"agrees": not broken, "clauses": output.plain(found)}, as_json=True)
    else:
        output.table(
            "Agreement of logic and data",
            ["clause", "holds", "says"],
            [(c.name, "yes" if c.holds else "NO", c.detail) for c in found],
        )
        for clause in broken:
            output.say(f"{clause.name}: {clause.next}")
        output.say("logic and data agree" if not broken else f"{len(broken)} of {len(found)} clauses do not hold")
    if broken:
        raise typer.Exit(exits.NOT_PROVEN)
