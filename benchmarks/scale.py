"""How many rows a measurement runs on: ``SCALE=2M`` and its like."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

DEFAULT: Final = "2M"
LEAST: Final = 1_000
_SCALE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmM]?)")
_TIMES: Final = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Rows by table; together about as many as were asked for."""

    customers: int
    products: int
    orders: int
    payments: int
    events: int

    @property
    def order_items(self) -> int:
        """Two or, in every fifth order, three."""
        return 2 * self.orders + self.orders // 5

    @property
    def rows(self) -> int:
        return self.customers + self.products + self.orders + self.order_items + self.payments + self.events


def from_environment() -> int:
    """Rows by the environment's ``SCALE``. Raises ``ValueError`` for one that is not understood."""
    return rows(os.environ.get("SCALE") or DEFAULT)


def rows(text: str) -> int:
    """``200k`` is 200,000, ``2M`` 2,000,000, a bare number itself. Raises ``ValueError`` with one line."""
    found = _SCALE.fullmatch(text.strip())
    number = round(float(found[1]) * _TIMES[found[2].lower()]) if found else 0
    if number < LEAST:
        raise ValueError(f"SCALE={text}: give a number of rows of at least {LEAST}, such as 200k or 8M")
    return number


def label(number: int) -> str:
    """The number as a person would write it: ``2M``, ``500k``."""
    for unit, times in (("M", 1_000_000), ("k", 1_000)):
        if number >= times and number * 10 % times == 0:
            return f"{number / times:g}{unit}"
    return str(number)


def sizes(number: int) -> Sizes:
    """How ``number`` rows are spread over the tables."""
    customers, products, orders, payments = number // 20, max(number // 100, 20), number // 5, number * 12 // 100
    lines = 2 * orders + orders // 5
    return Sizes(
        customers=customers,
        products=products,
        orders=orders,
        payments=payments,
        events=number - customers - products - orders - payments - lines,
    )
