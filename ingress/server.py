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
from functools import partial
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
NOTE_AGAIN_S = (0.2, 1.0, 5.0, 15.0, 30.0, 60.0)
"""Pauses before it is tried again to note how an event ended."""
SWEEP_S = 60.0
"""How often, and how old, events are looked for whose end could not be noted at all."""

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
    _flying: set[str] = field(default_factory=set)
    _late: dict[str, asyncio.Task[None]] = field(default_factory=dict)
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
            beside = [asyncio.create_task(self._prune()), asyncio.create_task(self._sweep())]
            yield
            beside += self._late.values()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

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
        except IngressError:
            # Nothing may pass that is not written down: the sender tries again.
            return _told(503, "the event could not be written down; send it again", retry=True)
        if event.state is not State.PASSING:
            return _kept(event)
        self._flying.add(event.id)
        try:
            return await self._forward(event)
        finally:
            self._flying.discard(event.id)

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
        handed_on = False
        asked = asyncio.create_task(self._client.send(outgoing, stream=True))
        try:
            while not (await asyncio.wait({asked}, timeout=LOOK_S))[0]:
                # It is on its way: what the queue cannot tell now changes nothing, the platform's answer counts.
                with suppress(IngressError):
                    if (told := await run_in_threadpool(self._dropped, event.id)) is not None:
                        return told
            made = await self._answer(event, asked.result())
            handed_on = True
            return made
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            why = "the platform cannot be reached"
            found = await self._note(event, self.queue.not_taken, None, why, keep=False)
            if found is None or found.state is State.TURNED_AWAY:
                return _told(502, why, retry=True)
            return _kept(found)
        except httpx.ReadTimeout:
            why = f"the platform did not answer within {self.answer_s:.0f} s"
            await self._note(event, self.queue.unanswered, why)
            return _told(504, why)
        except httpx.HTTPError:
            why = "the platform cut the connection before it answered"
            await self._note(event, self.queue.unanswered, why)
            return _told(502, why)
        finally:
            if not handed_on:
                await _abandon(asked)

    def _dropped(self, event_id: str) -> Response | None:
        """What the sender hears of an event that the pause dropped; ``None`` when it did not."""
        if self.queue.event(event_id).state is not State.DROPPED:
            return None
        kept = self.queue.drop(event_id, "")
        hold = self.queue.holds().get(kept.workflow)
        if kept.state is State.DROPPED and (hold is None or hold.policy != "discard"):
            return _told(503, "paused before it was done; send it again later", retry=True, event=event_id)
        return _kept(kept)

    async def _answer(self, event: Event, answer: httpx.Response) -> Response:
        status = answer.status_code
        if status not in (403, 404):
            await self._note(event, self.queue.answered, status)
            return _unchanged(answer, None)
        body = b"".join([part async for part in answer.aiter_raw()])
        path = wire.path_of(answer.request.url.raw_path)
        if wire.says_paused(status, body, method=event.method, path=path):
            why = f"the platform says {status}: paused"
            found = await self._note(event, self.queue.not_taken, status, why, keep=False)
            if found is not None and found.state is not State.PASSED:
                return _kept(found)
        else:
            await self._note(event, self.queue.answered, status)
        await answer.aclose()
        return _unchanged(answer, body)

    async def _note(self, event: Event, note: Callable[..., Event], *what: Any, **late: Any) -> Event | None:
        """Write down how an event ended; returns how it stands then. ``None`` when that cannot be done now: the sender
        hears what the platform said, so it must not be kept as well, and with ``late`` it is tried again beside."""
        try:
            return await run_in_threadpool(note, event.id, *what)
        except IngressError:
            again = partial(note, event.id, *what, **late)
            self._late[event.id] = asyncio.create_task(self._note_late(event.id, again))
            return None

    async def _note_late(self, event_id: str, note: Callable[[], Event]) -> None:
        try:
            for pause_s in NOTE_AGAIN_S:
                await asyncio.sleep(pause_s)
                with suppress(IngressError):
                    await run_in_threadpool(note)
                    return
        finally:
            del self._late[event_id]

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

    async def _sweep(self) -> None:
        """What this process passed on, and has no hand on any more, does not stay on its way for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            before, beside = datetime.now(UTC) - timedelta(seconds=SWEEP_S), {*self._flying, *self._late}
            with suppress(IngressError):
                await run_in_threadpool(self.queue.give_up, before, beside)

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


async def _abandon(asked: asyncio.Task[httpx.Response]) -> None:
    """Nobody wants the answer: nothing of it stays open."""
    asked.cancel()
    with suppress(asyncio.CancelledError, httpx.HTTPError):
        await (await asked).aclose()


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
