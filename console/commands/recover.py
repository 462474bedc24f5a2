"""`reinstate plan | recover | replay | resume`: plan, show, execute."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Incident, Json, opened

if TYPE_CHECKING:
    from recovery.plan import Plan

ModeOption = Annotated[str, typer.Option("--mode", "-m", help="both, logic (definitions) or data (rows).")]
PolicyOption = Annotated[str, typer.Option(help="On conflicts: refuse, non-conflicting-only or keep-later.")]
PointOption = Annotated[str | None, typer.Option(help="Recovery point; derived from the evidence by default.")]


def register(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(recover)
    app.command()(replay)
    app.command()(resume)


def plan(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    incident: Incident = None,
    mode: ModeOption = "both",
    policy: PolicyOption = "refuse",
    point: PointOption = None,
    as_json: Json = False,
) -> None:
    """Show what a recovery would do: rows, versions, events, conflicts, steps. Changes nothing.

    Examples: `reinstate plan`, `reinstate plan --mode data --json`. Exit code 5 when it may not run, with the reason.
    """
    from recovery import session

    with opened(catalog, app) as ctx:
        made = session.make(
            ctx, session.incident_of(ctx, incident), mode=mode, policy=policy, point=point, say=output.progress
        )
    if as_json:
        output.emit({**made.model_dump(mode="json"), "hash": made.hash}, as_json=True)
    else:
        show(made)


def show(made: Plan) -> None:
    """The plan for people."""
    output.say(
        f"plan {made.hash[:12]} for incident {made.incident_id} of {made.app}: mode {made.mode}, policy {made.policy}"
    )
    for p in made.publications:
        output.say(f"  {p.workflow}: version {str(p.from_version)[:12]} -> {p.to_version[:12]} (from the {p.source})")
    why: dict[str, int] = {}
    for s in made.selection:
        why[s.why] = why.get(s.why, 0) + 1
    output.say(f"  undo {len(made.selection)} runs ({', '.join(f'{n} {w}' for w, n in sorted(why.items()))})")
    output.table(
        "Rows",
        ["table", "delete", "update", "insert", "with later work kept"],
        [(e.table, e.delete, e.update, e.insert, e.merged) for e in made.effects if e.delete or e.update or e.insert],
    )
    kinds = ", ".join(f"{n} {k}" for k, n in sorted(made.conflicts.items())) or "none"
    output.say(f"  conflicts: {kinds}; suspects: {made.suspects}; carried edits: {len(made.carried_xids)}")
    output.say(f"  replay {len(made.events)} events; resume {', '.join(made.active_before) or 'nothing'}")
    for note in made.notes:
        output.say(f"  note: {note}")
    for number, step in enumerate(made.steps, start=1):
        output.say(f"  {number:2}. {step.title}")


def recover(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    incident: Incident = None,
    mode: ModeOption = "both",
    policy: PolicyOption = "refuse",
    point: PointOption = None,
    by: Annotated[str, typer.Option(help="Who approves, for the record.")] = "operator",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Approve the plan as it is made, without asking.")] = False,
    go_on: Annotated[bool, typer.Option("--continue", help="Continue an interrupted recovery.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring the app back, as a Prefect flow: plan, approval, steps, verification, staged resume.

    Examples: `reinstate recover`, `reinstate recover --mode logic --yes --by ada`, `reinstate recover --continue`.
    A killed recovery is continued with `--continue`; nothing is done twice.
    """
    if dry_run:
        plan(catalog, app, incident, mode, policy, point, as_json)
        return
    prefect_address()
    from recovery import session

    with opened(catalog, app) as ctx:
        key = ctx.app.key
        chosen = session.incident_of(ctx, incident)
        if not yes and not go_on:
            show(session.make(ctx, chosen, mode=mode, policy=policy, point=point, say=output.progress))
            typer.confirm("Run exactly this plan?", abort=True)
    result = run_flow(
        app=key,
        catalog=str(catalog.absolute()),
        mode=mode,
        incident=chosen,
        policy=policy,
        point=point,
        approved_by=by,
        reason=reason,
        resume=go_on,
    )
    output.emit(result, as_json=as_json, text=f"recovery {result['recovery']}: {result['state']}")


def run_flow(**parameters: Any) -> dict[str, Any]:
    """Run the recover flow in this process against the Prefect server."""
    from checks import suites

    suites.warm()
    from flows.recover import recover as flow

    result: dict[str, Any] = flow(**parameters)
    return result


def prefect_address() -> str:
    """The Prefect server: ``PREFECT_API_URL``, else the estate's. Raises when none is known."""
    # The story goes to the run's logs on the server; here only what this command itself says.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    from console.errors import Unreachable
    from estate import Estate

    estate = Estate()
    if not any(p.part == "prefect" and p.state == "up" for p in estate.status()):
        raise Unreachable("Prefect server: none is running; set PREFECT_API_URL or run `reinstate estate up`")
    os.environ["PREFECT_API_URL"] = estate.addresses().prefect_api_url
    return os.environ["PREFECT_API_URL"]


def replay(
    recovery: Annotated[str, typer.Argument(help="The recovery whose events are replayed.")],
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    as_json: Json = False,
) -> None:
    """Replay the events of a recovery's plan that have not succeeded yet, once each. The app stays paused.

    Example: `reinstate replay R1-INC-20261121-0001`.
    """
    from recovery import session

    with opened(catalog, app) as ctx:
        key = ctx.app.key
    with session.exclusive(catalog, key):
        detail = session.step(catalog, key, recovery, "replay", say=output.progress)
    output.emit(detail, as_json=as_json, text=f"replayed {detail['replayed']}, already there {detail['already_there']}")


def resume(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    incident: Incident = None,
    override: Annotated[
        str | None, typer.Option(help="Resume although verification failed: the reason, on record.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who resumes, for the record.")] = "operator",
    as_json: Json = False,
) -> None:
    """Resume a paused app, staged, once the suites pass. Used after `--mode logic` or `--mode data`, or a false alarm.

    Examples: `reinstate resume`, `reinstate resume --override "false alarm" --by ada`. Exit code 6 when not proven.
    """
    from recovery import resuming, session

    with opened(catalog, app) as ctx:
        chosen = session.incident_of(ctx, incident)
        with session.exclusive(catalog, ctx.app.key):
            back = resuming.resume(ctx, chosen, by=by, override=override, say=output.progress)
    if not back:
        sys.stderr.write(f"reinstate: incident {chosen}: verification did not pass; the app stays paused\n")
        raise typer.Exit(exits.NOT_PROVEN)
    output.emit({"incident": chosen, "resumed": list(back)}, as_json=as_json, text=f"resumed {', '.join(back)}")
