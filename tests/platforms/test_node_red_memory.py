"""What a private copy remembers is never given up because Node-RED did not tell whether it has the store for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from platforms.base import Permanent, PrivateEntry, Retryable, RunState
from platforms.node_red import NodeRed

AT = {"x": 0, "y": 0}
FLOWS: list[dict[str, Any]] = [
    {"id": "shop", "type": "tab", "label": "Shop", "disabled": True, "env": []},
    {
        "id": "hook",
        "type": "http in",
        "name": "Hook",
        "z": "shop",
        "url": "/o",
        "method": "post",
        **AT,
        "wires": [["f"]],
    },
    {"id": "f", "type": "function", "name": "Work", "z": "shop", "func": "return msg;", "wires": [[]], **AT},
]
STORE = {"reinstate": {"module": "localfilesystem"}}
KEPT = {
    "id": "r1",
    "key": "k",
    "state": "success",
    "started": "2026-11-22T07:00:00.000Z",
    "ended": None,
    "version": "v",
}


class Host:
    """A Node-RED of answers: flows that can be deployed, diagnostics that come or do not, what copies wrote down."""

    def __init__(self) -> None:
        self.flows = [dict(node) for node in FLOWS]
        self.stores: dict[str, Any] | None = STORE
        self.told: Exception | int | None = None
        self.deployed = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/diagnostics":
            if isinstance(self.told, Exception):
                raise self.told
            if self.told is not None:
                return httpx.Response(self.told, json={"message": "not now"})
            settings = {"httpNodeRoot": "/"} | ({} if self.stores is None else {"contextStorage": self.stores})
            return httpx.Response(200, json={"runtime": {"settings": settings}})
        if request.url.path.startswith("/reinstate-"):
            return httpx.Response(200, json=[] if request.url.params.get("run") else [KEPT])
        if request.method == "POST":
            self.deployed += 1
            self.flows = json.loads(request.content)["flows"]
            return httpx.Response(200, json={"rev": str(self.deployed)})
        return httpx.Response(200, json={"flows": self.flows, "rev": str(self.deployed)})


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def connect(host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[[], NodeRed]:
    """Each call is a new process: it has asked for nothing yet."""
    real = httpx.Client
    transport = httpx.MockTransport(host.answer)
    monkeypatch.setattr(httpx, "Client", lambda **options: real(**{**options, "transport": transport}))
    return lambda: NodeRed("http://node-red.test", "hush")


def opened(platform: NodeRed) -> PrivateEntry:
    return platform.open_private_entry(platform.draft_version("shop"))


SILENT = [httpx.ReadTimeout("time-out"), httpx.ConnectError("refused"), 503, 429]


@pytest.mark.parametrize("told", SILENT, ids=str)
def test_no_answer_is_not_an_answer(host: Host, connect: Callable[[], NodeRed], told: Exception | int) -> None:
    entry = opened(connect())
    before, host.told = host.flows, told
    with pytest.raises(Retryable, match="context stores"):
        opened(connect())
    with pytest.raises(Retryable, match="context stores"):
        connect().sent(entry)
    assert (host.flows, host.deployed) == (before, 1), "the copy with a memory is still there"
    assert not connect().capabilities.reads_back_events, "and until it is known nothing is sent a second time"
    host.told = None
    assert opened(connect()) == entry
    assert [r.state for r in connect().sent(entry)["k"]] == [RunState.SUCCESS]
    assert host.deployed == 1


def test_a_refused_question_is_no_answer_either(host: Host, connect: Callable[[], NodeRed]) -> None:
    entry = opened(connect())
    host.told = 403
    for ask in (lambda: opened(connect()), lambda: connect().sent(entry)):
        with pytest.raises(Permanent, match="context stores"):
            ask()
    assert host.deployed == 1


@pytest.mark.parametrize("stores", [None, {}, {"reinstate": {"module": "memory"}}])
def test_a_copy_with_a_memory_is_not_replaced_by_one_without(
    host: Host, connect: Callable[[], NodeRed], stores: dict[str, Any] | None
) -> None:
    opened(connect())
    host.stores = stores
    with pytest.raises(Permanent, match="put the store back and restart Node-RED"):
        opened(connect())
    assert host.deployed == 1


def test_without_the_store_a_copy_is_made_that_nobody_relies_on(host: Host, connect: Callable[[], NodeRed]) -> None:
    host.stores = None
    platform = connect()
    entry = opened(platform)
    assert (platform.sent(entry), platform.capabilities.reads_back_events) == ({}, False)
    host.stores = STORE
    assert opened(connect()) == entry
    assert host.deployed == 2, "with the store it is made anew with a memory"
