"""The flow that takes recovery points: on a schedule, before a deployment, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task

from flows.recover import retryable


@task(name="capture", retries=2, retry_delay_seconds=[2, 6], retry_condition_fn=retryable, persist_result=False)
def capture(catalog: str, app: str) -> dict[str, Any]:
    """Capture logic and data together, prove them with the suites, publish the point."""
    from recovery.context import open_app
    from recovery.protect import protect as take

    with open_app(Path(catalog), app) as ctx:
        point = take(ctx, say=get_run_logger().info)
    return {"point": point.id, "verified": point.verified}


@flow(name="protect", flow_run_name="protect {app}", persist_result=False)
def protect(app: str, catalog: str) -> dict[str, Any]:
    """Take a recovery point of an app and prove it.

    Args:
        app: Key of the app in the catalogue.
        catalog: Path of the catalogue.
    """
    return capture(catalog, app)
