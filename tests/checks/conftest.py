"""A small shop for the tests of this room: orders, items, stock; two workflow roles."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from catalog.models import App
from snapshots import database, position
from snapshots.journal import install
from snapshots.model import Position
from tests.conftest import AppDb

SCHEMA = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (
        id bigint PRIMARY KEY, ref text, customer text NOT NULL, total numeric(12, 2) NOT NULL,
        status text NOT NULL DEFAULT 'new', placed_at timestamptz NOT NULL DEFAULT now());
    CREATE INDEX ON shop.orders (ref);
    CREATE TABLE shop.items (
        order_id bigint, line int, qty int NOT NULL, price numeric(12, 2) NOT NULL, PRIMARY KEY (order_id, line));
    CREATE TABLE shop.stock (sku text PRIMARY KEY, level int NOT NULL);
    GRANT USAGE ON SCHEMA shop TO capturer, recoverer, wf_intake, wf_payment;
    GRANT SELECT ON ALL TABLES IN SCHEMA shop TO capturer, recoverer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO wf_intake, wf_payment, recoverer;
"""
HISTORY = """
    INSERT INTO shop.orders (id, ref, customer, total, placed_at)
    SELECT g, 'ref-' || g, 'c' || g % 50, 40 + g % 21, now() - interval '1 hour' - g * interval '3 minutes'
    FROM generate_series(1, 1000) g;
    INSERT INTO shop.items SELECT id, 1, 1, total FROM shop.orders;
    INSERT INTO shop.stock SELECT 'sku-' || g, 100 FROM generate_series(1, 5) g;
"""


@pytest.fixture
def shop(app_db: AppDb) -> AppDb:
    """The shop with its history, without a journal."""
    for role in ("wf_intake", "wf_payment"):
        app_db.role(role)
    with psycopg.connect(app_db.installer) as connection:
        connection.execute(SCHEMA)
        connection.execute(HISTORY)
    return app_db


@pytest.fixture
def suite_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write suites as ``name -> (table, expectations)``; returns their folder."""

    def write(**suites: tuple[str, list[dict[str, Any]]]) -> Path:
        folder = tmp_path / "checks"
        folder.mkdir(exist_ok=True)
        for name, (table, expectations) in suites.items():
            content = {"name": name, "table": table, "expectations": expectations}
            (folder / f"{name}.json").write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture
def intake(shop: AppDb) -> Iterator[psycopg.Connection]:
    """What the order intake's credential may do."""
    with psycopg.connect(shop.dsn("wf_intake"), autocommit=True) as connection:
        yield connection


def app_of(*detectors: dict[str, Any]) -> App:
    """The shop's catalogue with the given detectors."""
    people = {"owner": "ada", "deputy": "grace"}
    return App.model_validate(
        {
            "key": "shop",
            "title": "Shop",
            **people,
            "platform": {"kind": "fake", "url": "env:URL", "api_key": "env:KEY"},
            "database": {"installer": "env:I", "capturer": "env:C", "recoverer": "env:R"},
            "objectives": {"rto_s": 60, "rpo_s": 60},
            "workflows": [
                {
                    "key": "intake",
                    "name": "Order intake",
                    "role": "wf_intake",
                    "trigger": {"kind": "webhook"},
                    "downstream": ["payment"],
                    "writes": ["shop.orders", "shop.items.qty"],
                    **people,
                },
                {
                    "key": "payment",
                    "name": "Payment",
                    "role": "wf_payment",
                    "trigger": {"kind": "webhook"},
                    "reads": ["shop.orders.total"],
                    "writes": ["shop.orders.status"],
                    **people,
                },
            ],
            "tables": [
                {"name": "shop.orders", "event_time": "placed_at", "unique": [["ref"]]},
                {"name": "shop.items"},
                {"name": "shop.stock"},
            ],
            "detectors": list(detectors),
        }
    )


@dataclass(frozen=True)
class Journaled:
    """A journaled shop: the watcher's connection, and the position before anything happened."""

    db: AppDb
    watcher: psycopg.Connection[Any]
    since: Position

    def here(self) -> Position:
        found = position.current(self.watcher)
        self.watcher.rollback()
        return found


@pytest.fixture
def journaled(shop: AppDb) -> Iterator[Journaled]:
    with database.connect(shop.installer, purpose="test") as installer:
        specs = database.tables(installer, app_of().tables)
        installer.rollback()
        install.install(installer, specs, capturer="capturer", recoverer="recoverer")
    with database.connect(shop.capturer, purpose="watch") as watcher:
        since = position.current(watcher)
        watcher.rollback()
        yield Journaled(shop, watcher, since)
