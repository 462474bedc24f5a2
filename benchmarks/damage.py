"""What goes wrong in the measured shop, by roles of the app: scattered damage, a bad run, a clerk's work after it."""

from __future__ import annotations

from typing import Final

from psycopg import Connection, sql

from benchmarks.site import CLERK, WORKFLOW, Database

RUN: Final = "bad-run"
RUN_ROWS: Final = 100_000
_GRAIN: Final = 1 << 24

_SCATTERED: Final = (
    # Of each table the same share; of the three that others do not reference, rows are also deleted and doubled.
    "UPDATE shop.customers SET balance = balance - 10, profile = '{{}}' WHERE {hash} < {all}",
    "UPDATE shop.orders SET status = 'lost', total = total * 1.21 WHERE {hash} < {all} AND {spared}",
    "UPDATE shop.order_items SET qty = qty + 1, price = price * 1.1 WHERE {hash} < {some}",
    "DELETE FROM shop.order_items WHERE {hash} >= {some} AND {hash} < {more}",
    "INSERT INTO shop.order_items SELECT order_id, line + 100, title, product_id, qty, price, discount, meta"
    " FROM shop.order_items WHERE {hash} >= {more} AND {hash} < {all}",
    "UPDATE shop.events SET payload = payload || '{{\"ms\": -1}}' WHERE {hash} < {some}",
    "DELETE FROM shop.events WHERE {hash} >= {some} AND {hash} < {more}",
    # Doubles whose payment does not exist: orphans.
    "INSERT INTO shop.events SELECT md5('twice' || id)::uuid, customer_id, md5('nobody' || id)::uuid, kind, at, payload"
    " FROM shop.events WHERE {hash} >= {more} AND {hash} < {all}",
    "UPDATE shop.payments SET amount = 0 WHERE {hash} < {some}",
    # Their events become orphans, too.
    "DELETE FROM shop.payments WHERE {hash} >= {some} AND {hash} < {more}",
    "INSERT INTO shop.payments SELECT md5('twice' || id)::uuid, order_id, amount, method, paid_at"
    " FROM shop.payments WHERE {hash} >= {more} AND {hash} < {all}",
)
SPARED_EVERY: Final = 1000
SPARED: Final = f"id % {SPARED_EVERY} = 0"
"""Orders that scattered damage leaves alone: a concurrent writer of a benchmark has them for itself."""


def scatter(db: Database, share: float, *, role: str = WORKFLOW) -> int:
    """Damage ``share`` of all rows, scattered, as the workflow; returns how many rows it wrote."""
    bounds = {"some": 0.6, "more": 0.8, "all": 1.0}
    limits = {name: sql.Literal(round(part * share * _GRAIN)) for name, part in bounds.items()}
    rows = 0
    with db.open(role) as conn:
        _tag(conn)
        for text in _SCATTERED:
            key = "order_id::text || ' ' || line" if "order_items" in text else "id::text"
            statement = sql.SQL(text).format(
                hash=sql.SQL(f"(hashtextextended({key}, 5) & {_GRAIN - 1})"),
                spared=sql.SQL(f"NOT ({SPARED})"),
                **limits,
            )
            rows += conn.execute(statement).rowcount
        conn.commit()
    return rows


_RUN: Final = (
    (0.45, "UPDATE shop.order_items SET qty = qty + 1, price = price * 1.1 WHERE (order_id, line) IN"
     " (SELECT order_id, line FROM shop.order_items"
     " ORDER BY hashtextextended(order_id::text || ' ' || line, 3) LIMIT {n})"),
    (0.20, "UPDATE shop.orders SET status = 'lost', total = total * 1.21 WHERE id IN"
     " (SELECT id FROM shop.orders ORDER BY hashint8extended(id, 3) LIMIT {n})"),
    (0.15, "INSERT INTO shop.payments SELECT md5('twice' || id)::uuid, order_id, amount, method, paid_at"
     " FROM shop.payments ORDER BY uuid_hash_extended(id, 3) LIMIT {n}"),
    (0.10, "INSERT INTO shop.events SELECT md5('twice' || id)::uuid, customer_id, NULL, kind, at, payload"
     " FROM shop.events ORDER BY uuid_hash_extended(id, 3) LIMIT {n}"),
    (0.10, "DELETE FROM shop.events WHERE id IN"
     " (SELECT id FROM shop.events ORDER BY uuid_hash_extended(id, 4) LIMIT {n})"),
)  # fmt: skip


def bad_run(db: Database, rows: int = RUN_ROWS) -> int:
    """One run of the workflow that writes ``rows`` rows of four tables at once; returns how many it wrote."""
    wrote = 0
    with db.open(WORKFLOW) as conn:
        _tag(conn)
        for part, text in _RUN:
            wrote += conn.execute(sql.SQL(text).format(n=sql.Literal(round(part * rows)))).rowcount
        conn.commit()
    return wrote


def later_work(db: Database, rows: int) -> int:
    """A clerk gives ``rows`` of the lines that the run repriced a discount: work that an undo must keep."""
    with db.open(CLERK) as conn:
        wrote = conn.execute(
            "UPDATE shop.order_items SET discount = 7.25 WHERE (order_id, line) IN (SELECT order_id, line"
            " FROM shop.order_items ORDER BY hashtextextended(order_id::text || ' ' || line, 3) LIMIT %s)",
            (rows,),
        ).rowcount
        conn.commit()
    return wrote


def _tag(conn: Connection) -> None:
    conn.execute("SELECT set_config('reinstate.run', %s, true)", (RUN,))
