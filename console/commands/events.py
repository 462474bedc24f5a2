"""`reinstate events list | show | release | discard | settle | retry`: what is kept, and what nobody is sure of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, DryRun, Json, opened

if TYPE_CHECKING:
    from recovery.held import Released

Workflows = Annotated[list[str] | None, typer.Option("--workflow", "-w", help="Only this workflow; repeatable.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
By = Annotated[str, typer.Option(help="Who decided, for the record.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
EventId = Annotated[str, typer.Argument(help="An event's id, or enough of its beginning.")]


def register(app: typer.Typer) -> None:
    events = typer.Typer(
        help="Events that wait for the end of a pause, and those nobody is sure of.\n\n"
        "Examples: `reinstate events list`, `reinstate events release`, `reinstate events settle 1f3a --done`.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    events.command("list")(events_list)
    events.command("show")(events_show)
    events.command("release")(events_release)
    events.command("discard")(events_discard)
    events.command("settle")(events_settle)
    events.command("retry")(events_retry)
    app.add_typer(events, name="events")


def events_list(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    workflow: Annotated[str | None, typer.Option("--workflow", "-w", help="Only this workflow.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Those that ended well too.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0: all.")] = 100,
    as_json: Json = False,
) -> None:
    """List held and unknown events, failed ones, and those that a pause or a crash cut off. Exit code 5 while one is
    unknown.

    Examples: `reinstate events list`, `reinstate events list --workflow intake --all --json`.
    """
    from ingress.model import State
    from recovery import events_kept

    states = tuple(State) if every else events_kept.WORTH_A_LOOK
    with opened(catalog, app) as ctx:
        found = events_kept.listing(ctx, states=states, workflow=workflow, limit=limit or None)
    if as_json:
        output.emit(found, as_json=True)
    elif found:
        rows = [
            (e.id[:12] if e.request else e.id, e.workflow, e.key, e.state, f"{e.at:%m-%d %H:%M:%S}", e.request, e.why)
            for e in found
        ]
        output.table("Events", ["id", "workflow", "key", "state", "received (UTC)", "request", "why"], rows)
    else:
        output.say("no event waits, and none is unknown")
    if any(e.state == State.UNKNOWN for e in found):
        raise typer.Exit(exits.REFUSED)


def events_show(
    event: EventId,
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    show_values: Annotated[bool, typer.Option("--show-values", help="Show the content, not only its shape.")] = False,
    as_json: Json = False,
) -> None:
    """Show one event. Its values are masked unless you ask for them; what proves who sent it never shows.

    Example: `reinstate events show 1f3a9c`.
    """
    from recovery import events_kept

    with opened(catalog, app) as ctx:
        found = events_kept.shown(events_kept.one(ctx, event), values=show_values)
    if as_json:
        output.emit(found, as_json=True)
        return
    for name, value in found.items():
        if name != "content" and value is not None:
            output.say(f"{name.replace('_', ' ')}: {value}")
    for part, values in found["content"].items():
        output.say(f"{part}: {values}")


def events_release(
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    workflow: Workflows = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Send the held events of active workflows, in order, once each. A recovery does this by itself.

    Examples: `reinstate events release --dry-run`, `reinstate events release --workflow intake --yes`.
    """
    from recovery import events_kept

    if as_json and not (yes or dry_run):
        raise BadUse("events release: --json asks no questions; add --yes or --dry-run")
    with opened(catalog, app) as ctx:
        counts = events_kept.waiting(ctx, workflow or ())
        if not as_json:
            output.say(", ".join(f"{key}: {number} held" for key, number in counts.items()) or "nothing is held")
        if dry_run:
            output.emit({"dry_run": True, "held": counts}, as_json=as_json)
            return
        if counts and not yes:
            typer.confirm("Send them now?", abort=True)
        done = events_kept.release(ctx, workflow or (), say=output.progress)
    output.emit(done, as_json=as_json, text=told(done))
    if done.unknown:
        raise typer.Exit(exits.REFUSED)


def told(done: Released) -> str:
    text = f"sent {done.sent} events in {done.seconds:.1f} s"
    text += f"; {done.repeated} had been handled already" if done.repeated else ""
    text += f"; {len(done.failed)} failed" if done.failed else ""
    return text + (f"; {len(done.unknown)} are unknown: see `reinstate events list`" if done.unknown else "")


def events_discard(
    event: Annotated[list[str], typer.Argument(help="Ids of held events, or enough of their beginning.")],
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    by: By = "operator",
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Never send these held events; they stay on record.

    Example: `reinstate events discard 1f3a9c --reason "entered by hand"`.
    """
    from recovery import events_kept

    if as_json and not (yes or dry_run):
        raise BadUse("events discard: --json asks no questions; add --yes or --dry-run")
    with opened(catalog, app) as ctx:
        found = [events_kept.one(ctx, e) for e in event]
        if not as_json:
            for e in found:
                output.say(f"{e.id[:12]}  {e.workflow}  {e.key or ''}  {e.state}")
        if dry_run:
            output.emit({"dry_run": True, "events": [e.id for e in found]}, as_json=as_json)
            return
        if not yes:
            typer.confirm("Never send these?", abort=True)
        gone = events_kept.discard(ctx, [e.id for e in found], by=by, reason=reason)
    output.emit({"discarded": gone}, as_json=as_json, text=f"discarded {len(gone)} events")


def events_settle(
    event: EventId,
    done: Annotated[bool, typer.Option("--done/--not-done", help="Whether it ran.")],
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    by: By = "operator",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Record whether an unknown event ran. You looked in the app: is its effect there?

    One that did not run is held again and can be released. Examples:
    `reinstate events settle 1f3a9c --done --reason "order 4711 is there"`, `reinstate events settle 1f3a9c --not-done`.
    """
    from recovery import events_kept

    with opened(catalog, app) as ctx:
        became = events_kept.settle(ctx, event, done=done, by=by, reason=reason)
    result: dict[str, Any] = {"event": event, "done": done, "became": became}
    output.emit(result, as_json=as_json, text=f"event {event}: {became}")


def events_retry(
    run: Annotated[str, typer.Argument(help="The failed run, by its id in the platform.")],
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Run the event of a failed run again, once, in its workflow as it is now. Asked twice, it runs once.

    Where the platform's answer is lost, the new run is looked up. Exit code 5 when nobody knows, and while it is
    still running: it is left alone, so ask again later. Example: `reinstate events retry 4711`.
    """
    from recovery import events_kept
    from recovery.delivery import Outcome

    if as_json and not yes:
        raise BadUse("events retry: --json asks no questions; add --yes")
    if not yes:
        typer.confirm(f"Run the event of run {run} again?", abort=True)
    with opened(catalog, app) as ctx:
        done = events_kept.retry(ctx, run)
    new = done.run.id if done.run else None
    how = "still running; ask again later" if done.outcome is Outcome.RUNNING else done.outcome
    said = f"run {run}: " + ("it had been run again before" if done.there else "run again") + f", {how}"
    result = {"run": run, "new_run": new, "outcome": str(done.outcome), "there": done.there, "why": done.why}
    output.emit(result, as_json=as_json, text=said + (f" (run {new})" if new else ""))
    if done.outcome in (Outcome.UNKNOWN, Outcome.RUNNING):
        raise typer.Exit(exits.REFUSED)
