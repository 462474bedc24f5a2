"""The flow that keeps journal and recovery points in order, on a schedule or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import forms, states
from flows.recover import retryable


@task(name="maintain", retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=retryable, persist_result=False)
def keep_in_order(catalog: str, app: str) -> dict[str, Any]:
    """Prune and audit the journal, read the newest point."""
    from dataclasses import asdict

    from recovery.context import open_app
    from recovery.maintain import maintain as keep

    with open_app(Path(catalog), app) as ctx:
        return asdict(keep(ctx, say=get_run_logger().info))


@flow(name="maintain", flow_run_name="maintain {app}", persist_result=False)
def maintain(app: str, catalog: str = "") -> Any:
    """Keep what a recovery rests on in order: let the journal forget what is old, prove that it saw every change, read
    the newest recovery point to its last object. Changes nothing in the app.

    Args:
        app: The app whose journal and points are looked after.
        catalog: Path of the catalogue, as the server sees it. Leave it empty for the one that the server was
            started with.
    """
    try:
        return ended(keep_in_order(str(forms.where(catalog)), app))
    except Exception as error:  # noqa: BLE001 - each becomes a state with a name
        return states.failed(error)


def ended(done: dict[str, Any]) -> State[Any]:
    """What is not in order is a failed run that says what to do: somebody must see it before it is needed."""
    log = get_run_logger()
    for said in done["waits"]:
        log.warning(said)
    if done["problems"]:
        from recovery.errors import NotInOrder

        for problem in done["problems"]:
            log.error(problem)
        raise NotInOrder("; ".join(done["problems"]))
    return Completed(name="In order", message="; ".join(said_of(done)), data=done)


def said_of(done: dict[str, Any]) -> list[str]:
    """What was looked at, in sentences."""
    said = [f"the journal saw every change since point {done['audited']}"] if done["audited"] else []
    said += [f"point {done['read']} is whole"] if done["read"] else []
    return [*said, *done["waits"]]
