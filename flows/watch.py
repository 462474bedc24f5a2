"""The flow that watches an app for a while: on a schedule whose runs follow one another, or as one long run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.events import emit_event

from flows.recover import retryable

CONTAINED = "reinstate.incident.contained"


@task(name="look out", retries=3, retry_delay_seconds=[1, 3, 9], retry_condition_fn=retryable, persist_result=False)
def look_out(catalog: str, app: str, seconds: float) -> list[dict[str, Any]]:
    """Run the detectors; contain a confirmed anomaly in this very process. Returns what was contained."""
    from recovery.context import open_app
    from recovery.watch import watch as watching

    ends = time.monotonic() + seconds
    caught = []
    with open_app(Path(catalog), app) as ctx:
        for found in watching(ctx, say=get_run_logger().info, stop=lambda: time.monotonic() >= ends):
            news = {
                "incident": found.incident,
                "workflows": list(found.contained.workflows),
                "diagnosed": found.diagnosis is not None,
            }
            announce(ctx.app.key, news)
            caught.append(news)
    return caught


def announce(app: str, news: dict[str, Any]) -> None:
    """The event that an automation may answer, say by planning a recovery."""
    emit_event(CONTAINED, resource={"prefect.resource.id": f"reinstate.app.{app}"}, payload=news)


@flow(name="watch", flow_run_name="watch {app}", persist_result=False)
def watch(app: str, catalog: str, seconds: float = 300.0) -> list[dict[str, Any]]:
    """Watch an app; contain a confirmed anomaly and announce it.

    Args:
        app: Key of the app in the catalogue.
        catalog: Path of the catalogue.
        seconds: How long; the next run of the schedule goes on.
    """
    return look_out(catalog, app, seconds)
