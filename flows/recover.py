"""The flow that brings an app back: started by an operator, an event, the steward or the command line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.flows import Flow
from prefect.runtime import flow_run
from prefect.tasks import Task

from flows import approval, artifacts, forms, states

if TYPE_CHECKING:
    from recovery.plan import Plan
    from recovery.requests import Request

Mode = Literal["both", "logic", "data"]
ConflictPolicy = Literal["refuse", "non-conflicting-only", "keep-later"]
Trigger = Literal["operator", "event", "steward", "command"]

PATIENCE_S: Final = 120.0
"""So long a run waits for another one that is at work on the same app; what a person started at the command line is
told at once."""


def retryable(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Retry what may heal by itself; a refusal or a failed verification never does."""
    from recovery.retry import is_retryable

    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - every error is classified by its type
        return is_retryable(error)
    return False


@task(name="plan", task_run_name="make the plan", persist_result=False)
def make_plan(catalog: str, app: str, incident: str, mode: Mode, policy: ConflictPolicy, point: str | None) -> str:
    """Make the plan and record it. Returns its recovery id."""
    from recovery import session

    return session.plan(Path(catalog), app, incident=incident, mode=mode, policy=policy, point=point, say=say())


@task(
    name="step",
    task_run_name="{title}",
    retries=3,
    retry_delay_seconds=[1, 3, 9],
    retry_jitter_factor=0.3,
    retry_condition_fn=retryable,
    persist_result=False,
)
def run_step(catalog: str, app: str, recovery: str, step: str, title: str) -> dict[str, Any]:  # noqa: ARG001 - title names the run
    """Run one step of the plan; the ledger knows whether it is already done."""
    from recovery import session

    return session.step(Path(catalog), app, recovery, step, say=say())


def leave(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's signature
    """A person cancelled the run: on record, so that nobody continues it behind their back."""
    from recovery import session

    asked = flow_run.parameters
    session.cancelled(forms.where(asked.get("catalog", "")), asked["app"], flow_run=str(flow_run.id))


@flow(name="recover", flow_run_name=forms.run_name, persist_result=False, on_cancellation=[leave])
def recover(
    app: str,
    mode: Mode = "both",
    policy: ConflictPolicy = "refuse",
    point: str = forms.AUTOMATIC,
    incident: str = "",
    recovery: str = "",
    trigger: Trigger = "operator",
    catalog: str = "",
) -> Any:
    """Bring an app back after a disaster: its workflows and its data, in agreement, verified, then resumed.

    Starting this changes nothing yet. It makes a plan, shows it, and waits: open the run, read the plan, then choose
    Resume to approve or reject it. Only an approved plan runs.

    Args:
        app: The app to bring back.
        mode: both is what you want unless you know better. logic brings back only the workflows, data only the rows;
            after one half alone the app stays paused.
        policy: What happens to rows on which the undo and later work of others disagree. refuse stops before anything
            is changed and names them. non-conflicting-only leaves those rows as they are. keep-later keeps the later
            work, column by column.
        point: Where known-good workflows come from. automatic takes the one that the evidence points to.
        incident: The incident to recover from. Leave it empty for the one that is open now.
        recovery: Id of a recovery on record (R1-INC-...) whose plan is to run or to go on. Leave it empty to make a
            new plan.
        trigger: What started this run. Leave it as it is; automatic starts say so here.
        catalog: Path of the catalogue, as the server sees it. Leave it empty for the one that the server was
            started with.
    """
    try:
        where = forms.where(catalog)
        return bring_back(where, app, mode, policy, point, incident, recovery, trigger)
    except Exception as error:  # noqa: BLE001 - each becomes a state with a name
        return states.failed(error)


def bring_back(
    catalog: Path,
    app: str,
    mode: Mode,
    policy: ConflictPolicy,
    point: str,
    incident: str,
    recovery: str,
    trigger: Trigger,
) -> State[Any]:
    """From the request to the end. Raises what stops it before a step was begun."""
    from recovery import session

    log = get_run_logger()
    me = str(flow_run.id)

    def ask() -> Request:
        return session.ask(
            catalog, app, flow_run=me, trigger=trigger, mode=mode, incident=incident or None, recovery=recovery or None
        )

    request = ask()
    approval.rename(f"recover {app} {mode} #{request.number}")
    if request.handled_by:
        return already_handled(request)
    log.info("run #%s for incident %s, started by: %s", request.number, request.incident, trigger)
    if request.recovery is None:
        with session.exclusive(catalog, app, patience_s=patience(trigger), say=log.info):
            request = ask()  # somebody may have planned while this run waited
            if request.handled_by:
                return already_handled(request)
            chosen = None if point == forms.AUTOMATIC else point or None
            made = make_plan(str(catalog), app, request.incident, mode, policy, chosen)
    else:
        made = request.recovery
        log.info("recovery %s is on record: nothing is planned anew", made)
    plan = session.load(catalog, app, made)
    refuse_another(plan, request)
    if (result := session.ended(catalog, app, plan)) is not None:
        log.info("recovery %s has reached its end already", made)
        return states.recovered(result)
    log.info("plan %s of %s: %s rows, %s events", plan.hash[:12], made, plan.rows, len(plan.events))
    # A run that comes back with its answer has published its plan and said that it waits.
    again = bool(request.plan_hash)
    text = artifacts.plan(catalog, app, plan, publish=not again)
    if not decided(catalog, app, plan, trigger, text, again=again):
        log.info("plan %s waits for approval: `reinstate approve %s`", plan.hash[:12], made)
        return states.waiting(made, plan.hash)
    with session.exclusive(catalog, app, patience_s=patience(trigger), say=log.info):
        return run(catalog, app, plan, me=me)


def already_handled(request: Request) -> State[Any]:
    get_run_logger().info("nothing to do for incident %s: %s (%s)", request.incident, request.why, request.handled_by)
    return states.handled(request.why)


def refuse_another(plan: Plan, request: Request) -> None:
    """A run decides about the plan it showed, not about one that was made since under the same name."""
    if request.plan_hash and request.plan_hash != plan.hash:
        from recovery.errors import Superseded

        raise Superseded(
            f"recovery {plan.recovery_id}: plan {plan.hash[:12]} took the place of plan {request.plan_hash[:12]}, "
            "which this run had shown; decide about the newer one, see `reinstate approvals`"
        )


def decided(catalog: Path, app: str, plan: Plan, trigger: Trigger, text: str, *, again: bool) -> bool:
    """Whether the plan is approved: on record, by the catalogue's limits, or by the person for whom the run suspends
    here (``again``: a second time). False when it can only wait. Raises ``Rejected``, ``Expired`` or ``Superseded``."""
    from recovery import session
    from recovery.errors import Expired

    log = get_run_logger()
    if session.approve(catalog, app, plan, by=None, reason=""):
        log.info("the approval of plan %s is on record", plan.hash[:12])
        return True
    if trigger in ("event", "steward"):
        own = session.by_itself(catalog, app, plan, trigger)
        log.info("approved by itself: %s" if own.approved else "not approved by itself: %s", own.why)
        if own.approved:
            return True
    try:
        shown, outdated = session.show(catalog, app, plan, flow_run=str(flow_run.id))
    except Expired:
        session.expire(catalog, app, plan)
        artifacts.incident(catalog, app, plan.incident_id)
        raise
    for old in outdated:
        message = f"{plan.recovery_id} with plan {plan.hash[:12]} took the place of this plan; decide about that one."
        artifacts.quietly(
            "the end of an older plan",
            partial(approval.end_waiting, old.flow_run, name="Superseded", message=message),
        )
    artifacts.incident(catalog, app, plan.incident_id)
    if not approval.deployed():
        return False
    if not again:
        until = f"{shown.expires_at:%Y-%m-%d %H:%M:%S}"
        log.info("waiting for approval of plan %s until %s UTC", plan.hash[:12], until)
        log.info(
            "to decide: menu (three dots, top right) of this run, Resume; or `reinstate approve %s`", plan.recovery_id
        )
    answer = approval.wait(plan.hash, text, expires_s=session.expires_s(catalog, app))
    return answered(catalog, app, plan, answer)


def answered(catalog: Path, app: str, plan: Plan, answer: approval.Answer) -> bool:
    """What the person said goes on record, if it still counts; see :func:`decided`."""
    from recovery import session
    from recovery.errors import Expired, Rejected

    log = get_run_logger()
    try:
        if answer.decision == "approve":
            session.approve(catalog, app, plan, by=answer.by, reason=answer.reason, plan_hash=answer.plan)
            log.info("%s approved plan %s: %s", answer.by, plan.hash[:12], answer.reason or "no reason given")
            return True
        session.reject(catalog, app, plan, by=answer.by, reason=answer.reason, plan_hash=answer.plan)
    except Expired:
        session.expire(catalog, app, plan)
        raise
    finally:
        artifacts.incident(catalog, app, plan.incident_id)
    raise Rejected(
        f"recovery {plan.recovery_id}: {answer.by} rejected its plan ({answer.reason or 'no reason given'}); "
        "nothing was changed and the app stays paused and fenced: start `recover` for another plan, or `resume` for a "
        "false alarm"
    )


def run(catalog: Path, app: str, plan: Plan, *, me: str) -> State[Any]:
    """Run every step of an approved plan, under the lease. Raises only what comes before the first step."""
    from recovery import session

    log = get_run_logger()
    if (result := session.ended(catalog, app, plan)) is not None:
        return states.recovered(result)
    session.started(catalog, app, plan, flow_run=me)
    artifacts.incident(catalog, app, plan.incident_id)
    bar = artifacts.progress(app, plan)
    try:
        for done, step in enumerate(plan.steps):
            artifacts.advance(bar, plan, done)
            run_step(str(catalog), app, plan.recovery_id, step.id, step.title)
        artifacts.advance(bar, plan, len(plan.steps))
        result = session.finished(catalog, app, plan)
    except Exception as error:  # noqa: BLE001 - whatever stopped it, it is recorded, and handed on in the state
        note_stop(catalog, app, plan, error)
        ended = states.ended(error, begun=plan.recovery_id)
        log.error(ended.message)
        artifacts.outcome(catalog, app, plan.incident_id)
        return ended
    artifacts.outcome(catalog, app, plan.incident_id)
    ended = states.recovered({**result, "flow_run_id": me})
    log.info(ended.message)
    return ended


def note_stop(catalog: Path, app: str, plan: Plan, error: Exception) -> None:
    """On record, unless another process has taken the recovery over. A ledger that is gone is no reason to hide what
    stopped the recovery: who died without a word is found by its lease."""
    from ledger.errors import LeaseLost
    from recovery import session

    if isinstance(error, LeaseLost):
        return
    try:
        session.stopped(catalog, app, plan, str(error), error=error)
    except Exception as second:  # noqa: BLE001 - the first error is the one to tell
        get_run_logger().warning("the stop could not be recorded: %s", second)


def patience(trigger: Trigger) -> float:
    return 0.0 if trigger == "command" else PATIENCE_S


def say() -> Any:
    """Progress goes to the flow run's log."""
    return get_run_logger().info
