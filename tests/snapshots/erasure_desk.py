"""A shop with people in it: who is erased, what hangs on them, and the journal and points that remember them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from snapshots import database, roles
from snapshots.capture import capture
from snapshots.erasure import apply, erasure, find
from snapshots.erasure import plan as erasure_plan
from snapshots.erasure.find import Who
from snapshots.journal import install
from snapshots.model import RecoveryPoint, TableSpec
from snapshots.store.store import Store
from tests.snapshots.point_desk import WORKFLOWS, Told

PERSON = "ann.marsh@example.com"
PEOPLE = TableSpec(name="shop.people", key=("id",))
ORDERS = TableSpec(name="shop.orders", key=("id",), references=((("person",), "shop.people", ("id",)),))
LINES = TableSpec(name="shop.lines", key=("order_id", "no"), references=((("order_id",), "shop.orders", ("id",)),))
TICKETS = TableSpec(name="shop.tickets", key=("id",), references=((("asked_by",), "shop.people", ("id",)),))
MAILS = TableSpec(name="shop.mails", key=())
TABLES = (PEOPLE, ORDERS, LINES, TICKETS, MAILS)
SUBJECTS = {"shop.people": "email", "shop.mails": "recipient"}

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.people (id bigint PRIMARY KEY, email text NOT NULL, name text);
CREATE TABLE shop.orders (id int PRIMARY KEY, person bigint NOT NULL REFERENCES shop.people (id), total numeric(12, 2));
CREATE TABLE shop.lines (order_id int REFERENCES shop.orders (id) ON DELETE CASCADE, no int, what text,
    PRIMARY KEY (order_id, no));
CREATE TABLE shop.tickets (id int PRIMARY KEY, asked_by bigint REFERENCES shop.people (id) ON DELETE SET NULL,
    text text);
CREATE TABLE shop.mails (at timestamptz, recipient text, subject text);
INSERT INTO shop.people SELECT n, 'p' || n || '@example.com', 'Person ' || n FROM generate_series(1, 40) n;
INSERT INTO shop.people VALUES (77, 'ann.marsh@example.com', 'Ann Marsh');
INSERT INTO shop.orders SELECT n, 1 + n % 40, n * 1.5 FROM generate_series(1, 100) n;
INSERT INTO shop.orders VALUES (700, 77, 10), (701, 77, 20);
INSERT INTO shop.lines SELECT n, 1, 'thing' FROM generate_series(1, 100) n;
INSERT INTO shop.lines VALUES (700, 1, 'gift for ann'), (700, 2, 'card'), (701, 1, 'book');
INSERT INTO shop.tickets VALUES (1, 77, 'where is it?'), (2, 3, 'thanks');
INSERT INTO shop.mails VALUES (now(), 'ann.marsh@example.com', 'Hello'), (now(), 'p3@example.com', 'Hello');
"""
DELETE = (
    "DELETE FROM shop.mails WHERE recipient = 'ann.marsh@example.com'",
    "DELETE FROM shop.orders WHERE person = 77",
    "DELETE FROM shop.people WHERE id = 77",
)


def build(app: Any, *, journal: bool = True) -> None:
    with psycopg.connect(app.installer) as conn:
        conn.execute(SCHEMA)
    with psycopg.connect(app.superuser) as conn:
        conn.execute(roles.sql(database=app.name, tables=[t.name for t in TABLES]).encode())
    if not journal:
        return
    with database.connect(app.installer, purpose="test") as conn:
        install.install(conn, TABLES, capturer="capturer", recoverer="recoverer")


def write(app: Any, *statements: str) -> None:
    with psycopg.connect(app.installer) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def touch(app: Any) -> None:
    """Images of the person in the journal: an order more, a name changed, a line."""
    write(
        app,
        "UPDATE shop.people SET name = 'A. Marsh' WHERE id = 77",
        "INSERT INTO shop.orders VALUES (702, 77, 30)",
        "INSERT INTO shop.lines VALUES (702, 1, 'lamp')",
        "UPDATE shop.people SET name = 'P. One' WHERE id = 1",
        "UPDATE shop.tickets SET text = 'where is it, please?' WHERE id = 1",
    )


def store_at(folder: Path, home: Path, *, secret: bytes | None = b"pepper") -> Store:
    store = Store(str(folder))
    store.guard = erasure.Guard(secret=secret, beside=home / "erased")
    return store


def take(app: Any, store: Store, **options: Any) -> RecoveryPoint:
    return capture.capture(
        app.capturer,
        TABLES,
        WORKFLOWS,
        Told(),  # type: ignore[arg-type]
        store,
        app="desk",
        verify=lambda _: {"passed": True},
        **options,
    )


def plan(app: Any, store: Store, who: Who) -> erasure_plan.ErasePlan:
    with database.connect(app.installer, purpose="test") as conn:
        return erasure_plan.plan(conn, store, "desk", find.find(conn, store, "desk", TABLES, who))


def erase(app: Any, store: Store, who: Who | None = None) -> apply.Erased:
    who = who or person()
    made = plan(app, store, who)
    with database.connect(app.installer, purpose="test") as conn:
        return apply.apply(conn, store, "desk", TABLES, who, plan_hash=made.plan_hash, by="ada", reason="asked")


def person(value: str = PERSON, **options: Any) -> Who:
    return Who(value=value, subjects=SUBJECTS, **options)


def everything(app: Any, *folders: Path) -> bytes:
    """All that is stored of the app's past: every object unpacked, and every table of the journal's schema as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts: list[bytes] = []
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            data = path.read_bytes()
            parts += [str(path.relative_to(folder)).encode(), data]
            if path.suffix == ".parquet":
                parts.append(repr(pq.read_table(pa.BufferReader(data)).to_pylist()).encode())
    with psycopg.connect(app.superuser) as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'reinstate'::regnamespace AND relkind = 'r'"
        ).fetchall()
        for (name,) in tables:
            rows = conn.execute(f'SELECT t::text FROM reinstate."{name}" t'.encode()).fetchall()
            parts += [row[0].encode() for row in rows]
    return b"\n".join(parts)
