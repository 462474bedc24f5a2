"""A whole recovery with an ingress: what came during the pause is sent at its end, and what was replayed is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingress import serving
from ingress.model import State
from ingress.queue import Queue
from ledger import kinds
from platforms.base import RunState
from platforms.fake import EntryClosed
from recovery import held
from tests.recovery.kiosk import Kiosk, expected, order

pytestmark = pytest.mark.postgres


@pytest.fixture
def with_ingress(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """The kiosk's platform takes calls over HTTP, and an ingress keeps them."""

    async def call(request: Request) -> Response:
        event = {"body": await request.json(), "headers": dict(request.headers), "query": {}}
        try:
            run = await run_in_threadpool(kiosk.call, request.path_params["workflow"], event)
        except EntryClosed:
            named = f"{request.method} {request.url.path}"
            return JSONResponse(
                {"code": 404, "message": f'The requested webhook "{named}" is not registered.'}, status_code=404
            )
        return JSONResponse({}, status_code=200 if run.state is RunState.SUCCESS else 500)

    queue = Queue(kiosk.home.parent / "events.sqlite", app="kiosk")
    opened = kiosk.open
    monkeypatch.setattr(kiosk, "open", lambda: replace(opened(), events=queue))
    with serving.in_thread(Starlette(routes=[Route("/{workflow}", call, methods=["POST"])])) as address:
        monkeypatch.setenv("KIOSK_URL", address)
        yield queue
    queue.close()


def test_held_events_are_released_after_the_resume_once_each(kiosk: Kiosk, wrecked: str, with_ingress: Queue) -> None:
    queue = with_ingress
    held.hold(kiosk.open(), ["intake", "payment"], wrecked)
    for event in (order("2", damages="h1"), order("9", sku="jam"), order("9", sku="jam"), order("10", sku="jam")):
        queue.record(
            workflow="intake",
            key=str(event["body"]["event"]),
            method="POST",
            path="/intake",
            query="",
            headers=[("content-type", "application/json")],
            body=json.dumps(event["body"]).encode(),
        )
    assert kiosk.recover(wrecked)["unknown"] == []
    rows = kiosk.rows()
    assert {r[0] for r in rows["orders"]} == {r[0] for r in expected()["orders"]} | {"o-9", "o-10"}
    assert dict(rows["stock"]) == {"tea": dict(expected()["stock"])["tea"], "jam": 97}
    assert {e.key: e.state for e in queue.events()} == {"2": State.REPEATED, "9": State.SENT, "10": State.SENT}
    assert queue.holds() == {}
    (entry,) = kiosk.open().ledger.entries(kinds=[kinds.EVENTS_RELEASED])
    assert (entry.body["sent"], entry.body["repeated"], entry.body["by_workflow"]) == (2, 1, {"intake": 2})
