"""The flow that pauses workflows and what depends on them: by hand or by an event. The watcher contains by itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task

from flows.recover import retryable


@task(name="pause", retries=2, retry_delay_seconds=[1, 3], retry_condition_fn=retryable, persist_result=False)
def pause(catalog: str, app: str, workflows: list[str], incident: str | None, reason: str) -> dict[str, Any]:
    """Pause, drain, fence, prove. Repeating it proves the pause again."""
    from recovery import manual
    from recovery.context import open_app

    with open_app(Path(catalog), app) as ctx:
        done = manual.contain(ctx, workflows, incident=incident, reason=reason, say=get_run_logger().info)
    return asdict(done)


@flow(name="contain", flow_run_name="contain {app}", persist_result=False)
def contain(
    app: str, catalog: str, workflows: list[str], incident: str | None = None, reason: str = "contained by hand"
) -> dict[str, Any]:
    """Pause workflows and their dependents, prove the pause, fence their database roles.

    Args:
        app: Key of the app in the catalogue.
        catalog: Path of the catalogue.
        workflows: Keys of the workflows; their dependents are paused with them.
        incident: Incident it belongs to; the open one, else a new one, when empty.
        reason: Why, for the record.
    """
    return pause(catalog, app, workflows, incident, reason)
