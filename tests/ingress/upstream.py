"""A platform as the ingress sees it: a server that counts what it got, answers as told, and can be paused."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Way

from ingress import serving
from ingress.model import Route
from ingress.queue import Queue
from ingress.server import Ingress
from recovery.events import look_up

WORLD = httpx.Client(timeout=20, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
"""The senders; one client, since making one is slow."""

ROUTES = (
    Route(workflow="intake", method="POST", path="/webhook/orders", event_key="body.event"),
    Route(workflow="intake", method="POST", path="/webhook/shops/:shop/orders", event_key="body.event"),
    Route(workflow="payment", method="POST", path="/webhook/payments"),
)


def not_registered(method: str, path: str) -> Response:
    """What n8n says of a webhook whose workflow is paused."""
    message = f'The requested webhook "{method} {path.removeprefix("/webhook/")}" is not registered.'
    return JSONResponse({"code": 404, "message": message, "hint": "The workflow must be active."}, status_code=404)


@dataclass
class Upstream:
    """``got`` are the requests so far; ``answers`` tells the next ones, by default 200 with an echo. A request whose
    body says ``wait`` is not answered before :attr:`go` is set."""

    got: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    go: threading.Event = field(default_factory=threading.Event)

    async def handle(self, request: Request) -> Response:
        body = await request.body()
        seen = {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "query": request.url.query,
            "headers": request.headers.raw,
            "body": body,
        }
        if request.url.path in self.paused:
            return not_registered(request.method, request.url.path)
        self.got.append(seen)
        while b'"wait"' in body and not self.go.is_set():
            await asyncio.sleep(0.02)
        if self.answers:
            return self.answers.pop(0)
        return JSONResponse({"echo": body.decode("utf-8", "replace")})

    @property
    def application(self) -> Starlette:
        return Starlette(routes=[Way("/{path:path}", self.handle, methods=["GET", "POST", "PUT", "DELETE"])])

    def events(self) -> list[str]:
        """Keys of the events it got, in order."""
        return [json.loads(g["body"]).get("event") for g in self.got]


@dataclass
class Site:
    """A platform, the ingress before it, and its queue."""

    upstream: Upstream
    queue: Queue
    address: str
    platform: str

    def post(self, path: str = "/webhook/orders", event: str | None = "1", **more: Any) -> httpx.Response:
        body = {"event": event, **more.pop("body", {})}
        return WORLD.post(self.address + path, json=body, **more)


@contextmanager
def site(folder: Path, **options: Any) -> Iterator[Site]:
    upstream = Upstream()
    queue = Queue(folder / "events.sqlite", app="shop", owner="one")
    queue.set_routes(ROUTES)
    try:
        with serving.in_thread(upstream.application) as platform:
            server = Ingress(queue=queue, upstream=options.pop("upstream", platform), key_of=look_up, **options)
            with serving.in_thread(server.application()) as address:
                yield Site(upstream, queue, address, platform)
            upstream.go.set()
    finally:
        queue.close()
