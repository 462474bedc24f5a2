"""Events of the order desk's outside world, and the world they come from.

Keys and business times are in the payload, so that the same event can be applied twice over: by the app, and by the
oracle. All choices come from one seeded generator.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

import psycopg

BAD_STATUS = "on_hold"
"""What the bad version writes over old orders. No event sets it, so that a wrong value is never right by chance."""
KEPT_FOR = timedelta(days=715)
"""The desk has cancelled orders removed that are older."""
STATUSES = ("picking", "packed", "shipped", "delivered")
REGIONS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
TARGETS_PER_REGION = 36
RECALLED_PER_REGION = 3


class Kind(StrEnum):
    """What happens outside. The first four come by webhook, the others are people at work in the database."""

    ORDER = "order"
    PAYMENT = "payment"
    STATUS = "status"
    TIDY = "tidy-up"
    DELIVERY = "delivery"
    NOTE = "note"
    TAG = "tag"
    ATTRIBUTE = "attribute"
    STAFF_STATUS = "staff-status"


PATHS = {Kind.ORDER: "order-intake", Kind.PAYMENT: "payment", Kind.STATUS: "status-change", Kind.TIDY: "tidy-up"}
LANES = {Kind.NOTE: "note", Kind.TAG: "tags", Kind.ATTRIBUTE: "attributes", Kind.DELIVERY: "delivery"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event. ``body`` is what is sent (by webhook) or written (by staff); ``row`` the order, delivery or tidy-up it
    is about."""

    key: str
    kind: Kind
    row: str
    body: dict[str, Any] = field(repr=False)

    @property
    def lane(self) -> tuple[str, str]:
        """Events of one lane touch the same value and must happen one after the other. What a tidy-up removes, the
        next one of the region no longer finds."""
        if self.kind is Kind.TIDY:
            return str(self.body["region"]), "tidy-up"
        return self.row, LANES.get(self.kind, "order")

    @property
    def edits(self) -> bool:
        """Whether it changes an order that exists already."""
        return self.kind not in (Kind.ORDER, Kind.DELIVERY, Kind.TIDY)

    def cells(self) -> list[tuple[str, str, str]]:
        """What must be right afterwards, as (table, key, column); column ``*`` is the whole row. Stock is the sum of
        many events and belongs to none."""
        orders = "desk.orders"
        match self.kind:
            case Kind.ORDER:
                items = [("desk.order_items", str(i["id"]), "*") for i in self.body["items"]]
                return [(orders, self.row, c) for c in ("id", "customer_id", "reference", "total", "placed_at")] + items
            case Kind.PAYMENT:
                return [("desk.payments", self.body["payment_id"], "*"), (orders, self.row, "paid"),
                        (orders, self.row, "status")]  # fmt: skip
            case Kind.STATUS:
                return [("desk.status_changes", self.body["change_id"], "*"), (orders, self.row, "status")]
            case Kind.DELIVERY | Kind.TIDY:
                return [("desk.deliveries" if self.kind is Kind.DELIVERY else "desk.tidy_ups", self.row, "*")]
            case Kind.STAFF_STATUS:
                return [(orders, self.row, "status")]
            case _:
                return [(orders, self.row, LANES[self.kind])]


@dataclass(kw_only=True, slots=True)
class Target:
    """An old order of the kind the bad version hits."""

    id: str
    region: str
    status: str
    due: Decimal


@dataclass(kw_only=True)
class World:
    """Who and what takes part. ``targets`` alternate between the regions; ``recalled`` are cancelled orders of the last
    months that staff still talk about with their customers."""

    rng: random.Random
    customers: Sequence[str]
    prices: dict[str, Decimal]
    targets: Sequence[Target]
    recalled: Sequence[str] = ()
    orders: int = 0
    edits: int = 0
    tidied: int = 0

    def order(self, *, check_s: float = 0.0) -> Event:
        """A new order of one to three articles, at least two of one of them. ``check_s`` is how long somebody looks
        at it while its run waits."""
        self.orders += 1
        skus = self.rng.sample(sorted(self.prices), self.rng.randint(1, 3))
        items = [{"id": self._uuid(), "sku": s, "quantity": self.rng.randint(1, 4)} for s in skus]
        items[0]["quantity"] = self.rng.randint(2, 5)
        order_id = self._uuid()
        body = {
            "event_id": f"order-{order_id}",
            "order_id": order_id,
            "customer_id": self.rng.choice(self.customers),
            "reference": f"WEB-{order_id[:8].upper()}",
            "placed_at": _now(),
            "region": REGIONS[self.orders % len(REGIONS)],
            "attributes": {"channel": "shop", "gift": self.rng.random() < 0.1},
            "tags": ["web"] if self.rng.random() < 0.7 else ["web", "express"],
            "items": items,
            **({"check_s": check_s} if check_s else {}),
        }
        return Event(key=str(body["event_id"]), kind=Kind.ORDER, row=order_id, body=body)

    def total(self, order: Event) -> Decimal:
        """What the customer was quoted for an order."""
        return sum((self.prices[i["sku"]] * i["quantity"] for i in order.body["items"]), Decimal(0))

    def payment(self, order_id: str, amount: Decimal) -> Event:
        key = self._uuid()
        body = {"payment_id": key, "order_id": order_id, "amount": str(amount), "paid_at": _now()}
        return Event(key=f"payment-{key}", kind=Kind.PAYMENT, row=order_id, body={"event_id": f"payment-{key}", **body})

    def status(self, order_id: str, status: str) -> Event:
        key = self._uuid()
        body = {"change_id": key, "order_id": order_id, "status": status, "changed_at": _now()}
        return Event(key=f"status-{key}", kind=Kind.STATUS, row=order_id, body={"event_id": f"status-{key}", **body})

    def delivery(self) -> Event:
        key = self._uuid()
        body = {"sku": self.rng.choice(sorted(self.prices)), "quantity": self.rng.randint(10, 90), "arrived_at": _now()}
        return Event(key=f"delivery-{key}", kind=Kind.DELIVERY, row=key, body=body)

    def tidy_up(self) -> Event:
        """The desk asks for one region to be tidied up; the regions take turns."""
        key, asked = self._uuid(), datetime.now(UTC)
        self.tidied += 1
        body = {
            "event_id": f"tidy-up-{key}",
            "tidy_id": key,
            "region": REGIONS[self.tidied % len(REGIONS)],
            "placed_before": (asked - KEPT_FOR).isoformat(timespec="microseconds"),
            "requested_at": asked.isoformat(timespec="microseconds"),
        }
        return Event(key=f"tidy-up-{key}", kind=Kind.TIDY, row=key, body=body)

    def staff_edit(self, kind: Kind, order_id: str, status: str = "") -> Event:
        """A person's edit, always to a value not there before."""
        self.edits += 1
        body: dict[str, Any]
        match kind:
            case Kind.NOTE:
                body = {"note": f"Customer called, matter {self.edits}"}
            case Kind.TAG:
                body = {"tag": f"called-{self.edits}"}
            case Kind.ATTRIBUTE:
                body = {"attributes": {"matter": self.edits}}
            case _:
                body = {"status": status}
        return Event(key=f"{kind}-{self.edits}", kind=kind, row=order_id, body=body)

    def another_status(self, target: Target) -> str:
        """Move a target on to a status it does not have, and remember it."""
        target.status = self.rng.choice([s for s in STATUSES if s != target.status])
        return target.status

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))


def look(dsn: str, seed: int | None) -> World:
    """The world as the app's database knows it, read as the judge's role. Without ``seed``: new keys every time."""
    rng = random.Random(seed)  # noqa: S311 - keys of a drill, no secrets
    with psycopg.connect(dsn) as connection:
        customers = [str(r[0]) for r in connection.execute("SELECT id FROM desk.customers ORDER BY id LIMIT 500")]
        articles = connection.execute("SELECT sku, price FROM desk.products WHERE sku LIKE 'SKU-%'").fetchall()
        prices: dict[str, Decimal] = {sku: price for sku, price in articles}  # noqa: C416 - rows are typed as Any
        rows = connection.execute(
            """
            SELECT id::text, region, status::text, total - paid
            FROM (
                SELECT *, row_number() OVER (PARTITION BY region ORDER BY id) AS n
                FROM desk.orders
                WHERE placed_at BETWEEN now() - interval '41 days' AND now() - interval '31 days' AND status <> %s
                    AND status <> 'cancelled'
            ) AS old
            WHERE n <= %s ORDER BY n, region
            """,
            [BAD_STATUS, TARGETS_PER_REGION],
        ).fetchall()
        recalled = connection.execute(
            """
            SELECT id::text
            FROM (
                SELECT *, row_number() OVER (PARTITION BY region ORDER BY placed_at DESC) AS n
                FROM desk.orders
                WHERE placed_at BETWEEN now() - interval '300 days' AND now() - interval '5 days'
                    AND status = 'cancelled' AND paid = 0
            ) AS lately
            WHERE n <= %s ORDER BY n, region
            """,
            [RECALLED_PER_REGION],
        ).fetchall()
    targets = [Target(id=i, region=r, status=s, due=d) for i, r, s, d in rows]
    return World(rng=rng, customers=customers, prices=prices, targets=targets, recalled=[str(r[0]) for r in recalled])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
