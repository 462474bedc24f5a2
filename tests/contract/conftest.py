"""The benches of the contract suite: one per platform, with workflows made of webhook, Code and Wait nodes only."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import httpx
import pytest

from platforms.base import Platform, Run
from platforms.fake import EntryClosed, FakePlatform, Suspend
from platforms.n8n import N8n

T = TypeVar("T")
SHORT_S = 1.5
LONG_S = 3600
NUMBERS = itertools.count(int(time.time()))

CODE = """
const event = $('Webhook').first().json;
if (event.body.fail) throw new Error('refused on purpose');
return [{json: {tag: 'TAG', body: event.body, query: event.query, header: event.headers['x-shop']}}];
"""


def definition(name: str, tag: str, *, wait_s: float = 0) -> dict[str, Any]:
    """Webhook, then perhaps a Wait, then a Code node that echoes the event under ``tag``. The path is the name.

    n8n keeps waits under 65 s in memory (state *running*), longer ones asleep in its database (*waiting*).
    """
    nodes = [
        {
            "id": "hook",
            "name": "Webhook",
            "type": "n8n-nodes-base.webhook",
            "typeVersion": 2,
            "position": [0, 0],
            "webhookId": name,
            "parameters": {
                "path": name,
                "httpMethod": "POST",
                "responseMode": "onReceived" if wait_s else "lastNode",
                "options": {},
            },
        },
        {
            "id": "echo",
            "name": "Echo",
            "type": "n8n-nodes-base.code",
            "typeVersion": 2,
            "position": [400, 0],
            "parameters": {"jsCode": CODE.replace("TAG", tag)},
        },
    ]
    order = ["Webhook", "Echo"]
    if wait_s:
        wait = {"amount": wait_s, "unit": "seconds"}
        kind = {"type": "n8n-nodes-base.wait", "typeVersion": 1.1}
        nodes.insert(1, {"id": "wait", "name": "Wait", **kind, "position": [200, 0], "parameters": wait})
        order.insert(1, "Wait")
    links = itertools.pairwise(order)
    connections = {a: {"main": [[{"node": b, "type": "main", "index": 0}]]} for a, b in links}
    return {"name": name, "nodes": nodes, "connections": connections, "settings": {"executionOrder": "v1"}}


class Bench(Protocol):
    """A platform under test and the outside world around it."""

    platform: Platform

    def create(self, content: Mapping[str, Any]) -> str:
        """A new, inactive workflow."""

    def call(self, workflow_id: str, body: Mapping[str, Any]) -> bool:
        """A customer's call of the real entry. False when it was turned away."""

    def another_process(self) -> Platform:
        """The same platform, as a process sees it that remembers nothing."""


def fresh_name() -> str:
    return f"contract-{next(NUMBERS)}"


def eventually(look: Callable[[], T], *, within_s: float = 10) -> T:
    """The first true result of ``look``."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


class Scene:
    """Short words for what every test of the suite does."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.platform = bench.platform
        self.made: list[str] = []

    def workflow(self, tag: str = "v1", *, wait_s: float = 0, active: bool = True) -> tuple[str, str]:
        """A workflow, answering if ``active``; its id and name."""
        name = fresh_name()
        workflow_id = self.bench.create(definition(name, tag, wait_s=wait_s))
        self.made.append(workflow_id)
        if active:
            self.platform.activate(workflow_id)
            self.run(workflow_id, {"warm-up": True}, ended=not wait_s)
        return workflow_id, name

    def run(self, workflow_id: str, body: Mapping[str, Any], *, ended: bool = True) -> Run:
        """Call the real entry until it takes the event; the run it started."""
        known = {r.id for r in self.platform.runs(workflow_id)}
        eventually(lambda: self.bench.call(workflow_id, body))

        def new() -> Run | None:
            found = [r for r in self.platform.runs(workflow_id) if r.id not in known]
            return next((r for r in found if not (ended and r.state.in_flight)), None)

        return eventually(new)

    def tag(self, run: Run) -> str:
        """Which version answered, by what it wrote."""
        return str(self.platform.run_detail(run.id).outputs["Echo"][0]["tag"])

    def paused(self, workflow_id: str) -> None:
        self.platform.deactivate(workflow_id)
        eventually(lambda: self.platform.ingress_paused(workflow_id))

    def clean(self) -> None:
        for workflow_id in self.made:
            self.platform.deactivate(workflow_id)
            for run in self.platform.runs(workflow_id):
                if run.state.in_flight:
                    self.platform.stop(run.id)


class FakeBench:
    def __init__(self) -> None:
        self.platform = FakePlatform(self.play, publish_delay_s=0.1, pause_delay_s=0.2)
        self.threads = ThreadPoolExecutor(4)

    @staticmethod
    def play(content: Mapping[str, Any], event: Mapping[str, Any], _run_id: str) -> Mapping[str, Any]:
        def echo() -> Mapping[str, Any]:
            if event["body"].get("fail"):
                raise ValueError("refused on purpose")
            tag = next(n["parameters"]["jsCode"] for n in content["nodes"] if n["name"] == "Echo")
            tag = tag.partition("tag: '")[2].partition("'")[0]
            seen = {"body": event["body"], "query": event.get("query"), "header": event["headers"].get("x-shop")}
            return {"Echo": [{"tag": tag, **seen}]}

        waits = [n["parameters"]["amount"] for n in content["nodes"] if n["name"] == "Wait"]
        if waits and waits[0] > 60:
            raise Suspend(echo)
        time.sleep(sum(waits))
        return echo()

    def create(self, content: Mapping[str, Any]) -> str:
        return self.platform.add(content)

    def call(self, workflow_id: str, body: Mapping[str, Any]) -> bool:
        event = {"body": body, "headers": {"x-shop": "north"}, "query": {"page": "1"}}
        try:
            self.platform.start(workflow_id, event)
        except EntryClosed:
            return False
        return True

    def another_process(self) -> Platform:
        return self.platform


class N8nBench:
    def __init__(self, url: str, api_key: str) -> None:
        self.url, self.api_key = url, api_key
        self.platform = N8n(url, api_key)
        self.api = httpx.Client(base_url=f"{url}/api/v1", headers={"X-N8N-API-KEY": api_key}, timeout=30)
        self.world = httpx.Client(base_url=f"{url}/webhook", timeout=30, headers={"x-shop": "north"})
        self.paths: dict[str, str] = {}

    def create(self, content: Mapping[str, Any]) -> str:
        created = self.api.post("/workflows", json=dict(content))
        assert created.status_code == 200, created.text
        workflow_id = str(created.json()["id"])
        self.paths[workflow_id] = content["name"]
        return workflow_id

    def call(self, workflow_id: str, body: Mapping[str, Any]) -> bool:
        answer = self.world.post(f"/{self.paths[workflow_id]}", params={"page": "1"}, json=dict(body))
        return answer.status_code != 404

    def another_process(self) -> Platform:
        return N8n(self.url, self.api_key)

    def close(self) -> None:
        self.api.close()
        self.world.close()
        self.platform.close()


@pytest.fixture(scope="session")
def n8n_bench(request: pytest.FixtureRequest) -> Iterator[N8nBench]:
    addresses = request.getfixturevalue("estate").addresses
    bench = N8nBench(addresses.n8n_url, addresses.n8n_api_key)
    yield bench
    bench.close()


@pytest.fixture(params=["fake", pytest.param("n8n", marks=[pytest.mark.live, pytest.mark.n8n])])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The suite's stage, once in memory and once on live n8n."""
    bench: Bench = FakeBench() if request.param == "fake" else request.getfixturevalue("n8n_bench")
    stage = Scene(bench)
    yield stage
    stage.clean()


@pytest.fixture
def n8n_scene(n8n_bench: N8nBench) -> Iterator[Scene]:
    """For what only n8n has."""
    stage = Scene(n8n_bench)
    yield stage
    stage.clean()
