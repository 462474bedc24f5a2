"""`reinstate status | timeline | report`: what happened and where things stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Incident, Json, opened


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(timeline)
    app.command()(report)


def status(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Where things stand: workflows, open incident, newest verified point, journal, ledger. Changes nothing.

    Example: `reinstate status --json`. Exit code 5 while an incident is open.
    """
    from recovery import standing

    with opened(catalog, app) as ctx:
        found = standing.standing(ctx)
    output.emit(found, as_json=as_json)
    if not as_json:
        output.table(
            found.app,
            ["workflow", "state", "live version"],
            [(w.key, "active" if w.active else "paused", (w.live or "")[:12]) for w in found.workflows],
        )
        for line in found.lines:
            output.say(line)
        if found.incident is not None:
            output.say("next: `reinstate diagnose`, `reinstate plan`; a false alarm ends with `reinstate resume`")
    if found.incident is not None:
        raise typer.Exit(exits.REFUSED)


def timeline(
    catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, incident: Incident = None, as_json: Json = False
) -> None:
    """What was decided and done, in order, from the ledger.

    Example: `reinstate timeline --incident INC-20261121-0001`.
    """
    from ledger import timeline as reading
    from recovery import standing

    with opened(catalog, app) as ctx:
        lines = reading.timeline(ctx.ledger, standing.incident_or_last(ctx, incident))
    if as_json:
        output.emit(lines, as_json=True)
    else:
        day = None
        for line in lines:
            if line.at.date() != day:
                day = line.at.date()
                output.say(f"{day:%Y-%m-%d} (UTC)")
            output.say(f"{line.at:%H:%M:%S}  {line.text}")


def report(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    incident: Incident = None,
    to: Annotated[Path, typer.Option("--output", "-o", help="Where to write the page.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about an incident, for business people and auditors.

    Example: `reinstate report -o incident.html`.
    """
    if not to.parent.is_dir():
        raise BadUse(f"report: --output {to}: there is no folder {to.parent}; make it first")
    from incidents.report.collect import collect
    from incidents.report.render import write
    from recovery import standing

    with opened(catalog, app) as ctx:
        goals = ctx.app.objectives
        chosen = standing.incident_or_last(ctx, incident)
        write(collect(ctx.ledger, chosen, rto_s=goals.rto_s, rpo_s=goals.rpo_s), to)
    output.emit({"incident": chosen, "report": to}, as_json=as_json, text=f"report on {chosen} written to {to}")
