"""The flow an operator or an event starts to bring an app back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import Task

Mode = Literal["both", "logic", "data"]
ConflictPolicy = Literal["refuse", "non-conflicting-only", "keep-later"]


def retryable(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Retry what may heal by itself; a refusal or a failed verification never does."""
    from recovery.retry import is_retryable

    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - every error is classified by its type
        return is_retryable(error)
    return False


@task(name="plan", persist_result=False)
def make_plan(
    catalog: str, app: str, incident: str | None, mode: Mode, policy: ConflictPolicy, point: str | None, resume: bool
) -> str:
    """Make the plan, or find the one of a recovery that was interrupted. Returns its recovery id."""
    from recovery import session

    return session.plan(
        Path(catalog), app, incident=incident, mode=mode, policy=policy, point=point, resume=resume, say=say()
    )


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


@flow(name="recover", flow_run_name="recover {app} {mode}", persist_result=False)
def recover(
    app: str,
    catalog: str,
    mode: Mode = "both",
    incident: str | None = None,
    policy: ConflictPolicy = "refuse",
    point: str | None = None,
    approved_by: str | None = None,
    reason: str = "",
    recovery: str | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Bring logic and data of an app back, in agreement, and resume it.

    Args:
        app: Key of the app in the catalogue.
        catalog: Path of the catalogue.
        mode: Which half comes back: both, logic (definitions) or data (rows).
        incident: Incident to recover from; the open one when empty.
        policy: What to do with rows on which undo and later work conflict.
        point: Recovery point that holds the known-good definitions; derived from the evidence when empty.
        approved_by: Who approves the plan as it is made. Without it the plan is shown and nothing runs.
        reason: Why it is approved.
        recovery: Recovery whose recorded plan runs, as it was shown; a new plan is made when empty.
        resume: Continue a recovery that was interrupted.
    """
    from recovery import session

    log = get_run_logger()
    with session.exclusive(Path(catalog), app):
        recovery = recovery or make_plan(catalog, app, incident, mode, policy, point, resume)
        plan = session.load(Path(catalog), app, recovery)
        log.info("plan %s of %s: %s rows, %s events", plan.hash[:12], recovery, plan.rows, len(plan.events))
        if not session.approve(Path(catalog), app, plan, by=approved_by, reason=reason):
            return {"recovery": recovery, "plan_hash": plan.hash, "state": "waiting for approval"}
        session.started(Path(catalog), app, plan, flow_run=str(flow_run.id))
        try:
            for step in plan.steps:
                run_step(catalog, app, recovery, step.id, step.title)
        except Exception as error:
            session.stopped(Path(catalog), app, plan, str(error))
            raise
        result = session.finished(Path(catalog), app, plan)
    return {**result, "flow_run_id": str(flow_run.id)}


def say() -> Any:
    """Progress goes to the flow run's log."""
    return get_run_logger().info
