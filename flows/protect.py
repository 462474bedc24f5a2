"""The flow that takes recovery points: on a schedule, before a deployment, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import capture_dask, forms, states
from flows.recover import retryable

if TYPE_CHECKING:
    from snapshots.capture.capture import Method


@task(name="capture", retries=2, retry_delay_seconds=[2, 6], retry_condition_fn=retryable, persist_result=False)
def capture(catalog: str, app: str, method: Method | None = None) -> dict[str, Any]:
    """Capture logic and data together, prove them with the suites, publish the point."""
    from recovery.context import open_app
    from recovery.protect import protect as take

    with open_app(Path(catalog), app) as ctx:
        policy = ctx.app.capture
        run = capture_dask.runner(catalog, app, workers=policy.workers) if policy.runner == "dask" else None
        point = take(ctx, method=method, run=run, say=get_run_logger().info)
    return {
        "point": point.id,
        "verified": point.verified,
        "base": point.base,
        "tables": {t.name: {"rows": t.rows, "method": t.method} for t in point.tables},
    }


@task(name="retention", retries=1, retry_delay_seconds=2, retry_condition_fn=retryable, persist_result=False)
def retain(catalog: str, app: str) -> dict[str, Any]:
    """Drop points that the catalogue's `store.keep` no longer wants, and what nothing needs any more."""
    from recovery.context import open_app
    from recovery.protect import retain as prune

    with open_app(Path(catalog), app) as ctx:
        done = prune(ctx, say=get_run_logger().info)
    return {"dropped": list(done.dropped), "objects": done.objects, "bytes": done.bytes} if done else {}


@flow(name="protect", flow_run_name="protect {app}", persist_result=False)
def protect(app: str, catalog: str = "") -> Any:
    """Take a recovery point of an app, workflows and data together, and prove it with the suites. Changes nothing in
    the app. Run it before you deploy a change.

    Args:
        app: The app to take the point of.
        catalog: Path of the catalogue, as the server sees it. Leave it empty for the one that the server was
            started with.
    """
    try:
        where = str(forms.where(catalog))
        point = capture(where, app)
        return taken({**point, "pruned": retain(where, app)})
    except Exception as error:  # noqa: BLE001 - each becomes a state with a name
        return states.failed(error)


def taken(point: dict[str, Any]) -> State[Any]:
    """A point whose suites fail is kept, and nothing recovers from it by itself."""
    if point["verified"]:
        return Completed(name="Point verified", message=f"Recovery point {point['point']} is verified.", data=point)
    from recovery.errors import VerificationFailed

    raise VerificationFailed(
        f"point {point['point']}: the suites do not pass on it, so it is kept as not verified; look at the log, then "
        "mend the data or the suite"
    )
