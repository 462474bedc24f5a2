"""Errors of the HTTP layer, from a server on loopback that misbehaves."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from platforms.base import Permanent, PlatformError, Retryable
from platforms.n8n import N8n
from platforms.n8n_client import Conflict, N8nClient, Unknown
from platforms.registry import open_platform

KEY = "key-that-must-not-show"


class Server:
    """Answers every request with the same status and body."""

    def __init__(self) -> None:
        self.status, self.body, self.headers, self.delay_s = 200, b"{}", {}, 0.0
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.requests.append(f"{self.command} {self.path}")
                time.sleep(outer.delay_s)
                self.send_response(outer.status)
                for name, value in {"Content-Length": str(len(outer.body)), **outer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(outer.body)

            do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def platform(server: Server) -> Iterator[N8n]:
    n8n = N8n(server.url, KEY, timeout_s=0.3)
    yield n8n
    n8n.close()


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "refused content", Permanent),
        (401, "Unauthorized", Permanent),
        (403, "Forbidden", Permanent),
        (404, "Not Found", Unknown),
        (404, "n8n is starting up. Please wait", Retryable),
        (409, "busy", Conflict),
        (429, "slow down", Retryable),
        (500, "Internal server error", Retryable),
        (503, "Database is not ready", Retryable),
        (302, "elsewhere", Permanent),
    ],
)
def test_statuses_become_typed_one_line_errors(
    server: Server, platform: N8n, status: int, message: str, kind: type[PlatformError]
) -> None:
    server.status, server.body = status, json.dumps({"message": f"{message}\nsecond line"}).encode()
    with pytest.raises(kind) as raised:
        platform.draft_version("w1")
    text = str(raised.value)
    assert "w1" in text
    assert "\n" not in text
    assert KEY not in text + repr(platform)


def test_a_cut_answer_is_retryable_and_a_foreign_server_permanent(server: Server, platform: N8n) -> None:
    server.body = b'{"id": "w1", "na'
    with pytest.raises(Retryable, match="cut off"):
        platform.draft_version("w1")
    server.body = b"[]"
    with pytest.raises(Permanent, match="does not answer like n8n"):
        platform.workflows()
    server.body = b'{"hello": 1}'
    with pytest.raises(Permanent, match="does not answer like n8n"):
        platform.health()


def test_a_time_out_and_a_closed_port_are_retryable(server: Server, platform: N8n) -> None:
    server.delay_s = 1
    with pytest.raises(Retryable, match="timed out"):
        platform.health()
    unreachable = N8n("http://127.0.0.1:9", KEY)
    with pytest.raises(Retryable, match="unreachable"):
        unreachable.health()
    unreachable.close()


@pytest.mark.parametrize(
    ("url", "key"), [("nonsense", "k"), ("ftp://host", "k"), ("http://h", ""), ("http://h", "a\nb"), ("http://h", "ü")]
)
def test_a_malformed_address_or_key_is_permanent(url: str, key: str) -> None:
    with pytest.raises(Permanent, match="n8n"):
        N8n(url, key)


def test_pages_are_followed_to_the_end(server: Server) -> None:
    client = N8nClient(server.url, KEY)
    server.body = json.dumps({"data": [{"id": 1}], "nextCursor": "more"}).encode()
    listed = client.pages("runs", "/executions", params={"status": "error"})
    next(listed)
    next(listed)
    server.body = json.dumps({"data": [{"id": 2}], "nextCursor": None}).encode()
    assert [item["id"] for item in listed] == [2]
    assert server.requests[0] == "GET /api/v1/executions?limit=250&status=error"
    assert "cursor=more" in server.requests[2]
    client.close()


def test_the_preflight_tells_methods_or_that_it_never_arrived(server: Server) -> None:
    client = N8nClient(server.url, KEY)
    server.status, server.headers = 204, {"Access-Control-Allow-Methods": "OPTIONS, POST"}
    assert client.webhook_methods("orders") == {"POST"}
    server.headers = {"Access-Control-Allow-Methods": "OPTIONS"}
    assert client.webhook_methods("orders") == set()
    server.headers = {}
    with pytest.raises(Permanent, match="let OPTIONS pass"):
        client.webhook_methods("orders")
    server.status = 502
    with pytest.raises(Retryable):
        client.webhook_methods("orders")
    assert {request.partition(" ")[0] for request in server.requests} == {"OPTIONS"}
    client.close()


def test_the_registry_names_what_it_has() -> None:
    platform = open_platform("n8n", "http://127.0.0.1:1", "k")
    assert platform.kind == "n8n"
    platform.close()
    with pytest.raises(Permanent, match="make-believe: there is no adapter for it; use one of"):
        open_platform("make-believe", "http://127.0.0.1:1", "k")
