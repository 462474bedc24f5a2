"""The flow that gives a paused app back to its users, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task


@task(name="bring back", persist_result=False)
def bring_back(catalog: str, app: str, incident: str | None, by: str, override: str | None) -> dict[str, Any]:
    """Verify, then resume every stage under watch. Never retried: a failed proof or a relapse is an answer."""
    from recovery import manual

    chosen, back = manual.resume(
        Path(catalog), app, incident=incident, by=by, override=override, say=get_run_logger().info
    )
    return {"incident": chosen, "resumed": list(back)}


@flow(name="resume", flow_run_name="resume {app}", persist_result=False)
def resume(
    app: str, catalog: str, incident: str | None = None, by: str = "operator", override: str | None = None
) -> dict[str, Any]:
    """Resume a paused app once the suites pass, in the catalogue's order, watching the detectors.

    Args:
        app: Key of the app in the catalogue.
        catalog: Path of the catalogue.
        incident: Incident that paused it; the open one when empty.
        by: Who resumes, for the record.
        override: Reason to resume although the verification failed, on record.
    """
    return bring_back(catalog, app, incident, by, override)
