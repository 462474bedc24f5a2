"""The oracle: what the database must hold when every legitimate event was handled once, by the good version.

Written from what the events mean, not from the workflows; runs in a database of its own, which no role of the product
may open.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import psycopg

from drills.events import Event, Kind


class Oracle:
    """Applies events in the order given. ``dsn`` opens the oracle database as the role that owns it."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn)
        self._applied: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def apply(self, events: Iterable[Event], *, undelivered: Collection[str] = ()) -> None:
        """Apply the events not applied before, then book all deliveries but the ``undelivered`` ones. Commits."""
        for event in events:
            if event.key not in self._applied:
                self._applied.add(event.key)
                self._one(event)
        self._book(list(undelivered))
        self._connection.commit()

    def _one(self, event: Event) -> None:
        body, row = event.body, event.row
        match event.kind:
            case Kind.ORDER:
                self._order(body)
            case Kind.PAYMENT:
                self._run(
                    "INSERT INTO desk.payments (id, order_id, amount, paid_at) VALUES (%s, %s, %s, %s)",
                    body["payment_id"], row, body["amount"], body["paid_at"],
                )  # fmt: skip
                self._run("UPDATE desk.orders SET paid = paid + %s WHERE id = %s", body["amount"], row)
                self._run("UPDATE desk.orders SET status = 'paid' WHERE id = %s AND paid >= total", row)
            case Kind.STATUS:
                self._run(
                    "INSERT INTO desk.status_changes (id, order_id, status, changed_at) VALUES (%s, %s, %s, %s)",
                    body["change_id"], row, body["status"], body["changed_at"],
                )  # fmt: skip
                self._run("UPDATE desk.orders SET status = %s WHERE id = %s", body["status"], row)
            case Kind.DELIVERY:
                self._run(
                    "INSERT INTO desk.deliveries (id, sku, quantity, arrived_at) VALUES (%s, %s, %s, %s)",
                    row, body["sku"], body["quantity"], body["arrived_at"],
                )  # fmt: skip
            case Kind.TIDY:
                self._tidy(row, body)
            case Kind.NOTE:
                self._run("UPDATE desk.orders SET note = %s WHERE id = %s", body["note"], row)
            case Kind.TAG:
                self._run("UPDATE desk.orders SET tags = tags || %s::text WHERE id = %s", body["tag"], row)
            case Kind.ATTRIBUTE:
                added = json.dumps(body["attributes"])
                self._run("UPDATE desk.orders SET attributes = attributes || %s::jsonb WHERE id = %s", added, row)
            case Kind.STAFF_STATUS:
                self._run("UPDATE desk.orders SET status = %s WHERE id = %s", body["status"], row)

    def _order(self, body: dict[str, Any]) -> None:
        articles = self._connection.execute(
            "SELECT sku, price FROM desk.products WHERE sku = ANY(%s)", [[i["sku"] for i in body["items"]]]
        ).fetchall()
        prices: dict[str, Decimal] = {sku: price for sku, price in articles}  # noqa: C416 - rows are typed as Any
        total = sum((prices[i["sku"]] * i["quantity"] for i in body["items"]), Decimal(0))
        self._run(
            "INSERT INTO desk.orders (id, customer_id, reference, status, total, placed_at, region, attributes, tags)"
            " VALUES (%s, %s, %s, 'new', %s, %s, %s, %s::jsonb, %s)",
            body["order_id"], body["customer_id"], body["reference"], total, body["placed_at"], body["region"],
            json.dumps(body["attributes"]), body["tags"],
        )  # fmt: skip
        for item in body["items"]:
            self._run(
                "INSERT INTO desk.order_items (id, order_id, sku, quantity, unit_price) VALUES (%s, %s, %s, %s, %s)",
                item["id"], body["order_id"], item["sku"], item["quantity"], prices[item["sku"]],
            )  # fmt: skip
            self._run("UPDATE desk.products SET stock = stock - %s WHERE sku = %s", item["quantity"], item["sku"])

    def _book(self, undelivered: list[str]) -> None:
        arrived = self._connection.execute(
            "UPDATE desk.deliveries SET applied = true WHERE NOT applied AND id <> ALL(%s::uuid[])"
            " RETURNING sku, quantity",
            [undelivered],
        ).fetchall()
        for sku, quantity in arrived:
            self._run(
                "UPDATE desk.products SET stock = stock + %s, received = received + %s WHERE sku = %s",
                quantity, quantity, sku,
            )  # fmt: skip

    def _tidy(self, tidy_id: str, body: dict[str, Any]) -> None:
        """Of one region, the cancelled orders that nobody paid and that are old enough, with all that is theirs."""
        old = [
            r[0]
            for r in self._connection.execute(
                "SELECT id FROM desk.orders WHERE region = %s AND placed_at < %s AND status = 'cancelled' AND paid = 0",
                [body["region"], body["placed_before"]],
            )
        ]
        for table in ("desk.order_items", "desk.status_changes"):
            self._run(f"DELETE FROM {table} WHERE order_id = ANY(%s)", old)  # noqa: S608 - two fixed names
        self._run("DELETE FROM desk.orders WHERE id = ANY(%s)", old)
        self._run(
            "INSERT INTO desk.tidy_ups (id, region, placed_before, removed, requested_at) VALUES (%s, %s, %s, %s, %s)",
            tidy_id, body["region"], body["placed_before"], len(old), body["requested_at"],
        )  # fmt: skip

    def _run(self, statement: str, *values: object) -> None:
        self._connection.execute(statement.encode(), values)
