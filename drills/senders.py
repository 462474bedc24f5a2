"""How events reach the app: webhooks that hold and retry as real senders do, and people who write by SQL.

A 200 means that the app took responsibility for the event, once and for all. A 404, a 503 or a refused connection means
that it did not: the sender keeps the event and tries again. Any other answer is ambiguous: counted, never sent again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
from psycopg import errors

from drills.events import PATHS, Event, Kind

RETRY_S = 0.5
RETRIES_PER_S = 25.0
"""All senders together: the more they hold, the less often each tries, so that retries are no load of their own."""
POLL_S = 0.04
POLL_LATE_S = 0.25
LATE_S = 2.0

EFFECTS = {
    Kind.ORDER: "SELECT id::text FROM desk.order_items WHERE id = ANY(%s::uuid[])",
    Kind.PAYMENT: "SELECT id::text FROM desk.payments WHERE id = ANY(%s::uuid[])",
    Kind.STATUS: "SELECT id::text FROM desk.status_changes WHERE id = ANY(%s::uuid[])",
    Kind.TIDY: "SELECT id::text FROM desk.tidy_ups WHERE id = ANY(%s::uuid[])",
}
"""Where the effect of a webhook's run shows, by the key in its payload."""

STAFF_SQL = {
    Kind.NOTE: "UPDATE desk.orders SET note = %s WHERE id = %s",
    Kind.TAG: "UPDATE desk.orders SET tags = array_append(tags, %s) WHERE id = %s",
    Kind.ATTRIBUTE: "UPDATE desk.orders SET attributes = attributes || %s::jsonb WHERE id = %s",
    Kind.STAFF_STATUS: "UPDATE desk.orders SET status = %s::desk.order_status WHERE id = %s",
}


@dataclass(kw_only=True)
class Traffic:
    """What was sent, taken and held. ``accepted`` is in the order of acceptance, which within a lane is the order of
    effect, because a lane's next event waits for the effect of the one before."""

    accepted: list[tuple[str, Event]] = field(default_factory=list)
    """(phase, event)"""
    held: set[str] = field(default_factory=set)
    held_ever: int = 0
    ambiguous: list[str] = field(default_factory=list)
    phase: str = "start"
    last_taken: float = 0.0
    """Monotonic time of the last 200 of order intake."""
    taken_asked: float = 0.0
    """Monotonic time at which the newest order that was taken had been sent: an answer may come long after the app
    stopped taking orders, from a run that was under way."""
    refusals: int = 0
    """404 answers of order intake since its last 200."""


class Senders:
    """All senders of a drill; they note in ``traffic`` what the app took."""

    def __init__(self, *, n8n_url: str, staff_dsn: str, judge_dsn: str, traffic: Traffic) -> None:
        self.traffic = traffic
        self._http = httpx.AsyncClient(base_url=f"{n8n_url.rstrip('/')}/webhook", timeout=30.0)
        self._staff_dsn, self._judge_dsn = staff_dsn, judge_dsn
        self._lanes: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._pending: dict[str, tuple[Kind, float, asyncio.Event]] = {}
        self._staff: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
        self._open: list[psycopg.AsyncConnection] = []
        self._watcher: asyncio.Task[None] | None = None
        self.staff_gate = asyncio.Event()
        self.staff_gate.set()
        self._writing = 0
        self._posting = 0

    async def start(self, *, people: int = 3) -> None:
        """Connect; ``people`` write by SQL at the same time."""
        for _ in range(people):
            connection = await psycopg.AsyncConnection.connect(self._staff_dsn, autocommit=True)
            self._open.append(connection)
            self._staff.put_nowait(connection)
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._watcher:
            self._watcher.cancel()
        await self._http.aclose()
        for connection in self._open:
            await connection.close()

    @property
    def unfinished(self) -> int:
        """Events taken whose effect does not show yet."""
        return len(self._pending)

    @property
    def under_way(self) -> int:
        """Events that the app is asked to take, and those it took whose effect does not show yet."""
        return len(self._pending) + self._posting

    def waits(self, row: str) -> bool:
        """Whether an event about this row is under way or waits for the row to be there again."""
        return any(lane[0] == row and lock.locked() for lane, lock in self._lanes.items())

    async def send(self, event: Event, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Bring one event to the app: wait for its lane, deliver it, wait for its effect. False if ``until`` became
        true before the app took it."""
        async with self._lanes[event.lane]:
            taken = await (self._post(event, until) if event.kind in PATHS else self._write(event, until))
            if taken and event.kind in EFFECTS:
                await self._effect(event)
            return taken

    async def quiet_staff(self) -> None:
        """Keep people from writing until ``staff_gate`` is set again; returns when nobody writes."""
        self.staff_gate.clear()
        while self._writing:
            await asyncio.sleep(0.01)

    async def _post(self, event: Event, until: Callable[[], bool]) -> bool:
        counts = event.kind is Kind.ORDER
        while not until():
            self._posting += 1
            asked = time.monotonic()
            try:
                answer = await self._http.post(f"/{PATHS[event.kind]}", json=event.body)
                code = answer.status_code
            except httpx.ConnectError:
                code = httpx.codes.NOT_FOUND
            except httpx.HTTPError:
                code = 0
            finally:
                self._posting -= 1
            if code == httpx.codes.OK:
                self._taken(event)
                if counts:
                    self.traffic.last_taken, self.traffic.refusals = time.monotonic(), 0
                    self.traffic.taken_asked = max(self.traffic.taken_asked, asked)
                return True
            if code not in (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE):
                self.traffic.ambiguous.append(f"{event.key}: HTTP {code}")
                self.traffic.held.discard(event.key)
                return False
            if counts and code == httpx.codes.NOT_FOUND:
                self.traffic.refusals += 1
            if event.key not in self.traffic.held:
                self.traffic.held.add(event.key)
                self.traffic.held_ever += 1
            await asyncio.sleep(max(RETRY_S, len(self.traffic.held) / RETRIES_PER_S))
        self.traffic.held.discard(event.key)
        return False

    async def _write(self, event: Event, until: Callable[[], bool]) -> bool:
        """A person's write; an order that is not there (yet) is looked for again later."""
        while not until():
            await self.staff_gate.wait()
            connection = await self._staff.get()
            self._writing += 1
            try:
                statement, values = _statement(event)
                cursor = await connection.execute(statement.encode(), values)
                done = cursor.rowcount == 1
            except (errors.DeadlockDetected, errors.LockNotAvailable, errors.QueryCanceled):
                done = False
            except psycopg.Error as error:
                self.traffic.ambiguous.append(f"{event.key}: {type(error).__name__}: {error}")
                return False
            finally:
                self._writing -= 1
                self._staff.put_nowait(connection)
            if done:
                self._taken(event)
                return True
            await asyncio.sleep(RETRY_S)
        return False

    def _taken(self, event: Event) -> None:
        self.traffic.held.discard(event.key)
        self.traffic.accepted.append((self.traffic.phase, event))

    async def _effect(self, event: Event) -> None:
        key = _effect_key(event)
        shown = asyncio.Event()
        self._pending[key] = (event.kind, time.monotonic(), shown)
        await shown.wait()

    async def _watch(self) -> None:
        """Look for the effects waited for, by one query per kind."""
        async with await psycopg.AsyncConnection.connect(self._judge_dsn, autocommit=True) as connection:
            self._open.append(connection)
            while True:
                now = time.monotonic()
                fresh = any(now - since < LATE_S for _, since, _ in self._pending.values())
                await asyncio.sleep(POLL_S if fresh or not self._pending else POLL_LATE_S)
                for kind, statement in EFFECTS.items():
                    keys = [key for key, (k, _, _) in self._pending.items() if k is kind]
                    if keys:
                        cursor = await connection.execute(statement.encode(), [keys])
                        for (key,) in await cursor.fetchall():
                            self._pending.pop(key)[2].set()


def _effect_key(event: Event) -> str:
    match event.kind:
        case Kind.ORDER:
            return str(event.body["items"][0]["id"])
        case Kind.PAYMENT:
            return str(event.body["payment_id"])
        case Kind.TIDY:
            return str(event.body["tidy_id"])
        case _:
            return str(event.body["change_id"])


def _statement(event: Event) -> tuple[str, list[Any]]:
    body = event.body
    match event.kind:
        case Kind.DELIVERY:
            return (
                "INSERT INTO desk.deliveries (id, sku, quantity, arrived_at) VALUES (%s, %s, %s, %s)",
                [event.row, body["sku"], body["quantity"], body["arrived_at"]],
            )
        case Kind.NOTE:
            value = body["note"]
        case Kind.TAG:
            value = body["tag"]
        case Kind.ATTRIBUTE:
            value = json.dumps(body["attributes"])
        case _:
            value = body["status"]
    return STAFF_SQL[event.kind], [value, event.row]
