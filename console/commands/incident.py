"""`reinstate watch | diagnose | contain`: from the first sign to a proven pause."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Incident, Json, opened

if TYPE_CHECKING:
    from recovery.handling import Caught


def register(app: typer.Typer) -> None:
    app.command()(watch)
    app.command()(diagnose)
    app.command()(contain)


def watch(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    until_incident: Annotated[
        bool, typer.Option("--until-incident", help="Stop after the first incident is contained.")
    ] = False,
    json_lines: Annotated[
        bool, typer.Option("--json", "--json-lines", help="Print one JSON document per line and piece of news.")
    ] = False,
) -> None:
    """Watch the app; contain a confirmed anomaly in this very process and open the incident.

    Examples: `reinstate watch`, `reinstate watch --until-incident --json`. Ctrl-C or SIGTERM stops it; that is no
    error. It goes on when the database or the platform does not answer for a while, and tries again what it could
    not pause; with --until-incident, exit code 6 says that the pause is not proven.
    """
    from recovery import watch as watching
    from recovery.errors import PauseNotProven

    with opened(catalog, app) as ctx, stopped_by_signal() as stopping:
        if json_lines:
            output.line({"event": "watching", "app": ctx.app.key})
        output.progress(f"watching {ctx.app.key}")
        for caught in watching.watch(ctx, say=output.progress, stop=lambda: bool(stopping)):
            if json_lines:
                output.line(news(caught))
            elif caught.contained is not None:
                output.say(f"incident {caught.incident}: contained {', '.join(caught.workflows)}")
                output.say("next: `reinstate plan`" if caught.diagnosis else "next: `reinstate diagnose`")
            elif caught.unproven is None:
                output.say(f"incident {caught.incident}: opened, nothing paused")
                output.say("next: `reinstate contain WORKFLOW`, or `reinstate resume --override REASON` if all is well")
            if until_incident and caught.unproven is not None:
                raise PauseNotProven(caught.unproven)
            if until_incident:
                return


@contextmanager
def stopped_by_signal() -> Iterator[list[int]]:
    """What asked this process to stop, while it lasts: the signals are handled as before afterwards."""
    asked: list[int] = []
    before = {n: signal.signal(n, lambda number, _: asked.append(number)) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def news(caught: Caught) -> dict[str, object]:
    """One line for programs: ``contained``, ``opened`` (the catalogue leaves containment to a person) or ``unproven``
    (the pause is tried again)."""
    event = "contained" if caught.contained is not None else "opened" if caught.unproven is None else "unproven"
    return {
        "event": event,
        "incident": caught.incident,
        "workflows": caught.workflows,
        "contain_s": round(caught.contained.seconds, 3) if caught.contained is not None else None,
        "diagnosed": caught.diagnosis is not None,
        "why_not": caught.undiagnosed or caught.unproven,
    }


def diagnose(
    catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, incident: Incident = None, as_json: Json = False
) -> None:
    """Say what went wrong and from what evidence: first bad commit, version, runs, good point. Changes nothing else.

    Example: `reinstate diagnose --json`. Exit code 5 when the evidence does not single out a version.
    """
    from recovery import session
    from recovery import watch as watching

    with opened(catalog, app) as ctx:
        chosen = session.incident_of(ctx, incident)
        findings = watching.look_again(ctx)
        found, why = watching.diagnose(ctx, chosen, findings, say=lambda _: None)
    if found is None:
        sys.stderr.write(f"reinstate: {why}\n")
        raise typer.Exit(exits.REFUSED)
    if as_json:
        output.emit(found, as_json=True)
        return
    output.say(f"{found.workflow}: version {found.bad_version[:12]} is bad, {found.good_version[:12]} was good")
    output.say(f"first bad commit {found.first_bad_at:%Y-%m-%d %H:%M:%S.%f} UTC (transaction {found.first_bad_xid})")
    output.say(f"{len(found.bad_runs)} bad runs; good point {found.point_id}; confidence {found.confidence:.0%}")
    for line in found.evidence:
        output.say(f"- {line}")


def contain(
    workflow: Annotated[list[str], typer.Argument(help="Workflows; their dependents are paused with them.")],
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    incident: Incident = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "contained by hand",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Pause workflows and their dependents, prove the pause, fence their database roles.

    Examples: `reinstate contain order-intake --dry-run`, `reinstate contain order-intake --reason "wrong totals"`.
    Exit code 6 when the pause is not proven. `reinstate resume` gives the workflows back.
    """
    from recovery import containment, manual

    with opened(catalog, app) as ctx:
        if dry_run:
            manual.known_workflows(ctx, workflow)
            why = containment.would_pause(ctx, workflow)
            named = [f"{key} ({why[key]})" if why[key] else key for key in sorted(why)]
            found = {"would_pause": sorted(why), "because": {k: reason for k, reason in why.items() if reason}}
            output.emit(found, as_json=as_json, text=f"would pause {', '.join(named)}")
            return
        done = manual.contain(ctx, workflow, incident=incident, reason=reason, say=output.progress)
    output.emit(done, as_json=as_json, text=f"incident {done.incident}: paused and fenced {', '.join(done.workflows)}")
