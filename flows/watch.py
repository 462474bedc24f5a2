"""The flow that watches an app for a while: on a schedule whose runs follow one another, or as one long run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.events import emit_event
from prefect.states import Completed

from flows import artifacts, forms, states
from flows.recover import retryable

CONTAINED = "reinstate.incident.contained"


@task(name="look out", retries=3, retry_delay_seconds=[1, 3, 9], retry_condition_fn=retryable, persist_result=False)
def look_out(catalog: str, app: str, seconds: float) -> list[dict[str, Any]]:
    """Run the detectors; contain a confirmed anomaly in this very process. Returns what was found."""
    from recovery.context import open_app
    from recovery.watch import watch as watching

    ends = time.monotonic() + seconds
    caught = []
    with open_app(Path(catalog), app) as ctx:
        for found in watching(ctx, say=get_run_logger().info, stop=lambda: time.monotonic() >= ends):
            news = {
                "incident": found.incident,
                "workflows": list(found.contained.workflows) if found.contained is not None else [],
                "diagnosed": found.diagnosis is not None,
            }
            announce(ctx)
            caught.append(news)
    return caught


def announce(ctx: Any) -> None:
    """Emit what waits to be announced, and record that it was: an automation may answer by planning a recovery."""
    from recovery import keeping

    for news in keeping.unannounced(ctx):
        resource = {"prefect.resource.id": f"reinstate.app.{ctx.app.key}"}
        event = emit_event(news.event, resource=resource, payload=news.payload)
        keeping.announced(ctx, news.incident, str(event.id if event else ""))


@flow(name="watch", flow_run_name="watch {app}", persist_result=False)
def watch(app: str, seconds: float = 300.0, catalog: str = "") -> Any:
    """Watch an app for a while; when an anomaly is certain, pause what causes it and open an incident. `reinstate up`
    watches all the time without this.

    Args:
        app: The app to watch.
        seconds: How long. The next run of the schedule goes on.
        catalog: Path of the catalogue, as the server sees it. Leave it empty for the one that the server was
            started with.
    """
    try:
        where = forms.where(catalog)
        caught = look_out(str(where), app, seconds)
    except Exception as error:  # noqa: BLE001 - each becomes a state with a name
        return states.failed(error)
    for news in caught:
        artifacts.incident(where, app, news["incident"])
    if caught:
        said = f"Incidents: {', '.join(news['incident'] for news in caught)}. Next: `recover`."
        return Completed(name="Anomaly found", message=said, data=caught)
    return Completed(name="Quiet", message=f"No certain anomaly in {seconds:.0f} s.", data=caught)
