"""The pages and their addresses. Nothing of a request is ever part of a path: names are looked up."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from console.pages import reading
from console.pages.door import Door
from incidents.report import render, words
from incidents.report.reading import shown
from ledger.errors import LedgerError

if TYPE_CHECKING:
    import jinja2
    from starlette.requests import Request

INCIDENT = re.compile(r"(?P<incident>INC-[0-9]{8}-[0-9]{4,9})\.html")
CARD = re.compile(r"(?P<drill>DRILL-[0-9]{8}-[0-9]{4,9})\.json")


def application(home: Path, catalog: Path | None = None) -> Door:
    """The site of one home, behind its door. ``catalog`` gives titles and goals."""

    def index(_request: Request) -> Response:
        return page("index.html.j2", view=reading.overview(home, catalog), prefect=prefect())

    def report(request: Request) -> Response:
        asked = INCIDENT.fullmatch(request.path_params["name"])
        data = reading.report(home, catalog, asked["incident"]) if asked else None
        if data is None:
            return missing("There is no such incident.")
        return HTMLResponse(render.render(data))

    def scorecards(_request: Request) -> Response:
        return page("scorecards.html.j2", cards=reading.scorecards(home))

    def scorecard(request: Request) -> Response:
        asked = CARD.fullmatch(request.path_params["name"])
        found = next((c for c in reading.scorecards(home) if asked and c.drill == asked["drill"]), None)
        return JSONResponse(found.document()) if found else missing("There is no such scorecard.")

    def trends(_request: Request) -> Response:
        found = reading.trends(home)
        if found is None:
            return page("message.html.j2", title="Trends", text="There are none yet: a drill writes them.")
        return HTMLResponse(found)

    def health(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def unknown(_request: Request, _error: Exception) -> Response:
        return missing("There is no such page.")

    async def unreadable(_request: Request, error: Exception) -> Response:
        return page("message.html.j2", status=503, title="The record cannot be read", text=str(error))

    site = Starlette(
        routes=[
            Route("/", index),
            Route("/reports/{name}", report),
            Route("/scorecards", scorecards),
            Route("/scorecards/{name}", scorecard),
            Route("/trends.html", trends),
            Route("/health", health),
        ],
        exception_handlers={404: unknown, LedgerError: unreadable},
    )
    return Door(site, home=home)


def page(name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(templates().get_template(name).render(**values), status)


def missing(text: str) -> HTMLResponse:
    return page("message.html.j2", status=404, title="Not found", text=text)


def prefect() -> str:
    """The Prefect UI's address, where this process knows one."""
    url = os.environ.get("PREFECT_UI_URL") or os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    return url if url.startswith(("http://", "https://")) and "@" not in url else ""


@cache
def templates() -> jinja2.Environment:
    """The report's style sheet serves all pages."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).with_name("templates"), render.TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(moment=words.moment, seconds=words.duration, shown=shown)
    return environment
