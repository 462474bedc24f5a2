"""A small app for the tests of recovery points: customers with orders, a log without a key, a platform that is told."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from platforms.base import (
    Capabilities,
    Credential,
    Definition,
    Entry,
    EntryKind,
    Health,
    Node,
    Outline,
    Run,
    RunState,
    Version,
    WorkflowInfo,
)
from platforms.canonical import digest
from platforms.fake_model import FORGETFUL
from snapshots import database, roles
from snapshots.capture import capture
from snapshots.journal import install
from snapshots.model import RecoveryPoint, TableSpec
from snapshots.store.store import Store

CUSTOMERS = TableSpec(name="shop.customers", key=("id",))
ORDERS = TableSpec(
    name="shop.orders",
    key=("id",),
    suppress=("orders_touch",),
    references=((("customer_id",), "shop.customers", ("id",)),),
)
LOG = TableSpec(name="shop.log", key=())
TABLES = (CUSTOMERS, ORDERS, LOG)

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL UNIQUE,
    shout text GENERATED ALWAYS AS (upper(email)) STORED
);
CREATE TABLE shop.orders (
    id serial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES shop.customers (id),
    total numeric(12, 2) NOT NULL,
    note jsonb,
    touched timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shop.log (at timestamptz, line text);
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.touched := clock_timestamp(); RETURN NEW; END $$;
CREATE TRIGGER orders_touch BEFORE UPDATE OR INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();
"""
ROWS = """
INSERT INTO shop.customers (email) SELECT 'c' || n || '@example.com' FROM generate_series(1, 20) n;
INSERT INTO shop.orders (customer_id, total, note)
    SELECT 1 + n % 20, n * 1.10, CASE WHEN n % 3 = 0 THEN jsonb_build_object('n', n) END FROM generate_series(1, 200) n;
INSERT INTO shop.log SELECT '2026-01-01'::timestamptz, 'line ' || n % 3 FROM generate_series(1, 9) n;
INSERT INTO shop.log VALUES (NULL, NULL), (NULL, ''), (NULL, NULL);
"""
HASH = "a" * 64
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Told:
    """A platform that answers what the test tells it; ``after_read`` may change the answers as time goes by."""

    def __init__(self) -> None:
        self.live: dict[str, str | None] = {"w1": HASH, "w2": None}
        self.in_flight: list[Run] = []
        self.ended: list[Run] = []
        self.after_read: Callable[[int], None] = lambda _: None
        self.reads = 0

    def health(self) -> Health:
        return Health(ok=True, detail="", now=NOW)

    def workflows(self) -> list[WorkflowInfo]:
        self.reads += 1
        self.after_read(self.reads)
        names = {"w1": "Order intake", "w2": "Stock sync"}
        return [WorkflowInfo(id=i, name=names[i], active=bool(h)) for i, h in self.live.items()]

    def live_version(self, workflow_id: str) -> Version | None:
        content = self.live[workflow_id]
        return content and Version(workflow_id=workflow_id, hash=content, definition={"nodes": [workflow_id]})

    def draft_version(self, workflow_id: str) -> Version:
        return Version(workflow_id=workflow_id, hash="d" * 64, definition={"nodes": ["draft"]})

    @property
    def capabilities(self) -> Capabilities:
        return FORGETFUL

    def outline(self, definition: Definition) -> Outline:
        """The nodes' names stand for all there is to read."""
        hook = Entry(kind=EntryKind.WEBHOOK, node="hook", method="POST", path="/orders")
        nodes = tuple(Node(name=str(n), kind="x", calls=("w9",), credentials=("desk",)) for n in definition["nodes"])
        return Outline(name="", entries=(hook,), nodes=nodes, links=())

    def hashes(self, definition: Definition) -> tuple[str, str]:
        return digest(definition), "e" * 64

    def credentials(self, workflow_id: str) -> list[Credential]:  # noqa: ARG002 - the port's signature
        return []

    def runs(
        self, workflow_id: str | None = None, *, since: datetime | None = None, states: Sequence[RunState] = ()
    ) -> list[Run]:
        known = self.in_flight if states else self.in_flight + self.ended
        return [r for r in known if workflow_id in (None, r.workflow_id) and (not since or r.started_at)]


WORKFLOWS = {"order-intake": "Order intake", "stock-sync": "Stock sync"}


def run_of(workflow_id: str, run_id: str, state: RunState = RunState.RUNNING) -> Run:
    return Run(id=run_id, workflow_id=workflow_id, state=state, started_at=NOW, stopped_at=None)


def build(app: Any, *, journal: bool = True) -> None:
    """Schema and rows as the installer, the grants of `reinstate roles`, and the journal."""
    with psycopg.connect(app.installer) as conn:
        conn.execute(SCHEMA)
        conn.execute(ROWS)
    with psycopg.connect(app.superuser) as conn:
        conn.execute(roles.sql(database=app.name, tables=[t.name for t in TABLES]).encode())
    if journal:
        with database.connect(app.installer, purpose="test") as conn:
            keyed = [t for t in TABLES if t.key]
            install.install(conn, keyed, capturer="capturer", recoverer="recoverer")


def take(
    app: Any, folder: Path, *, passed: bool = True, tables: Sequence[TableSpec] = TABLES
) -> tuple[RecoveryPoint, Store]:
    store = Store(str(folder))
    point = capture.capture(
        app.capturer, tables, WORKFLOWS, Told(), store, app="desk", verify=lambda _: {"passed": passed}
    )
    return point, store


def write(app: Any, *statements: str) -> None:
    """What the app does between capture and restore; the owner's connection stands for its roles."""
    with psycopg.connect(app.installer) as conn:
        for statement in statements:
            conn.execute(statement)


def image(app: Any, *tables: str) -> dict[str, list[Any]]:
    """Every row as its exact text, in order."""
    with psycopg.connect(app.installer) as conn:
        conn.execute("SET TimeZone = 'UTC'")
        return {t: conn.execute(f"SELECT t::text FROM {t} t ORDER BY 1").fetchall() for t in tables}


def without(spec: TableSpec, **changes: Any) -> TableSpec:
    return replace(spec, **changes)
