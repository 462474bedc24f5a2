"""`reinstate compensations list | settle`: what undone runs did outside their rows, and what a person did about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console import exits, output
from console.errors import BadUse
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Incident, Json, opened

if TYPE_CHECKING:
    from recovery.context import AppContext
    from recovery.plan import Plan


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="What undone runs did outside their rows: taken back, failed, or left to a person.\n\n"
        "Examples: `reinstate compensations list`, "
        '`reinstate compensations settle payment 4711 --step charge --by ada --reason "refunded at the bank"`.',
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list")(listing)
    group.command("settle")(settle)
    app.add_typer(group, name="compensations")


def listing(
    catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, incident: Incident = None, as_json: Json = False
) -> None:
    """List every step of the undone runs that undoing rows does not take back, and how each stands.

    Statuses: waiting, begun, done, not-needed; and those for a person: failed, unknown (it may be taken back or not),
    manual. Exit code 5 while one of those is there.

    Examples: `reinstate compensations list`, `reinstate compensations list --incident INC-20261121-0001 --json`.
    """
    from recovery import by_hand, standing

    with opened(catalog, app) as ctx:
        chosen = standing.incident_or_last(ctx, incident)
        lines = by_hand.listing(ctx, chosen, newest_plan(ctx, chosen))
    if as_json:
        output.emit(lines, as_json=True)
    elif lines:
        output.table(
            f"Incident {chosen}",
            ["workflow", "run", "step", "status", "tries", "why", "by hand"],
            [
                (
                    line.workflow,
                    line.run,
                    line.step if line.item is None else f"{line.step} (item {line.item})",
                    f"{line.status}, {line.by}" if line.by else line.status,
                    line.attempts or "",
                    line.error,
                    (line.manual or "") if line.open else "",
                )
                for line in lines
            ],
        )
        if any(line.open for line in lines):
            output.say("next: take those back by hand, and record each: `reinstate compensations settle`")
    else:
        output.say(f"incident {chosen}: no undone run did anything outside its rows that the catalogue declares")
    if any(line.open for line in lines):
        raise typer.Exit(exits.REFUSED)


def newest_plan(ctx: AppContext, incident: str) -> Plan | None:
    """The incident's newest plan, if one was made."""
    from ledger import kinds
    from recovery import session

    made = ctx.ledger.entries(incident=incident, kinds=[kinds.PLAN_MADE])
    return session.load_plan(ctx, str(made[-1].recovery)) if made else None


def settle(
    workflow: Annotated[str, typer.Argument(help="The workflow of the run, by its key.")],
    run: Annotated[str, typer.Argument(help="The run whose step it is.")],
    step: Annotated[str, typer.Option("--step", help="The step's name, as the catalogue has it.")],
    reason: Annotated[str, typer.Option(help="What you did, for the record.")],
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    incident: Incident = None,
    item: Annotated[int | None, typer.Option(min=0, help="Only this item of the step; all of them if omitted.")] = None,
    not_needed: Annotated[
        bool, typer.Option("--not-needed", help="You looked, and there was nothing to take back.")
    ] = False,
    by: Annotated[str, typer.Option(help="Who did it, for the record.")] = "operator",
    as_json: Json = False,
) -> None:
    """Record that a person took a step of a run back. A recovery that stopped there goes on from the next one.

    It changes nothing but the record: do it first, then say so. Exit code 5 when it was taken back already, 7 while a
    recovery of the app is at work.

    Example: `reinstate compensations settle payment 4711 --step charge --by ada --reason "refunded at the bank"`.
    """
    from recovery import by_hand, standing

    if not reason.strip():
        raise BadUse("compensations settle: --reason is empty; say what you did, for the record")
    with opened(catalog, app) as ctx:
        chosen = standing.incident_or_last(ctx, incident)
        by_hand.settle(
            ctx,
            chosen,
            workflow=workflow,
            run=run,
            step=step,
            item=item,
            status="not-needed" if not_needed else "done",
            by=by,
            reason=reason,
        )
    told = "found not needed" if not_needed else "taken back by hand"
    output.emit(
        {"incident": chosen, "workflow": workflow, "run": run, "step": step, "item": item, "by": by},
        as_json=as_json,
        text=f"on record: {step} of run {run} of {workflow} was {told}; `reinstate recover --continue` goes on",
    )
