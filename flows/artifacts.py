"""The pages of a run in Prefect's UI, and the report on disk. Their text comes from `recovery` and `incidents`, masked.

Keys are stable per app, so that each page has its history. A page that cannot be made or published is a warning in
the run's log and nothing more: no recovery fails for a page.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.settings import PREFECT_UI_URL

if TYPE_CHECKING:
    from recovery.plan import Plan

T = TypeVar("T")
PAGES_URL: Final = "REINSTATE_PAGES_URL"
"""Where `python -m console.pages` answers, when it does."""


def key(app: str, what: str) -> str:
    """``order-desk-plan``: Prefect takes lower-case letters, digits and dashes."""
    return f"{app}-{what}".lower().replace("_", "-")


def plan(catalog: Path, app: str, made: Plan, *, publish: bool) -> str:
    """Publish the plan, and log where it can be read. Returns what the form of the approval says about it."""
    where = ""
    if publish:
        text = quietly("the plan", lambda: plan_text(catalog, app, made)) or short(made)
        said = f"Plan {made.hash[:12]} of {made.recovery_id}: what will happen, and what will not"
        where = address(markdown(key(app, "plan"), text, said))
    if where:
        get_run_logger().info("read the plan: %s", where)
    return quietly("the plan in short", lambda: plan_text(catalog, app, made, whole=where)) or short(made)


def plan_text(catalog: Path, app: str, made: Plan, *, whole: str | None = None) -> str:
    """The plan's page; with ``whole``, the address of that page, the few lines for the form."""
    from recovery import plan_page
    from recovery.context import open_app

    with open_app(catalog, app) as ctx:
        return plan_page.markdown(made, ctx.app) if whole is None else plan_page.brief(made, ctx.app, whole=whole)


def address(artifact: UUID | None) -> str:
    """Where Prefect's UI shows an artifact; empty when it was not published, or the server's address is not known."""
    base = (PREFECT_UI_URL.value() or "").rstrip("/")
    return f"{base}/v2/artifacts/artifact/{artifact}" if artifact and base else ""


def short(made: Plan) -> str:
    """The plan in a few words, when its page cannot be made."""
    steps = "\n".join(f"1. {step.title}" for step in made.steps)
    return f"Plan `{made.hash[:12]}`: {made.rows} rows change, {len(made.events)} events are sent again.\n\n{steps}\n"


def incident(catalog: Path, app: str, which: str) -> None:
    """Publish where the incident stands, and write its report to disk."""
    about(catalog, app, which, {"incident": f"Incident {which}: where it stands"})


def outcome(catalog: Path, app: str, which: str) -> None:
    """At the end of a recovery: incident, verification and report, with a link to the report's page."""
    pages = {
        "incident": f"Incident {which}: where it stands",
        "verification": f"What was verified in {which}",
        "report": f"Report on {which}",
    }
    about(catalog, app, which, pages)


def about(catalog: Path, app: str, which: str, pages: dict[str, str]) -> None:
    """Collect once, write the HTML report, publish these pages."""
    texts = quietly("the report", lambda: told(catalog, app, which, list(pages)))
    for name, text in (texts or {}).items():
        markdown(key(app, name), text, pages[name])
    if texts and (base := os.environ.get(PAGES_URL, "").rstrip("/")):
        link = f"{base}/reports/{which}.html"
        quietly(
            "the link to the report",
            lambda: create_link_artifact(
                link, link_text=f"Report on {which}", key=key(app, "report-page"), description="The report as one page"
            ),
        )


def told(catalog: Path, app: str, which: str, names: list[str]) -> dict[str, str]:
    """The report is written to ``home/reports/<incident>.html``; returns the pages' texts by name."""
    from incidents.report import markdown as words
    from incidents.report.collect import collect
    from incidents.report.render import write
    from recovery.context import open_app

    with open_app(catalog, app) as ctx:
        goals = ctx.app.objectives
        data = collect(ctx.ledger, which, rto_s=goals.rto_s, rpo_s=goals.rpo_s)
        folder = ctx.home / "reports"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(data, folder / f"{which}.html")
    make = {"incident": words.incident, "verification": words.verification, "report": words.report}
    return {name: make[name](data) for name in names}


def markdown(name: str, text: str, description: str) -> UUID | None:
    """Publish one page; its id, when that worked."""
    return cast("UUID | None", quietly(name, lambda: create_markdown_artifact(text, key=name, description=description)))


def progress(app: str, made: Plan) -> UUID | None:
    """A bar for the steps of a recovery, at zero."""
    said = f"Steps of {made.recovery_id}, {len(made.steps)} in all"
    return cast(
        "UUID | None",
        quietly("the progress", lambda: create_progress_artifact(0.0, key=key(app, "progress"), description=said)),
    )


def advance(bar: UUID | None, made: Plan, done: int) -> None:
    """``done`` steps are done."""
    if bar is None:
        return
    said = f"{done} of {len(made.steps)} steps of {made.recovery_id} are done"
    if done < len(made.steps):
        said += f"; now: {made.steps[done].title}"
    quietly("the progress", lambda: update_progress_artifact(bar, round(100.0 * done / len(made.steps), 1), said))


def quietly(what: str, make: Callable[[], T]) -> T | None:
    """What ``make`` returns; on whatever error a warning, and ``None``."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - a page is never worth a recovery
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        get_run_logger().warning("%s could not be published: %s", what, first)
        return None
