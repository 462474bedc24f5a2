"""`reinstate events` and `reinstate ingress` on a queue with an event of every kind; values masked unless asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from console import exits
from estate import ports
from ingress.model import Event, State
from ingress.queue import Queue
from platforms.base import Platform, Run, RunState
from platforms.fake import EVERYTHING
from recovery import context, events_kept
from recovery.delivery import Delivered, Outcome
from tests.console.desk import APP, Answering, Desk
from tests.ingress.upstream import Upstream

AUTHORIZATION = "Bearer nobody-may-see-it"


class Able(Answering):
    capabilities = EVERYTHING


def able(kind: str, url: str, api_key: str) -> Platform:
    return Able()  # type: ignore[return-value]


@pytest.fixture
def events_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(folder=tmp_path)
    made.write(DESK_URL="http://127.0.0.1:9", DESK_KEY="key")
    listen = f"127.0.0.1:{ports.choose()}"
    made.catalog.write_text(yaml.safe_dump({"apps": [APP | {"ingress": {"listen": listen}}]}))
    monkeypatch.setenv("REINSTATE_HOME", str(made.home))
    monkeypatch.setattr(context, "open_platform", able)
    return made


@pytest.fixture
def queue(events_desk: Desk) -> Iterator[Queue]:
    made = Queue(events_desk.home / "events-desk.sqlite", app="desk")
    made.hold("order-intake", "replay", incident="INC-1")
    yield made
    made.close()


def take(queue: Queue, key: str, workflow: str = "order-intake") -> Event:
    return queue.record(
        workflow=workflow,
        key=key,
        method="POST",
        path="/webhook/orders",
        query="",
        headers=[("content-type", "application/json"), ("authorization", AUTHORIZATION)],
        body=json.dumps({"event": key, "customer": "Ada Lovelace", "total": 12, "paid": True}).encode(),
    )


def lost(queue: Queue, key: str) -> Event:
    event = take(queue, key)
    queue.begin(event.id)
    return queue.finish(event.id, State.UNKNOWN, why="time-out")


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_list_names_what_waits_and_what_is_unknown(
    events_desk: Desk, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert events_desk.run("events", "list") == exits.OK
    assert "no event waits" in capsys.readouterr().out
    held = take(queue, "e1")
    assert events_desk.run("events", "list", "--json") == exits.OK
    assert [(e["id"], e["key"], e["state"]) for e in printed(capsys)] == [(held.id, "e1", "held")]
    lost(queue, "e2")
    events_desk.tell(("event.unknown", {"workflow": "stock-sync", "event": "INC-1:stock-sync:7", "why": "time-out"}))
    passed = take(queue, "e3", "stock-sync")
    queue.answered(passed.id, 200)
    assert events_desk.run("events", "list", "--json") == exits.REFUSED
    assert [e["state"] for e in printed(capsys)] == ["held", "unknown", "unknown"]
    assert events_desk.run("events", "list", "--all", "--workflow", "stock-sync", "--json") == exits.REFUSED
    assert {e["state"] for e in printed(capsys)} == {"passed", "unknown"}


def test_an_event_shows_its_shape_and_its_values_only_when_asked(
    events_desk: Desk, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    held = take(queue, "e1")
    assert events_desk.run("events", "show", held.id[:8]) == exits.OK
    said = capsys.readouterr().out
    assert "Ada" not in said
    assert "'customer': 'text of 12', 'total': 'number', 'paid': 'yes or no'" in said
    assert events_desk.run("events", "show", held.id, "--show-values", "--json") == exits.OK
    shown = printed(capsys)
    assert shown["content"]["body"]["customer"] == "Ada Lovelace"
    assert AUTHORIZATION not in json.dumps(shown)
    assert events_desk.run("events", "show", "nobody") == exits.NOTHING


def test_held_events_are_discarded_on_record(
    events_desk: Desk, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    held = take(queue, "e1")
    assert events_desk.run("events", "discard", held.id[:8], "--dry-run", "--json") == exits.OK
    assert printed(capsys)["events"] == [held.id]
    assert queue.event(held.id).state is State.HELD
    assert events_desk.run("events", "discard", held.id, "--yes", "--by", "ada", "--reason", "by hand") == exits.OK
    assert queue.event(held.id).state is State.DISCARDED
    (entry,) = [e for e in events_desk.entries() if e.kind == "event.discarded"]
    assert (entry.body["event"], entry.body["by"], entry.body["reason"]) == (f"{held.id}:e1", "ada", "by hand")
    assert events_desk.run("events", "discard", held.id, "--yes") == exits.REFUSED


def test_unknown_events_are_settled_by_a_person(
    events_desk: Desk, queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = lost(queue, "e1"), lost(queue, "e2")
    events_desk.tell(("event.unknown", {"workflow": "stock-sync", "event": "INC-1:stock-sync:7", "why": "time-out"}))
    assert events_desk.run("events", "settle", first.id[:8], "--done", "--by", "ada") == exits.OK
    assert events_desk.run("events", "settle", second.id, "--not-done") == exits.OK
    assert events_desk.run("events", "settle", "INC-1:stock-sync:7", "--not-done") == exits.OK
    assert "enter it by hand" in capsys.readouterr().out
    assert [queue.event(e.id).state for e in (first, second)] == [State.DONE, State.HELD]
    assert events_desk.run("events", "list") == exits.OK
    assert events_desk.run("events", "settle", first.id, "--done") == exits.NOTHING


def test_a_retry_that_goes_on_is_named_and_not_called_done(
    events_desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    goes_on = Run(id="4712", workflow_id="w1", state=RunState.RUNNING, started_at=None, stopped_at=None)
    monkeypatch.setattr(
        events_kept, "retry", lambda *_: Delivered(outcome=Outcome.RUNNING, run=goes_on, why="it goes on")
    )
    assert events_desk.run("events", "retry", "4711", "--yes") == exits.REFUSED
    assert "run 4711: run again, still running; ask again later (run 4712)" in capsys.readouterr().out
    assert events_desk.run("events", "retry", "4711", "--yes", "--json") == exits.REFUSED
    assert printed(capsys) == {
        "run": "4711",
        "new_run": "4712",
        "outcome": "running",
        "there": False,
        "why": "it goes on",
    }


def test_releasing_needs_something_held_and_an_active_workflow(
    events_desk: Desk, queue: Queue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take(queue, "e1")
    assert events_desk.run("events", "release", "--dry-run", "--json") == exits.OK
    assert printed(capsys)["held"] == {"order-intake": 1}
    assert events_desk.run("events", "release", "--json") == exits.USAGE
    assert events_desk.run("events", "release", "--workflow", "stock-sync", "--yes") == exits.NOTHING

    def paused(kind: str, url: str, api_key: str) -> Platform:
        platform = Able()
        platform.live["w1"] = None
        return platform  # type: ignore[return-value]

    monkeypatch.setattr(context, "open_platform", paused)
    assert events_desk.run("events", "release", "--yes") == exits.REFUSED
    assert "resume it first" in capsys.readouterr().err


def test_the_ingress_runs_in_the_foreground_and_stops_when_told(events_desk: Desk, queue: Queue) -> None:
    """The platform cannot be reached: it goes on with the webhooks it knows."""
    from ingress import serving
    from ingress.model import Route

    listen = yaml.safe_load(events_desk.catalog.read_text())["apps"][0]["ingress"]["listen"]
    queue.set_routes([Route(workflow="stock-sync", method="POST", path="/webhook/stock")])
    queue.hold("stock-sync", "replay")
    with serving.in_thread(Upstream().application) as platform:
        events_desk.write(DESK_URL=platform)
        events_desk.catalog.write_text(yaml.safe_dump({"apps": [APP | {"ingress": {"listen": listen}}]}))
        command = [sys.executable, "-m", "console", "ingress", "--catalog", str(events_desk.catalog), "--json"]
        process = subprocess.Popen(command, env={**os.environ, "NO_COLOR": "1"}, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready == {"event": "ready", "address": f"http://{listen}", "queue": queue.name, "webhooks": 1}
            with httpx.Client(base_url=ready["address"], transport=httpx.HTTPTransport(retries=20)) as world:
                assert world.post("/webhook/stock", json={}).status_code == 202
                assert world.get("/.reinstate/health").json()["held"] == ["order-intake", "stock-sync"]
                assert world.get("/else").status_code == 200
            process.send_signal(signal.SIGTERM)
            process.wait(15)
        finally:
            process.kill()
            process.communicate()
    assert len(queue.held("stock-sync")) == 1


def test_the_status_says_what_waits(events_desk: Desk, queue: Queue) -> None:
    from recovery.standing import events_line

    with context.open_app(events_desk.catalog) as ctx:
        assert events_line(ctx) == []
        take(queue, "e1")
        lost(queue, "e2")
        assert events_line(ctx) == ["events: 1 held, 1 unknown: `reinstate events list`"]
