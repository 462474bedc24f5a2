"""Node-RED's answers as errors of the port, on a stand-in server."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from platforms.base import Permanent, Retryable
from platforms.node_red import NodeRed
from platforms.node_red_client import NodeRedClient, Stale, Unknown
from platforms.registry import open_platform

Answer = Callable[[httpx.Request], httpx.Response]
FLOWS = [{"id": "a", "type": "tab", "label": "A", "disabled": True}]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], NodeRed]:
    real = httpx.Client

    def serve(answer: Answer) -> NodeRed:
        transport = httpx.MockTransport(answer)
        monkeypatch.setattr(httpx, "Client", lambda **options: real(**{**options, "transport": transport}))
        return NodeRed("http://node-red.test", "hush")

    return serve


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Permanent),
        (403, Permanent),
        (404, Unknown),
        (400, Permanent),
        (429, Retryable),
        (500, Retryable),
        (503, Retryable),
    ],
)
def test_statuses_are_told_apart(served: Any, status: int, kind: type[Exception]) -> None:
    platform = served(lambda _: httpx.Response(status, json={"message": "because"}))
    with pytest.raises(kind) as raised:
        platform.workflows()
    assert "hush" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_cut_answer_is_retryable_and_a_strange_one_permanent(served: Any) -> None:
    with pytest.raises(Retryable, match="cut off"):
        served(lambda _: httpx.Response(200, text='{"flows": [')).workflows()
    with pytest.raises(Permanent, match="does not answer like Node-RED"):
        served(lambda _: httpx.Response(200, json={"data": []})).workflows()


def test_a_stale_revision_is_read_again_until_it_fits(served: Any) -> None:
    posted: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"flows": FLOWS, "rev": str(len(posted))})
        posted.append(json.loads(request.content))
        assert request.headers["node-red-deployment-type"] == "flows"
        return httpx.Response(409 if len(posted) < 3 else 200, json={})

    served(answer).activate("a")
    assert [p["rev"] for p in posted] == ["0", "1", "2"]
    assert posted[-1]["flows"] == [{**FLOWS[0], "disabled": False}]
    posted.clear()
    served(answer).deactivate("a")
    assert posted == [], "it is already"
    with pytest.raises(Stale, match="deploys all the time"):
        served(lambda r: answer(r) if r.method == "GET" else httpx.Response(409)).activate("a")


def test_a_write_that_did_not_happen_is_retryable(served: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(200, json={"flows": FLOWS, "rev": "1"}) if request.method == "GET" else httpx.Response(500)
        )

    with pytest.raises(Retryable, match="activation of workflow a"):
        served(answer).activate("a")


def test_addresses_and_tokens_that_cannot_be_are_permanent() -> None:
    for url, token in (("ftp://x", "t"), ("http://", "t"), ("http://x", ""), ("http://x", "a\nb"), ("http://x", "ž")):
        with pytest.raises(Permanent, match="node-red"):
            NodeRedClient(url, token)
    made = open_platform("node-red", "http://node-red.test/", "hush")
    assert (made.kind, "hush" in repr(made)) == ("node-red", False)
    made.close()
