"""`reinstate status | timeline | report`: what happened and where things stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened
from console.options import Incident as IncidentId

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from catalog.models import App
    from incidents.record import Incident


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(timeline)
    app.command()(report)


def status(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Where things stand: workflows, open incident and its playbook, what waits for approval, newest verified point,
    journal, ledger. Changes nothing.

    Example: `reinstate status --json`. Exit code 5 while an incident is open.
    """
    from incidents import record
    from recovery import standing

    with opened(catalog, app) as ctx:
        found = standing.standing(ctx)
        incident = record.find_open(ctx.ledger, ctx.app.key)
        playbook = handled_by(ctx.app, incident) if incident else {}
    waits = incident.awaiting if incident else None
    output.emit({**output.plain(found), "playbook": playbook, "awaiting": output.plain(waits)}, as_json=as_json)
    if not as_json:
        output.table(
            found.app,
            ["workflow", "state", "live version"],
            [(w.key, "active" if w.active else "paused", (w.live or "")[:12]) for w in found.workflows],
        )
        for line in found.lines:
            output.say(line)
        if incident is not None:
            for line in [*about(playbook), *next_steps(incident)]:
                output.say(line)
    if found.incident is not None:
        raise typer.Exit(exits.REFUSED)


def handled_by(app: App, incident: Incident) -> dict[str, Any]:
    """The playbook of the incident as it was recorded, else the catalogue's first one."""
    if incident.playbook:
        return dict(incident.playbook)
    first = app.playbooks[0].model_dump(mode="json") if app.playbooks else {}
    return {k: first[k] for k in ("key", "title", "owner", "steps", "contacts") if k in first}


def about(playbook: Mapping[str, Any]) -> Iterator[str]:
    """The playbook for people."""
    if not playbook:
        return
    owner = f"; owner {playbook['owner']}" if playbook.get("owner") else ""
    yield f"playbook: {playbook.get('title') or playbook.get('key')}{owner}"
    for number, step in enumerate(playbook.get("steps") or (), start=1):
        yield f"  {number}. {step}"
    for contact in playbook.get("contacts") or ():
        yield f"  call {contact}"


def next_steps(incident: Incident) -> Iterator[str]:
    """What a person can do now, as commands."""
    waits = incident.awaiting
    if waits is None:
        yield "next: `reinstate diagnose`, `reinstate plan`; a false alarm ends with `reinstate resume`"
        return
    plan = f"plan {waits.plan_hash[:12]} of {waits.recovery}"
    match waits.what:
        case "waiting-for-approval":
            until = f" until {waits.expires_at:%Y-%m-%d %H:%M:%S} UTC" if waits.expires_at else ""
            yield f"waiting: {plan} for approval{until}"
            yield "  read it:  reinstate report, or the suspended run in the browser"
            yield f"  approve:  reinstate approve {waits.recovery} --plan {waits.plan_hash[:12]} --by NAME"
            yield f"  reject:   reinstate reject {waits.recovery} --plan {waits.plan_hash[:12]} --by NAME --reason WHY"
        case "rejected":
            why = f": {waits.reason}" if waits.reason else ""
            yield f"rejected: {plan} by {waits.by or 'somebody'}{why}; the app stays paused"
            yield "next: `reinstate recover` makes and shows a new plan; a false alarm ends with `reinstate resume`"
        case _:
            yield f"expired: nobody decided about {plan} in time; the app stays paused"
            yield "next: `reinstate recover` makes and shows a new plan; a false alarm ends with `reinstate resume`"


def timeline(
    catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, incident: IncidentId = None, as_json: Json = False
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
    incident: IncidentId = None,
    to: Annotated[
        Path | None,
        typer.Option("--out", "--output", "-o", help="Where to write it; reports/ in Reinstate's home by default."),
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Markdown for a ticket instead of a page.")] = False,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about an incident, for business people and auditors.

    Examples: `reinstate report`, `reinstate report --incident INC-20261121-0001 --out incident.html`,
    `reinstate report --markdown`.
    """
    if to is not None and not to.absolute().parent.is_dir():
        raise BadUse(f"report: --out {to}: there is no folder {to.absolute().parent}; make it first")
    from incidents.report import markdown, render
    from incidents.report.collect import collect
    from recovery import standing

    with opened(catalog, app) as ctx:
        goals = ctx.app.objectives
        chosen = standing.incident_or_last(ctx, incident)
        data = collect(ctx.ledger, chosen, rto_s=goals.rto_s, rpo_s=goals.rpo_s)
        if to is None:
            to = ctx.home / "reports" / f"{chosen}.{'md' if as_markdown else 'html'}"
            to.parent.mkdir(mode=0o700, exist_ok=True)
        render.keep(markdown.report(data) if as_markdown else render.render(data), to)
    output.emit({"incident": chosen, "report": to}, as_json=as_json, text=f"report on {chosen} written to {to}")
