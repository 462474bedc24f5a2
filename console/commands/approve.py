"""`reinstate approvals | approve | reject`: deciding about a plan that was shown, without the UI."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console import output
from console.errors import BadUse, Unreachable
from console.flow_runs import resume_run
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened

if TYPE_CHECKING:
    from recovery.context import AppContext
    from recovery.plan import Plan

Recovery = Annotated[str, typer.Argument(help="The recovery whose plan it is; see `reinstate approvals`.")]
By = Annotated[str, typer.Option(help="Who decides, for the record.")]
PlanHash = Annotated[
    str, typer.Option("--plan", help="Hash of the plan you read, or its first 12 digits: no other plan is decided.")
]
SHORTEST = 12


def register(app: typer.Typer) -> None:
    app.command()(approvals)
    app.command()(approve)
    app.command()(reject)


def approvals(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """List the plans that wait for a decision, and until when.

    Example: `reinstate approvals --json`.
    """
    from recovery import approvals as decisions

    with opened(catalog, app) as ctx:
        found = decisions.waiting(ctx)
    output.emit(found, as_json=as_json, text=None if found else "no plan waits for a decision")
    if found and not as_json:
        rows = [
            (s.recovery, s.incident, s.plan_hash[:12], f"{s.expires_at:%Y-%m-%d %H:%M:%S}", s.flow_run) for s in found
        ]
        output.table("Waiting", ["recovery", "incident", "plan", "until (UTC)", "flow run"], rows)
        output.say("next: `reinstate approve RECOVERY` or `reinstate reject RECOVERY --reason ...`")


def approve(
    recovery: Recovery,
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    by: By = "operator",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    plan: PlanHash = "",
    as_json: Json = False,
) -> None:
    """Approve the plan of a recovery: exactly this plan runs. The flow run that waits for it goes on.

    Example: `reinstate approve R1-INC-20261121-0001 --by ada --reason "read it"`. Exit code 5 when the plan may not be
    approved any more (expired, rejected, or a newer one was made). Without a flow run that waits, run
    `reinstate recover --continue` afterwards.
    """
    from recovery import approvals as decisions

    def decide(ctx: AppContext, found: Plan) -> None:
        decisions.approve(ctx, found, plan_hash=found.hash, by=by, reason=reason)

    decided("approve", recovery, catalog, app, by=by, reason=reason, plan=plan, as_json=as_json, decide=decide)


def reject(
    recovery: Recovery,
    catalog: Catalog = DEFAULT_CATALOG,
    app: AppKey = None,
    by: By = "operator",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    plan: PlanHash = "",
    as_json: Json = False,
) -> None:
    """Reject the plan of a recovery: nothing runs, the app stays paused and fenced.

    Example: `reinstate reject R1-INC-20261121-0001 --by ada --reason "undo less"`. Afterwards: `reinstate recover` for
    another plan, or `reinstate resume` for a false alarm.
    """
    from recovery import approvals as decisions

    def decide(ctx: AppContext, found: Plan) -> None:
        decisions.reject(ctx, found, plan_hash=found.hash, by=by, reason=reason)

    decided("reject", recovery, catalog, app, by=by, reason=reason, plan=plan, as_json=as_json, decide=decide)


def decided(
    word: str,
    recovery: str,
    catalog: Any,
    app: str | None,
    *,
    by: str,
    reason: str,
    plan: str,
    as_json: bool,
    decide: Callable[[AppContext, Plan], None],
) -> None:
    """Record the decision first: it counts whatever becomes of the flow run. Then wake that."""
    from recovery import approvals as decisions
    from recovery import session

    if plan and len(plan) < SHORTEST:
        raise BadUse(f"{word}: --plan {plan} is too short; give at least {SHORTEST} digits of the hash")
    with opened(catalog, app) as ctx:
        found = session.load_plan(ctx, recovery)
        refuse_other(recovery, found, plan)
        decide(ctx, found)
        shown = decisions.of(ctx, found)
    outcome = {"recovery": recovery, "plan_hash": found.hash, "decision": word, "flow_run": shown.flow_run}
    said = f"recovery {recovery}: plan {found.hash[:12]} is {'approved' if word == 'approve' else 'rejected'}"
    if shown.flow_run is not None:
        said += f"; {woken(shown.flow_run, word, by=by, reason=reason, plan_hash=found.hash)}"
    elif word == "approve":
        said += "; next: `reinstate recover --continue`"
    else:
        said += "; next: `reinstate recover` for another plan, or `reinstate resume` for a false alarm"
    output.emit(outcome, as_json=as_json, text=said)


def refuse_other(recovery: str, found: Plan, plan: str) -> None:
    """Who read another plan than the one on record has not decided about this one."""
    if not found.hash.startswith(plan):
        from recovery.errors import Refused

        raise Refused(
            f"recovery {recovery}: its plan is {found.hash[:12]}, not {plan[:SHORTEST]}; read that one (it is in the "
            "flow run, and in `reinstate approvals`) and decide about it"
        )


def woken(flow_run: str, word: str, *, by: str, reason: str, plan_hash: str) -> str:
    """What became of the flow run; that it does not go on takes nothing from the decision."""
    further = "`reinstate recover --continue` runs it" if word == "approve" else "nothing will run"
    try:
        goes_on, said = resume_run(flow_run, decision=word, by=by, reason=reason, plan_hash=plan_hash)
    except Unreachable as error:
        return f"its flow run could not be told ({error}); {further}"
    return said if goes_on else f"{said}; {further}"
