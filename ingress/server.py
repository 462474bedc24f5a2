"""The server in front of webhooks. Every event of a known workflow is written down before it is passed on or answered.

An active workflow's event goes to the platform and its answer back, both unchanged, under an id that the workflow sees
too. A held workflow's event is kept, recorded or turned away. What belongs to no workflow is passed through unrecorded.
Bodies and headers are never logged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as Path

from ingress import request as wire
from ingress.errors import IngressError, QueueUnreachable
from ingress.model import Event, Route, State, as_input, route_of
from ingress.queue import Queue

T = TypeVar("T")
HEALTH: Final = "/.reinstate/health"
METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
ROUTES_S: Final = 1.0
"""How old the known ways in may be."""
LOOK_S: Final = 0.3
"""How often it is asked whether a pause dropped an event that waits for its answer."""
PRUNE_S: Final = 3600.0
RETRY_AFTER_S: Final = 30

KeyOf = Callable[[Mapping[str, Any], str], str | None]


@dataclass(kw_only=True)
class Ingress:
    """One server. ``key_of`` finds the event's key at a dotted path of its input. ``largest`` is in bytes, the others
    in seconds and days."""

    queue: Queue
    upstream: str
    key_of: KeyOf
    largest: int = 16 * 1024 * 1024
    answer_s: float = 300.0
    keep_days: int = 14
    _client: httpx.AsyncClient = field(init=False)
    _routes: tuple[Route, ...] = ()
    _routes_at: float = float("-inf")

    def application(self) -> Starlette:
        """To be served by one process per app."""
        everything = Path("/{path:path}", self.handle, methods=METHODS)
        return Starlette(routes=[Path(HEALTH, self.health), everything], lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(self.queue.take_over)
        # A connection per event: one kept open may be closed by the platform just when it is used again, and then it
        # is not known whether the event arrived.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        timeout = httpx.Timeout(self.answer_s, connect=10.0)
        # Proxies of the environment are for the way out, not for the platform beside us.
        async with httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False, trust_env=False) as client:
            self._client = client
            pruning = asyncio.create_task(self._prune())
            yield
            pruning.cancel()
            with suppress(asyncio.CancelledError):
                await pruning

    async def health(self, _: Request) -> Response:
        """What waits and what is held; 503 when the queue cannot be reached."""
        try:
            counts = await run_in_threadpool(self.queue.counts)
            held = await run_in_threadpool(self.queue.holds)
            routes = await self._known()
        except QueueUnreachable as error:
            return JSONResponse({"ok": False, "why": str(error)}, status_code=503)
        told = {str(state): number for state, number in counts.items()}
        return JSONResponse({"ok": True, "held": sorted(held), "routes": len(routes), "events": told})

    async def handle(self, request: Request) -> Response:
        raw = request.scope["raw_path"].decode("latin-1").split("?")[0]
        query = request.scope["query_string"].decode("latin-1")
        try:
            # As the platform will see it: without dots that lead elsewhere.
            path = httpx.URL(wire.target("http://platform", raw, "")).path
            route = route_of(await self._known(), request.method, path)
            body = await self._body(request)
            if body is None:
                return _told(413, f"larger than {self.largest // 1024 // 1024} MB")
            if route is None:
                return await self._pass_through(request, raw, query, body)
            headers = wire.received(request.headers.raw)
            event = await run_in_threadpool(
                self.queue.record,
                workflow=route.workflow,
                key=self._key(route, query, headers, body),
                method=request.method,
                path=raw,
                query=query,
                headers=headers,
                body=body,
            )
            if event.state is not State.PASSING:
                return _kept(event)
            return await self._forward(event)
        except IngressError:
            # Nothing may pass that is not written down: the sender tries again.
            return _told(503, "the event could not be written down; send it again", retry=True)

    def _key(self, route: Route, query: str, headers: list[tuple[str, str]], body: bytes) -> str | None:
        if route.event_key is None:
            return None
        return self.key_of(as_input(query, tuple(headers), body), route.event_key)

    async def _body(self, request: Request) -> bytes | None:
        """The whole body; ``None`` when it is too large, which is noticed before it is read."""
        with suppress(ValueError):
            if int(request.headers.get("content-length", "0")) > self.largest:
                return None
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.largest:
                return None
            parts.append(part)
        return b"".join(parts)

    async def _forward(self, event: Event) -> Response:
        """Pass on; the platform's answer is on record before the sender gets it."""
        # Not made by the client, which would add headers of its own.
        outgoing = httpx.Request(
            event.method,
            wire.target(self.upstream, event.path, event.query),
            headers=wire.outgoing(event),
            content=event.body,
        )
        asked = asyncio.create_task(self._client.send(outgoing, stream=True))
        try:
            while not (await asyncio.wait({asked}, timeout=LOOK_S))[0]:
                seen = await run_in_threadpool(self.queue.event, event.id)
                if seen.state is State.DROPPED:
                    asked.cancel()
                    return await run_in_threadpool(self._dropped, seen)
            answer = asked.result()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            why = "the platform cannot be reached"
            found = await run_in_threadpool(self.queue.not_taken, event.id, None, why)
            return _kept(found) if found.state is not State.TURNED_AWAY else _told(502, why, retry=True)
        except httpx.ReadTimeout:
            why = f"the platform did not answer within {self.answer_s:.0f} s"
            await run_in_threadpool(self.queue.unanswered, event.id, why)
            return _told(504, why)
        except httpx.HTTPError:
            why = "the platform cut the connection before it answered"
            await run_in_threadpool(self.queue.unanswered, event.id, why)
            return _told(502, why)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        return await self._answer(event, answer)

    def _dropped(self, event: Event) -> Response:
        kept = self.queue.drop(event.id, "")
        hold = self.queue.holds().get(event.workflow)
        if kept.state is State.DROPPED and (hold is None or hold.policy != "discard"):
            return _told(503, "paused before it was done; send it again later", retry=True, event=event.id)
        return _kept(kept)

    async def _answer(self, event: Event, answer: httpx.Response) -> Response:
        if answer.status_code in (403, 404):
            body = b"".join([part async for part in answer.aiter_raw()])
            await answer.aclose()
            path = wire.path_of(answer.request.url.raw_path)
            if wire.says_paused(answer.status_code, body, method=event.method, path=path):
                said = f"the platform says {answer.status_code}: paused"
                found = await run_in_threadpool(self.queue.not_taken, event.id, answer.status_code, said)
                if found.state is not State.PASSED:
                    return _kept(found)
            else:
                await run_in_threadpool(self.queue.answered, event.id, answer.status_code)
            return _unchanged(answer, body)
        await run_in_threadpool(self.queue.answered, event.id, answer.status_code)
        return _unchanged(answer, None)

    async def _pass_through(self, request: Request, path: str, query: str, body: bytes) -> Response:
        headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in wire.received(request.headers.raw)]
        outgoing = httpx.Request(request.method, wire.target(self.upstream, path, query), headers=headers, content=body)
        try:
            answer = await self._client.send(outgoing, stream=True)
        except httpx.HTTPError:
            return _told(502, "the platform cannot be reached", retry=True)
        return _unchanged(answer, None)

    async def _known(self) -> tuple[Route, ...]:
        if time.monotonic() - self._routes_at > ROUTES_S:
            self._routes = await run_in_threadpool(self.queue.routes)
            self._routes_at = time.monotonic()
        return self._routes

    async def _prune(self) -> None:
        while True:
            with suppress(IngressError):
                before = datetime.now(UTC) - timedelta(days=self.keep_days)
                await run_in_threadpool(self.queue.prune, before)
            await asyncio.sleep(PRUNE_S)


def _unchanged(answer: httpx.Response, body: bytes | None) -> Response:
    """The platform's answer, byte by byte; ``body`` where it was read already."""
    headers = wire.returned(answer.headers.raw)
    made: Response
    if body is None:
        made = StreamingResponse(_raw(answer), status_code=answer.status_code)
    else:
        made = Response(body, status_code=answer.status_code)
    made.raw_headers = headers
    return made


async def _raw(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()


def _kept(event: Event) -> Response:
    """What a sender hears of an event that is not passed on now."""
    if event.state is State.REJECTED:
        return _told(503, "paused; send it again later", retry=True, event=event.id)
    if event.state in (State.DISCARDED, State.DROPPED):
        return _told(202, "paused; recorded, and not done later", event=event.id)
    return _told(202, "paused; kept, and done once it resumes", event=event.id)


def _told(status: int, what: str, *, retry: bool = False, event: str | None = None) -> Response:
    told = {"message": what} | ({"event": event} if event else {})
    return JSONResponse(told, status_code=status, headers={"retry-after": str(RETRY_AFTER_S)} if retry else None)
