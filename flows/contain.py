"""The flow that pauses workflows and what depends on them: by hand or by an event. The watcher contains by itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.states import Completed

from flows import artifacts, forms, states
from flows.recover import retryable


@task(name="pause", retries=2, retry_delay_seconds=[1, 3], retry_condition_fn=retryable, persist_result=False)
def pause(catalog: str, app: str, workflows: list[str], incident: str | None, reason: str) -> dict[str, Any]:
    """Pause, drain, fence, prove. Repeating it proves the pause again."""
    from recovery import manual
    from recovery.context import open_app

    with open_app(Path(catalog), app) as ctx:
        done = manual.contain(ctx, workflows, incident=incident, reason=reason, say=get_run_logger().info)
    return asdict(done)


@flow(name="contain", flow_run_name=forms.contain_name, persist_result=False)
def contain(
    app: str, workflows: list[str], reason: str = "contained by hand", incident: str = "", catalog: str = ""
) -> Any:
    """Stop the damage: pause workflows and what depends on them, prove that they are paused, and take their right to
    write from the database. Nothing is undone; `recover` brings the app back, `resume` ends a false alarm.

    Args:
        app: The app they belong to.
        workflows: What to pause. Workflows that depend on these are paused with them.
        reason: Why, in a few words. It becomes the incident's title.
        incident: The incident this belongs to. Leave it empty for the one that is open now, or else a new one.
        catalog: Path of the catalogue, as the server sees it. Leave it empty for the one that the server was
            started with.
    """
    try:
        where = forms.where(catalog)
        done = pause(str(where), app, workflows, incident or None, reason)
    except Exception as error:  # noqa: BLE001 - each becomes a state with a name
        return states.failed(error)
    artifacts.incident(where, app, done["incident"])
    said = f"{', '.join(done['workflows'])}: proven paused and fenced, incident {done['incident']}. Next: `recover`."
    get_run_logger().info(said)
    return Completed(name="Contained", message=said, data=done)
