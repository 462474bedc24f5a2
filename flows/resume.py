"""The flow that gives a paused app back to its users, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.states import Completed

from flows import artifacts, forms, states


@task(name="bring back", persist_result=False)
def bring_back(catalog: str, app: str, incident: str | None, by: str, override: str | None) -> dict[str, Any]:
    """Verify, then resume every stage under watch. Never retried: a failed proof or a relapse is an answer."""
    from recovery import manual

    chosen, back = manual.resume(
        Path(catalog), app, incident=incident, by=by, override=override, say=get_run_logger().info
    )
    return {"incident": chosen, "resumed": list(back)}


@flow(name="resume", flow_run_name="resume {app}", persist_result=False)
def resume(app: str, by: str = "operator", override: str = "", incident: str = "", catalog: str = "") -> Any:
    """Let a paused app work again, stage by stage, once the suites pass; a detector that fires pauses it again. For
    after one half was brought back alone, or after a false alarm.

    Args:
        app: The app to resume.
        by: Who resumes it, for the record.
        override: Leave it empty. Only if the app must work although it cannot be verified, the reason; it goes on
            record.
        incident: The incident that paused it. Leave it empty for the one that is open now.
        catalog: Path of the catalogue, as the server sees it. Leave it empty for the one that the server was
            started with.
    """
    try:
        where = forms.where(catalog)
        done = bring_back(str(where), app, incident or None, by, override or None)
    except Exception as error:  # noqa: BLE001 - each becomes a state with a name
        return states.failed(error)
    artifacts.outcome(where, app, done["incident"])
    said = f"{', '.join(done['resumed'])}: at work again, incident {done['incident']}."
    get_run_logger().info(said)
    return Completed(name="Resumed", message=said, data=done)
