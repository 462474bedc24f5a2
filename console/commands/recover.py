"""`reinstate plan | recover | replay | resume`: plan, show, execute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console import output
from console.errors import BadUse
from console.flow_runs import prefect_address, run_recovery
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Incident, Json, Mode, Point, Policy, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recovery.plan import Compensation, Plan


def register(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(recover)
    app.command()(replay)
    app.command()(resume)


def plan(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    incident: Incident = None,
    mode: Mode = "both",
    policy: Policy = "refuse",
    point: Point = None,
    as_json: Json = False,
) -> None:
    """Show what a recovery would do: rows, versions, events, conflicts, steps. Changes nothing.

    Examples: `reinstate plan`, `reinstate plan --mode data --json`. Exit code 5 when it may not run, with the reason.
    """
    from recovery import session

    with opened(catalog, app) as ctx:
        chosen = session.incident_of(ctx, incident)
        made = session.make(ctx, chosen, mode=mode, policy=policy, point=point, say=output.progress)
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
    if made.selection:
        why: dict[str, int] = {}
        for s in made.selection:
            why[s.why] = why.get(s.why, 0) + 1
        output.say(f"  undo {len(made.selection)} runs ({', '.join(f'{n} {w}' for w, n in sorted(why.items()))})")
    rows = [(e.table, e.delete, e.update, e.insert, e.merged) for e in made.effects if e.delete or e.update or e.insert]
    if rows:
        output.table("Rows", ["table", "delete", "update", "insert", "with later work kept"], rows)
    kinds = ", ".join(f"{n} {k}" for k, n in sorted(made.conflicts.items())) or "none"
    output.say(f"  conflicts: {kinds}; suspects: {made.suspects}; carried edits: {len(made.carried_xids)}")
    output.say(f"  replay {len(made.events)} events; active before: {', '.join(made.active_before) or 'nothing'}")
    for line in outside(made):
        output.say(line)
    for note in made.notes:
        output.say(f"  note: {note}")
    for number, step in enumerate(made.steps, start=1):
        output.say(f"  {number:2}. {step.title}")


def outside(made: Plan) -> Iterator[str]:
    """What the undone runs did outside their rows, by step."""
    counted: dict[tuple[str, str, str, str], list[Compensation]] = {}
    for c in made.compensations:
        counted.setdefault((c.workflow, c.step, c.action, c.why), []).append(c)
    for (workflow, step, action, _), group in sorted(counted.items()):
        first, times = group[0], f"{len(group)} x {step} of {workflow}"
        match action:
            case "do":
                how = {"http": "a call", "sql": "SQL"}.get(str(first.kind), f"a run of {first.through}")
                fails = "if one fails, it stops" if first.critical else "one that fails is left to a person"
                yield f"  take back {times} by {how}, once each; {fails}"
            case "settled":
                yield f"  {times}: {first.why}"
            case _:
                again = "; the replay does it again" if any(c.again for c in group) else ""
                hand = first.manual or "nobody wrote down how"
                why = first.why or "it cannot be taken back"
                yield f"  by hand: {times} ({why}{again}): {hand}"


def recover(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    incident: Incident = None,
    mode: Mode = "both",
    policy: Policy = "refuse",
    point: Point = None,
    by: Annotated[str, typer.Option(help="Who approves, for the record.")] = "operator",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Approve the plan as it is made, without asking.")] = False,
    go_on: Annotated[bool, typer.Option("--continue", help="Continue an interrupted recovery.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring the app back, as a Prefect flow: plan, approval, steps, verification, staged resume.

    Examples: `reinstate recover`, `reinstate recover --mode logic --yes --by ada`, `reinstate recover --continue`.
    A killed recovery is continued with `--continue`; nothing is done twice.
    """
    if dry_run:
        plan(catalog, app, incident, mode, policy, point, as_json)
        return
    if as_json and not (yes or go_on):
        raise BadUse("recover: --json asks no questions; add --yes, --continue or --dry-run")
    prefect_address()
    from recovery import session

    with opened(catalog, app) as ctx:
        key = ctx.app.key
        chosen = session.incident_of(ctx, incident)
        recovery = session.interrupted(ctx, chosen) if go_on else ""
    with session.exclusive(catalog, key):
        pass  # another recovery of this app is named before anything is planned; the flow holds the lease itself
    if not go_on:
        recovery = approved(catalog, key, chosen, mode, policy, point, by=by, reason=reason, ask=not yes)
    result = run_recovery(
        say=output.progress,
        app=key,
        catalog=str(catalog.absolute()),
        mode=mode,
        incident=chosen,
        recovery=recovery,
        trigger="command",
    )
    left = f"; look at the events of {', '.join(result['left_out'])}" if result.get("left_out") else ""
    left += f"; unknown events: {', '.join(result['unknown'])}" if result.get("unknown") else ""
    left += f"; take back by hand: {'; '.join(result['by_hand'])}" if result.get("by_hand") else ""
    output.emit(result, as_json=as_json, text=f"recovery {result['recovery']}: {result['state']}{left}")


def approved(
    catalog: Path,
    app: str,
    incident: str,
    mode: str,
    policy: str,
    point: str | None,
    *,
    by: str,
    reason: str,
    ask: bool,
) -> str:
    """Make a plan, show it, and record the approval of exactly this one. Returns its recovery id."""
    from recovery import session

    with opened(catalog, app) as ctx:
        made = session.make(ctx, incident, mode=mode, policy=policy, point=point, say=output.progress)
        if ask:
            show(made)
            typer.confirm("Run exactly this plan?", abort=True)
        session.record_approved(ctx, made, by=by, reason=reason)
    return made.recovery_id


def replay(
    recovery: Annotated[str, typer.Argument(help="The recovery whose events are replayed.")],
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    as_json: Json = False,
) -> None:
    """Replay the events of a recovery's plan that have not succeeded yet, once each. The app stays paused.

    Example: `reinstate replay R1-INC-20261121-0001`.
    """
    from recovery import manual, session

    with opened(catalog, app) as ctx:
        key = ctx.app.key
        manual.ready_to_replay(ctx, session.load_plan(ctx, recovery))
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
    from recovery import manual

    chosen, back = manual.resume(catalog, app, incident=incident, by=by, override=override, say=output.progress)
    output.emit({"incident": chosen, "resumed": list(back)}, as_json=as_json, text=f"resumed {', '.join(back)}")
