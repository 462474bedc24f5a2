"""The traffic of the scenario: who sends what, how fast, in which phase.

Rates suit two cores: n8n handles 15 to 30 runs a second there, and the product has to work beside it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from drills.events import REGIONS, Event, Kind, Target, World
from drills.senders import Senders

STAFF_KINDS = (Kind.NOTE, Kind.TAG, Kind.ATTRIBUTE)
SLOW_S = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
"""How long the orders that are in flight at the publish are checked by hand: some end before the app is contained."""
CALLED, MOVED = 48, 14
BURST = 10
IN_FLIGHT_MOST = 12
"""While the app works on so many events, no new ones are made for webhooks: a slow machine gets a slower story."""
HELD_MOST = 40
"""While so many events are held, no new ones are made for webhooks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Events per second."""

    orders: float
    payments: float
    statuses: float
    staff: float
    staff_statuses: float
    deliveries: float
    paid_share: float
    """Share of new orders that are paid for at once."""
    tidy_ups: float = 0
    recalls: float = 0
    """Staff edits of cancelled orders."""


NORMAL = Rates(orders=4, payments=1, statuses=3, staff=8, staff_statuses=1, deliveries=2, paid_share=0.5)
EXPOSURE = Rates(orders=8, payments=2, statuses=5, staff=25, staff_statuses=3, deliveries=3, paid_share=0.4)
INCIDENT = Rates(orders=1, payments=0.5, statuses=1, staff=5, staff_statuses=1, deliveries=1, paid_share=0.3)
UNPAUSED_INCIDENT = Rates(orders=0, payments=0, statuses=0, staff=5, staff_statuses=1, deliveries=1, paid_share=0)
BUSY = Rates(orders=10, payments=2, statuses=5, staff=15, staff_statuses=2, deliveries=3, paid_share=0.4)
TRUCK = 40
"""Deliveries that arrive at once."""
UNLOADING = replace(EXPOSURE, deliveries=8)
TIDYING = replace(NORMAL, tidy_ups=0.5, recalls=4)
TIDIED = replace(EXPOSURE, tidy_ups=1, recalls=4)
RECALLING = replace(INCIDENT, tidy_ups=0.3, recalls=1)


@dataclass(kw_only=True)
class Cast:
    """The targets by what happens to them. The groups are small, so that the same row is edited before, between and
    after bad runs. ``calls`` overlaps the others: notes, tags and attributes are other columns than the bad version's;
    ``statuses`` and ``staff_statuses`` have the very column edited that it overwrites."""

    calls: Sequence[Target]
    statuses: Sequence[Target]
    staff_statuses: Sequence[Target]
    invoices: list[Target] = field(default_factory=list)

    @classmethod
    def of(cls, targets: Sequence[Target]) -> Cast:
        invoices = [t for t in targets if t.status == "new" and t.due > 0]
        others = [t for t in targets if t not in invoices]
        return cls(
            calls=targets[:CALLED],
            statuses=others[:MOVED],
            staff_statuses=others[MOVED : 2 * MOVED],
            invoices=invoices,
        )


class Story:
    """Starts and stops the tasks of each phase. Tasks of events outlive their phase until the event is handled."""

    def __init__(self, world: World, senders: Senders) -> None:
        self.world, self.senders = world, senders
        self.cast = Cast.of(world.targets)
        self._events: set[asyncio.Task[Any]] = set()
        self._generators: list[asyncio.Task[None]] = []
        self._closing = False
        self._calls = itertools.cycle(self.cast.calls)
        self._statuses = itertools.cycle(self.cast.statuses)
        self._staff_statuses = itertools.cycle(self.cast.staff_statuses)
        self._recalled = itertools.cycle(world.recalled)

    def begin(self, rates: Rates) -> None:
        """Replace the traffic that runs by another."""
        self.halt()
        for rate, by_webhook, make in (
            (rates.orders, True, lambda: self.order(paid=self.world.rng.random() < rates.paid_share)),
            (rates.payments, True, self.invoice),
            (rates.statuses, True, self.status),
            (rates.staff, False, self.call),
            (rates.staff_statuses, False, self.staff_status),
            (rates.deliveries, False, lambda: self._send(self.world.delivery())),
            (rates.tidy_ups, True, lambda: self._send(self.world.tidy_up())),
            (rates.recalls, False, self.recall),
        ):
            if rate:
                self._generators.append(asyncio.create_task(self._every(1 / rate, make, by_webhook)))

    def halt(self) -> None:
        """Make no new events; those under way go on."""
        for task in self._generators:
            task.cancel()
        self._generators.clear()

    def slow_orders(self) -> list[asyncio.Task[Any]]:
        """Orders that are checked by hand: their runs are in flight when the bad version is published."""
        return [self._spawn(self._send(self.world.order(check_s=s))) for s in SLOW_S]

    def burst(self) -> None:
        """Many orders and payments at once, so that good and bad runs overlap."""
        for n in range(BURST):
            self._spawn(self.order(paid=n % 2 == 0, called=n % 4 == 1))
        for _ in range(BURST // 4):
            self._spawn(self.invoice())
            self._spawn(self.status())

    def truck(self) -> None:
        """The supplier's truck: many deliveries are entered at once."""
        for _ in range(TRUCK):
            self._spawn(self._send(self.world.delivery()))

    def tidy_all(self) -> None:
        """The desk has every region tidied up."""
        for _ in REGIONS:
            self._spawn(self._send(self.world.tidy_up()))

    async def finish(self, patience_s: float) -> int:
        """Wait for the events under way, then give up those that the app has not taken. Returns how many had no
        visible effect in time."""
        self.halt()
        if self._events:
            await asyncio.wait(self._events, timeout=patience_s)
        self._closing = True
        if self._events:
            await asyncio.wait(self._events, timeout=2.0)
        left = list(self._events)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return self.senders.unfinished

    async def order(self, *, paid: bool, called: bool = False) -> None:
        """A customer's order; perhaps paid once it shows, perhaps followed by a call that staff note on it."""
        event = self.world.order()
        if not await self._send(event):
            return
        if called:
            await self._send(self.world.staff_edit(self.world.rng.choice(STAFF_KINDS), event.row))
        if paid:
            await self._send(self.world.payment(event.row, self.world.total(event)))

    async def invoice(self) -> None:
        """An old invoice is paid, in one or two parts."""
        if not self.cast.invoices:
            return
        target = self.cast.invoices.pop(0)
        part = (target.due / 2).quantize(Decimal("0.01"))
        for amount in (target.due,) if self.world.rng.random() < 0.6 else (part, target.due - part):
            if amount and not await self._send(self.world.payment(target.id, amount)):
                return

    async def status(self) -> None:
        target = next(self._statuses)
        await self._send(self.world.status(target.id, self.world.another_status(target)))

    async def staff_status(self) -> None:
        target = next(self._staff_statuses)
        await self._send(self.world.staff_edit(Kind.STAFF_STATUS, target.id, self.world.another_status(target)))

    async def call(self) -> None:
        await self._send(self.world.staff_edit(self.world.rng.choice(STAFF_KINDS), next(self._calls).id))

    async def recall(self) -> None:
        """Staff note on a cancelled order; one that is gone meanwhile is looked for until it is back."""
        order = next(self._recalled)
        if not self.senders.waits(order):
            await self._send(self.world.staff_edit(self.world.rng.choice(STAFF_KINDS), order))

    async def _send(self, event: Event) -> bool:
        return await self.senders.send(event, until=lambda: self._closing)

    async def _every(self, pause_s: float, make: Callable[[], Coroutine[Any, Any, Any]], by_webhook: bool) -> None:
        while True:
            if not (by_webhook and self._enough()):
                self._spawn(make())
            await asyncio.sleep(pause_s)

    def _enough(self) -> bool:
        return self.senders.under_way >= IN_FLIGHT_MOST or len(self.senders.traffic.held) >= HELD_MOST

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._events.add(task)
        task.add_done_callback(self._events.discard)
        return task


async def until(condition: Callable[[], bool | Awaitable[bool]], *, timeout_s: float, pause_s: float = 0.1) -> bool:
    """Wait for a condition; False when it did not come true in time."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return True
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(pause_s)
