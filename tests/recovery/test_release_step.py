"""A whole recovery with an ingress: what came during the pause is sent at its end, and what was replayed is not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

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
from recovery import events_kept, held, resuming
from recovery.errors import StepFailed
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


def keep(queue: Queue, event: Mapping[str, Any]) -> None:
    """An order comes during the pause."""
    queue.record(
        workflow="intake",
        key=str(event["body"]["event"]),
        method="POST",
        path="/intake",
        query="",
        headers=[("content-type", "application/json")],
        body=json.dumps(event["body"]).encode(),
    )


def test_held_events_are_released_after_the_resume_once_each(kiosk: Kiosk, wrecked: str, with_ingress: Queue) -> None:
    queue = with_ingress
    held.hold(kiosk.open(), ["intake", "payment"], wrecked)
    for event in (order("2", damages="h1"), order("9", sku="jam"), order("9", sku="jam"), order("10", sku="jam")):
        keep(queue, event)
    assert kiosk.recover(wrecked)["unknown"] == []
    rows = kiosk.rows()
    assert {r[0] for r in rows["orders"]} == {r[0] for r in expected()["orders"]} | {"o-9", "o-10"}
    assert dict(rows["stock"]) == {"tea": dict(expected()["stock"])["tea"], "jam": 97}
    assert {e.key: e.state for e in queue.events()} == {"2": State.REPEATED, "9": State.SENT, "10": State.SENT}
    assert queue.holds() == {}
    (entry,) = kiosk.open().ledger.entries(kinds=[kinds.EVENTS_RELEASED])
    assert (entry.body["sent"], entry.body["repeated"], entry.body["by_workflow"]) == (2, 1, {"intake": 2})


@pytest.mark.parametrize("by", ["the second recovery", "a person who resumes", "a person who releases"])
def test_what_an_earlier_recovery_replayed_is_not_sent_by_whoever_releases(
    kiosk: Kiosk, wrecked: str, with_ingress: Queue, by: str
) -> None:
    queue = with_ingress
    held.hold(kiosk.open(), ["intake", "payment"], wrecked)
    for event in (order("2", damages="h1"), order("9", sku="jam")):
        keep(queue, event)
    kiosk.recover(wrecked, mode="data")
    if by == "the second recovery":
        assert kiosk.recover(wrecked)["unknown"] == []
    else:
        kiosk.recover(wrecked, mode="logic")
        with pytest.MonkeyPatch.context() as patch:
            if by == "a person who releases":
                patch.setattr(held, "release", lambda *_, **__: held.Released())
            resuming.resume(kiosk.open(), wrecked, by="ada", override="looked", say=lambda _: None)
        if by == "a person who releases":
            events_kept.release(kiosk.open(), [], say=lambda _: None)
    assert {e.key: e.state for e in queue.events()} == {"2": State.REPEATED, "9": State.SENT}
    assert [r[0] for r in kiosk.rows()["orders"]].count("o-2") == 1
    runs = [kiosk.fake.run_detail(r.id).event for r in kiosk.fake.runs(kiosk.ids["intake"])]
    assert sum(r is not None and r["body"]["event"] == "2" for r in runs) == 1, (
        "the first time, through the bad version"
    )


def test_what_a_recovery_that_stopped_may_have_replayed_is_listed_not_sent(
    kiosk: Kiosk, wrecked: str, with_ingress: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender of a replayed event tries again meanwhile, the replay stops at another event, and a person resumes."""
    queue, real = with_ingress, kiosk.intake
    held.hold(kiosk.open(), ["intake", "payment"], wrecked)
    for event in (order("2", damages="h1"), order("9", sku="jam")):
        keep(queue, event)

    def failing(content: Mapping[str, Any], event: Mapping[str, Any], run: str) -> dict[str, Any]:
        if event["body"]["event"] == "3":
            raise ValueError("refused on purpose")
        return real(content, event, run)

    with monkeypatch.context() as patch:
        patch.setitem(kiosk.fake.handlers, "Intake", failing)
        with pytest.raises(StepFailed, match="event 3 of intake"):
            kiosk.recover(wrecked)
    resuming.resume(kiosk.open(), wrecked, by="ada", override="looked", say=lambda _: None)
    assert {e.key: e.state for e in queue.events()} == {"2": State.UNKNOWN, "9": State.SENT}
    ran = [(kiosk.fake.run_detail(r.id).event or {})["body"]["event"] for r in kiosk.fake.runs(kiosk.ids["intake"])]
    assert ran.count("2") == 1, "the first time, through the bad version"
    (unknown,) = events_kept.listing(kiosk.open(), states=[State.UNKNOWN])
    events_kept.settle(kiosk.open(), unknown.id, done=True, by="ada", reason="o-2 is there")
    assert queue.event(unknown.id).state is State.DONE
