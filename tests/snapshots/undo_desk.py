"""A small journaled shop for the tests of undo and carry: foreign keys, triggers, a counter, exact types."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from snapshots import database
from snapshots.journal import install
from snapshots.model import Applied, Policy, RunRef, TableSpec, UndoPreview, UndoSpec
from snapshots.undo.undo import applied, apply, preview

CUSTOMERS = TableSpec(name="shop.customers", key=("id",))
ORDERS = TableSpec(
    name="shop.orders",
    key=("id",),
    suppress=("orders_gross", "orders_touch"),
    references=((("customer_id",), "shop.customers", ("id",)),),
)
ITEMS = TableSpec(name="shop.items", key=("order_id", "line"))
STOCK = TableSpec(name="shop.stock", key=("sku",), additive=("qty",))
PAYMENTS = TableSpec(name="shop.payments", key=("id",), references=((("order_id",), "shop.orders", ("id",)),))
TABLES = (CUSTOMERS, ORDERS, ITEMS, STOCK, PAYMENTS)

SCHEMA = """
CREATE SCHEMA shop;
CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent');
CREATE TABLE shop.customers (id int PRIMARY KEY, email text UNIQUE, note text);
CREATE TABLE shop.orders (
    id text PRIMARY KEY,
    customer_id int REFERENCES shop.customers (id),
    state shop.state NOT NULL DEFAULT 'new',
    total numeric(12, 2) NOT NULL,
    gross numeric,
    tags int[],
    meta jsonb,
    note text,
    raw json,
    code character(4),
    touched int NOT NULL DEFAULT 0,
    shout text GENERATED ALWAYS AS (upper(id)) STORED,
    serial bigint GENERATED ALWAYS AS IDENTITY
);
CREATE TABLE shop.items (
    order_id text REFERENCES shop.orders (id), line int, sku text, qty int NOT NULL, PRIMARY KEY (order_id, line)
);
CREATE TABLE shop.stock (sku text PRIMARY KEY, qty int, note text);
CREATE TABLE shop.payments (id int PRIMARY KEY, order_id text, amount numeric, status text);
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER orders_touch BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE FUNCTION shop.gross() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE shop.orders SET gross = NEW.total * 1.2 WHERE id = NEW.id AND gross IS DISTINCT FROM NEW.total * 1.2;
    RETURN NULL;
END $$;
CREATE TRIGGER orders_gross AFTER INSERT OR UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.gross();
"""
ROWS = """
INSERT INTO shop.customers SELECT n, 'c' || n || '@example.com' FROM generate_series(1, 9) n;
INSERT INTO shop.orders (id, customer_id, total, tags, meta, note, raw, code)
    SELECT 'o' || n, n % 9 + 1, n * 1.5, ARRAY[n, n + 1], jsonb_build_object('n', n), 'first', '{"a":  1}', 'ab'
    FROM generate_series(1, 40) n;
INSERT INTO shop.items SELECT 'o' || n, 1, 'sku' || n % 3, 1 FROM generate_series(1, 40) n;
INSERT INTO shop.stock SELECT 'sku' || n, 100, 'first' FROM generate_series(0, 2) n;
INSERT INTO shop.payments SELECT n, 'o' || n, n, 'open' FROM generate_series(1, 10) n;
"""
GRANTS = """
GRANT USAGE ON SCHEMA shop TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO capturer;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO recoverer, wf_bad, wf_good, clerk;
"""
BAD, GOOD, CLERK = "wf_bad", "wf_good", "clerk"


@dataclass
class Desk:
    """Connections of the actors and of the product's roles. ``act`` returns the transaction's number."""

    pg: Any
    connections: dict[str, psycopg.Connection[Any]]
    cancelled: tuple[int, ...] = ()
    steps: int = 0

    @property
    def recoverer(self) -> psycopg.Connection[Any]:
        return self.connections["recoverer"]

    @property
    def capturer(self) -> psycopg.Connection[Any]:
        return self.connections["capturer"]

    def connect(self, role: str) -> psycopg.Connection[Any]:
        return database.connect(self.pg.dsn(DATABASE, role), purpose="test")

    def act(self, role: str, run: str | None, *statements: str) -> int:
        conn = self.connections[role]
        with conn.transaction():
            if run:
                conn.execute("SELECT set_config('reinstate.run', %s, true)", (run,))
            for statement in statements:
                conn.execute(statement.encode())
            row = conn.execute("SELECT pg_current_xact_id()::text").fetchone()
        return int(row[0]) if row else 0

    def bad(self, *statements: str, run: str = "bad-1") -> int:
        return self.act(BAD, run, *statements)

    def good(self, *statements: str, run: str = "good-1") -> int:
        return self.act(GOOD, run, *statements)

    def clerk(self, *statements: str) -> int:
        return self.act(CLERK, None, *statements)

    def value(self, query: str) -> Any:
        with self.capturer.transaction():
            row = self.capturer.execute(query.encode()).fetchone()
        return row[0] if row else None

    def dump(self, *tables: TableSpec) -> dict[str, list[str]]:
        with self.capturer.transaction():
            return {
                table.name: [
                    row[0]
                    for row in self.capturer.execute(f"SELECT t::text FROM {table.name} AS t ORDER BY 1".encode())
                ]
                for table in tables or TABLES
            }

    def spec(self, *runs: str, xids: Sequence[int] = (), **changes: Any) -> UndoSpec:
        """The bad workflow's runs (default: its first), and transactions."""
        refs = [RunRef(actor=BAD, run=run) for run in runs or (() if xids else ("bad-1",))]
        if xids:
            refs.append(RunRef(actor="?", run=None, xids=tuple(xids)))
        base = UndoSpec(
            tables=TABLES, runs=tuple(refs), policy=Policy.REFUSE, cancelled=self.cancelled, max_deleted_share=1.0
        )
        return replace(base, **changes)

    def preview(self, spec: UndoSpec) -> UndoPreview:
        return preview(self.capturer, spec)

    def undo(self, spec: UndoSpec, **changes: Any) -> Applied:
        """Plan as the capturer, apply as the recoverer, and prove that nothing is left to undo."""
        planned = self.preview(spec)
        self.steps += 1
        done = apply(
            self.recoverer,
            spec,
            **{
                "recovery_id": "rec-1",
                "step": f"undo-{self.steps}",
                "plan_hash": "hash",
                "expected": planned.counts,
                **changes,
            },
        )
        assert applied(self.recoverer, done.recovery_id, done.step) == done
        self.recoverer.rollback()
        self.cancelled = (*self.cancelled, done.xid)
        again = self.preview(replace(spec, cancelled=self.cancelled))
        assert again.empty, again.counts
        return done


TEMPLATE, DATABASE = "undo_template", "undo_app"
ROLES = ("installer", "capturer", "recoverer", BAD, GOOD, CLERK)


def build(pg: Any) -> Desk:
    """A fresh shop on server ``pg``: a copy of one that is made once."""
    with psycopg.connect(pg.superuser_dsn(), autocommit=True) as admin:
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone():
            _make_template(pg, admin)
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)".encode())
        admin.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE} OWNER installer".encode())
    return Desk(pg=pg, connections={role: database.connect(pg.dsn(DATABASE, role), purpose="test") for role in ROLES})


def _make_template(pg: Any, admin: psycopg.Connection[Any]) -> None:
    for role in ROLES:
        pg.create_role(role)
    admin.execute("GRANT pg_monitor TO capturer, recoverer")
    pg.create_database(TEMPLATE, owner="installer")
    with database.connect(pg.dsn(TEMPLATE, "installer"), purpose="test") as owner:
        for statements in (SCHEMA, ROWS, GRANTS):
            owner.execute(statements.encode())
        owner.commit()
        install.install(owner, TABLES, capturer="capturer", recoverer="recoverer")


def close(desk: Desk) -> None:
    for conn in desk.connections.values():
        conn.close()
    desk.pg.drop_database(DATABASE)
