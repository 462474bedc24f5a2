"""The key of an event on its way to a private entry of n8n and back."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from platforms import n8n_data
from platforms.base import EVENT_HEADER, PrivateEntry
from platforms.n8n import N8n
from platforms.n8n_entry import ENTRY_NODE

USUAL = ["order-17", "INC-1/evt:3_a.b~c", "a=b&c+d@e.example", "{!$'()*,;?#[]|\\^`<>\"}"]
AWKWARD = ["Größe 1\n", " order", "order\t", "日本", "50%", "a%20b", "Šárka 1"]


class Host:
    """As much of n8n as a replay needs: what is posted to the entry is a run that ended at once."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.headers: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": self.runs, "nextCursor": None})
        self.headers.append(request.headers[EVENT_HEADER])
        item = {"json": {"headers": {EVENT_HEADER: self.headers[-1]}, "body": json.loads(request.content)}}
        nodes = {ENTRY_NODE: [{"data": {"main": [[item]]}}]}
        run = {"id": str(len(self.runs) + 1), "workflowId": "copy", "status": "success"}
        times = {"startedAt": "2026-11-22T08:00:00.000Z", "stoppedAt": "2026-11-22T08:00:01.000Z"}
        self.runs.insert(0, {**run, **times, "data": {"resultData": {"runData": nodes}}})
        return httpx.Response(200, json={})


@pytest.fixture
def host() -> Host:
    return Host()


ENTRY = PrivateEntry(workflow_id="copy", source_workflow_id="w", version_hash="h", address="token")
EVENT = {"body": {"n": 1}, "headers": {"x-shop": "north"}}


@pytest.mark.parametrize("key", [*USUAL, *AWKWARD])
def test_every_key_arrives_as_it_was(host: Host, n8n: N8n, key: str) -> None:
    run = n8n.send(ENTRY, EVENT, idempotency_key=key)
    (value,) = host.headers
    assert value.isascii()
    assert value.isprintable()
    assert " " not in value
    assert {k: [r.id for r in runs] for k, runs in n8n.sent(ENTRY).items()} == {key: [run.id]}


@pytest.mark.parametrize("key", USUAL)
def test_a_usual_key_travels_as_it_is(host: Host, n8n: N8n, key: str) -> None:
    n8n.send(ENTRY, EVENT, idempotency_key=key)
    assert host.headers == [key], "a run that an earlier version sent is known by it"


def test_a_run_without_a_key_has_none() -> None:
    event = n8n_data.event_of({}, {ENTRY_NODE: [{"data": {"main": [[{"json": {"headers": {}, "body": {}}}]]}}]})
    assert n8n_data.key_of(event) is None
