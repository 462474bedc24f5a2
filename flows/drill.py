"""The flow that rehearses a disaster, on a schedule or by hand. Nothing of the user's takes part."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

if TYPE_CHECKING:
    from uuid import UUID

Scenario = Literal["bad-version", "schedule-ran-twice", "bulk-delete"]

STAGES: Final = 18
"""About so many stages has a drill: for the bar that shows how far it is."""


def run_name() -> str:
    """``drill order-desk bad-version #7``."""
    from drills.score_files import next_id, number
    from recovery.context import default_home

    asked = flow_run.parameters
    return f"drill {asked['app']} {asked['scenario']} #{number(next_id(default_home()))}"


@flow(name="drill", flow_run_name=run_name, persist_result=False)
def drill(app: str, scenario: Scenario = "bad-version", catalog: str = "") -> State[Any]:
    """Rehearse a disaster in a throw-away sandbox: a harmless change that must be left alone, then a fault, detection,
    containment, recovery, and a judge who knows what was right. Ends as Passed or Failed drill, with a scorecard.
    The app itself, its workflows and its data take no part in it.

    Args:
        app: App for which the drill counts. What is played is the example app.
        scenario: Which disaster is played.
        catalog: Path of the catalogue; the one that Reinstate was started with when empty.
    """
    from drills import rehearsal, score_text, trend_page
    from recovery.context import default_home

    log = get_run_logger()
    rehearsal.check(app, catalog or os.environ.get("REINSTATE_CATALOG", ""))
    if said := rehearsal.note(app):
        log.warning(said)
    show = progress(app)
    card = rehearsal.play(scenario, home=default_home(), app=app, say=log.info, run=as_tasks(show))
    show(100.0)
    create_markdown_artifact(score_text.markdown(card), key=key("scorecard", app), description=card.title)
    for worse in trend_page.publish(default_home()).regressions:
        log.warning("worse than usual: %s", worse.text)
    headline = score_text.headline(card)
    for reason in card.reasons:
        log.error("not reached: %s", reason)
    if card.passed:
        return Completed(name="Passed", message=headline, data=card.document())
    return Failed(name="Failed drill", message="; ".join((headline, *card.reasons)))


def key(what: str, app: str) -> str:
    """The key of an artifact: its history on the server is that of all drills of the app."""
    return f"{what}-{app.replace('_', '-')}"


def progress(app: str) -> Callable[[float], None]:
    """A bar on the run's page. That the server takes it is not worth a drill."""
    with suppress(Exception):
        bar = cast("UUID", create_progress_artifact(0.0, key=key("drill", app), description="How far the drill is"))

        def show(percent: float) -> None:
            with suppress(Exception):
                update_progress_artifact(bar, percent)

        return show
    return lambda _: None


def as_tasks(show: Callable[[float], None]) -> Callable[[str, Callable[[], Any]], Any]:
    """Runs each stage as a task of its own, so that the run's page shows where it is and how long each took."""
    begun: list[str] = []

    def run(name: str, work: Callable[[], Any]) -> Any:
        begun.append(name)
        show(min(95.0, 100.0 * (len(begun) - 1) / STAGES))
        stage = task(name=name, task_run_name=lambda: name, persist_result=False, cache_policy=NO_CACHE)
        return stage(work)()

    return run
