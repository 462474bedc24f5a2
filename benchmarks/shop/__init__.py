"""The shop that is measured: six tables with foreign keys, secondary indexes, a trigger, exact and wide types."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from psycopg import Connection

from benchmarks.scale import Sizes
from snapshots.model import TableSpec

_HERE: Final = Path(__file__).parent
SCHEMA: Final = (_HERE / "schema.sql").read_text(encoding="utf-8")
ROWS: Final = (_HERE / "rows.sql").read_text(encoding="utf-8")
KEYS: Final = (_HERE / "keys.sql").read_text(encoding="utf-8")
VERSION: Final = hashlib.sha256((SCHEMA + ROWS + KEYS).encode()).hexdigest()[:8]
"""Part of a template's name: another shop is another template."""

TABLES: Final = (
    TableSpec(name="shop.customers", key=("id",)),
    TableSpec(name="shop.products", key=("id",)),
    TableSpec(
        name="shop.orders",
        key=("id",),
        suppress=("orders_touch",),
        references=((("customer_id",), "shop.customers", ("id",)),),
    ),
    TableSpec(
        name="shop.order_items",
        key=("order_id", "line"),
        references=((("order_id",), "shop.orders", ("id",)), (("product_id",), "shop.products", ("id",))),
    ),
    TableSpec(name="shop.payments", key=("id",), references=((("order_id",), "shop.orders", ("id",)),)),
    TableSpec(name="shop.events", key=("id",), references=((("customer_id",), "shop.customers", ("id",)),)),
)
NAMES: Final = tuple(t.name for t in TABLES)


def build(owner: Connection[Any], sizes: Sizes) -> None:
    """Make the shop in an empty database (role: installer, which owns the database). Commits."""
    for table in ("customers", "products", "orders", "payments", "events"):
        owner.execute("SELECT set_config(%s, %s, false)", (f"bench.{table}", str(getattr(sizes, table))))
    for text in (SCHEMA, ROWS, KEYS):
        owner.execute(text.encode())
    owner.commit()
    owner.autocommit = True
    owner.execute("VACUUM (FREEZE, ANALYZE)")
    owner.autocommit = False
