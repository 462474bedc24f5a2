"""Discovery on live parts: the example app, and an app of nothing but webhooks and a database by following the page."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql

from catalog.load import load
from console import exits
from drills.events import look
from drills.n8n_api import N8nApi
from drills.order_desk import EXAMPLE, OrderDesk
from estate import secrets
from estate.postgres_programs import installation
from snapshots.points import points
from snapshots.store.store import Store
from tests.conftest import RunningEstate
from tests.discovery.test_order_desk_drafted import assert_equal

pytestmark = [pytest.mark.live, pytest.mark.n8n]

PAGE = Path(__file__).parents[2] / "docs" / "first-app.md"
PATIENCE_S = 40.0
APP = "shop"
SCHEMA = """
    CREATE TABLE rooms (room text PRIMARY KEY, name text NOT NULL, free integer NOT NULL);
    CREATE TABLE bookings (
        id uuid PRIMARY KEY, number text NOT NULL, guest_email text NOT NULL, room text NOT NULL REFERENCES rooms,
        nights integer NOT NULL, placed_at timestamptz NOT NULL, cancelled boolean NOT NULL DEFAULT false);
    CREATE TABLE visits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, booking_id uuid REFERENCES bookings);
    INSERT INTO rooms SELECT 'r' || g, 'Room ' || g, 10 FROM generate_series(1, 20) g;
    INSERT INTO bookings SELECT gen_random_uuid(), 'B-' || g, 'guest' || g || '@example.com', 'r' || 1 + g % 20,
        1 + g % 7, now() - g * interval '1 hour' FROM generate_series(1, 200) g;
    INSERT INTO visits (booking_id) SELECT id FROM bookings;
"""
BOOK = """INSERT INTO bookings (id, number, guest_email, room, nights, placed_at)
VALUES ('{{ $json.body.id }}', '{{ $json.body.number }}', '{{ $json.body.email }}', '{{ $json.body.room }}',
        {{ $json.body.nights }}, '{{ $json.body.placed_at }}')"""
TAKE = "UPDATE rooms SET free = free - 1 WHERE room = '{{ $('Webhook').first().json.body.room }}'"
CANCEL = "UPDATE bookings SET cancelled = true WHERE id = '{{ $json.body.id }}'"


def eventually(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def workflow(name: str, path: str, credential: str, **statements: str) -> dict[str, Any]:
    """A webhook, then one node of SQL after the other."""
    nodes: list[dict[str, Any]] = [
        {"id": "0", "name": "Webhook", "type": "n8n-nodes-base.webhook", "typeVersion": 2, "position": [0, 0],
         "webhookId": str(uuid4()), "parameters": {"httpMethod": "POST", "path": path, "options": {}}}
    ]  # fmt: skip
    for number, (node, statement) in enumerate(statements.items(), 1):
        nodes.append(
            {"id": str(number), "name": node, "type": "n8n-nodes-base.postgres", "typeVersion": 2.6,
             "position": [200 * number, 0], "parameters": {"operation": "executeQuery", "query": f"={statement}",
                                                            "options": {}},
             "credentials": {"postgres": {"id": credential, "name": "shop"}}}
        )  # fmt: skip
    names = [n["name"] for n in nodes]
    links = {a: {"main": [[{"node": b, "type": "main", "index": 0}]]} for a, b in pairwise(names)}
    return {"name": name, "nodes": nodes, "connections": links, "settings": {"executionOrder": "v1"}}


@dataclass(frozen=True, kw_only=True)
class Shop:
    """An app that nobody has described, and a home without anything of it."""

    estate: RunningEstate
    home: Path
    environment: dict[str, str]

    def send(self, path: str, body: dict[str, Any]) -> None:
        url = f"{self.estate.addresses.n8n_url}/webhook/{path}"
        eventually(lambda: httpx.post(url, json=body, timeout=60).status_code == 200, f"{path} is never taken")

    def count(self, query: str) -> int:
        with psycopg.connect(self.estate.addresses.superuser_dsn(APP)) as admin:
            row = admin.execute(query.encode()).fetchone()
        return int(row[0]) if row else 0

    def run(self, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """One command of the page, as a shell would start it."""
        words = [re.sub(r"\$(\w+)", lambda m: self.environment[m[1]], w) for w in shlex.split(line)]
        if words[0] == "reinstate":
            words[:1] = [sys.executable, "-m", "console"]
        return subprocess.run(
            words, env=self.environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False
        )


@pytest.fixture
def shop(estate: RunningEstate, tmp_path: Path) -> Iterator[Shop]:
    at = estate.addresses
    with psycopg.connect(at.superuser_dsn("postgres"), autocommit=True) as admin:
        admin.execute("CREATE ROLE shop LOGIN PASSWORD 'shop'")
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER shop").format(sql.Identifier(APP)))
    dsn = f"postgresql://shop:shop@{at.pg_host}:{at.pg_port}/{APP}"
    with psycopg.connect(dsn) as owner:
        owner.execute(SCHEMA.encode())
    home = tmp_path / "home"
    secrets.write(home / secrets.FILE, {"SHOP_URL": at.n8n_url, "SHOP_KEY": at.n8n_api_key, "SHOP_DB": dsn})
    programs = str(installation() / "bin")
    made = Shop(
        estate=estate,
        home=home,
        environment={
            **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REINSTATE_"))},
            "REINSTATE_HOME": str(home),
            "ADMIN": at.superuser_dsn(APP),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(PAGE.parents[1]),
        },
    )
    with N8nApi(at.n8n_url, at.n8n_api_key) as api:
        credential = api.create_credential(
            "shop",
            {"host": at.pg_host, "port": at.pg_port, "database": APP, "user": "shop", "password": "shop",
             "ssl": "disable", "allowUnauthorizedCerts": False, "sshTunnel": False, "maxConnections": 4},
        )  # fmt: skip
        ids = [
            api.create_workflow(workflow("Take booking", "shop-book", credential, Write=BOOK, Take=TAKE)),
            api.create_workflow(workflow("Cancel booking", "shop-cancel", credential, Cancel=CANCEL)),
        ]
        try:
            for found in ids:
                api.activate(found)
            yield made
        finally:
            for found in ids:
                api.delete_workflow(found)
            api.delete_credential(credential)
            with psycopg.connect(at.superuser_dsn("postgres"), autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(APP)))
                own = admin.execute(
                    "SELECT rolname FROM pg_roles WHERE rolname LIKE 'shop%' OR rolname IN "
                    "('wf_take_booking', 'wf_cancel_booking') ORDER BY rolname DESC"
                ).fetchall()
                for (role,) in own:
                    admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_an_app_of_webhooks_and_a_database_has_a_verified_point_by_following_the_page(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's own commands, in order, and nothing else."""
    bookings = [
        {"id": str(uuid4()), "number": f"N-{n}", "email": f"new{n}@example.com", "room": f"r{n + 1}", "nights": 2,
         "placed_at": "2026-11-01T10:00:00Z"} for n in range(6)
    ]  # fmt: skip
    for body in bookings:
        shop.send("shop-book", body)
    shop.send("shop-cancel", {"id": bookings[0]["id"], "asked_at": "2026-11-02T10:00:00Z"})
    eventually(lambda: shop.count("SELECT count(*) FROM bookings WHERE cancelled") == 1, "the events have no effect")
    eventually(lambda: shop.count("SELECT 200 - sum(free) FROM rooms") == len(bookings), "the events have no effect")
    commands = re.findall(r"^\$ (.+)$", PAGE.read_text(), re.MULTILINE)
    assert [c.split()[0] for c in commands[:5]] == ["reinstate", "psql", "reinstate", "reinstate", "reinstate"]
    began = time.monotonic()
    for line in commands[:5]:
        ran = shop.run(line, tmp_path)
        assert ran.returncode == exits.OK, f"$ {line}\n{ran.stderr}{ran.stdout}"
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\nfrom nothing to a verified point in {seconds:.1f} s")
    assert seconds < 600
    point = points.latest_verified(Store(str(shop.home / "store")), APP)
    assert point is not None
    assert {t.name: t.rows for t in point.tables} == {
        "public.rooms": 20, "public.bookings": 206, "public.visits": 200,
    }  # fmt: skip
    app = load(tmp_path / APP).apps[0]
    assert {w.key: (set(w.writes), w.trigger.kind) for w in app.workflows} == {
        "take-booking": ({"public.bookings", "public.rooms.free"}, "webhook"),
        "cancel-booking": ({"public.bookings.cancelled"}, "webhook"),
    }
    assert app.workflow("take-booking").trigger.event_key == "body.id"
    assert app.table("public.rooms").additive == ("free",)
    assert app.table("public.bookings").unique == (("number",),)
    assert app.table("public.bookings").subject == "guest_email"
    assert "guest_email" not in app.table("public.bookings").public
    assert (tmp_path / APP / "run-tags.md").read_text().count("reinstate.run") == 3
    kept = secrets.read(shop.home / secrets.FILE)
    for name in ("SHOP_DB_RECOVERER", "SHOP_DB_WF_TAKE_BOOKING"):
        with psycopg.connect(kept[name]) as connection:
            connection.execute("SELECT count(*) FROM public.bookings")
        password = kept[name].split(":")[2].partition("@")[0]
        assert password not in (tmp_path / APP / "roles.sql").read_text()
    _again(shop, tmp_path)


def _again(shop: Shop, folder: Path) -> None:
    """The app grows: what is new is found, what a person has stays, and what no longer fits is named."""
    before = (folder / APP / "catalog.yaml").read_bytes()
    with psycopg.connect(shop.estate.addresses.superuser_dsn(APP)) as admin:
        admin.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
        admin.execute("CREATE TRIGGER surprise BEFORE UPDATE ON rooms FOR EACH ROW EXECUTE FUNCTION f()")
        admin.execute("CREATE TABLE notes (booking_id uuid REFERENCES bookings, note text)")
        admin.execute("GRANT SELECT ON notes TO shop_capturer")
    ran = shop.run(f"reinstate check --catalog {APP} --json", folder)
    assert ran.returncode == exits.REFUSED, ran.stdout + ran.stderr
    errors = [f for f in json.loads(ran.stdout)["findings"] if f["severity"] == "error"]
    assert [f["object"] for f in errors] == ["table public.rooms"]
    assert "surprise" in errors[0]["what"]
    ran = shop.run(f"reinstate discover --catalog {APP} --json", folder)
    assert ran.returncode == exits.OK, ran.stdout + ran.stderr
    assert json.loads(ran.stdout)["added"] == ["tables[public.notes]"]
    assert (folder / APP / "catalog.yaml").read_bytes() == before
    assert load(folder / APP / "catalog.discovered.yaml").apps[0].table("public.notes")


def test_discovery_of_the_live_order_desk_says_what_a_person_wrote(estate: RunningEstate, tmp_path: Path) -> None:
    at = estate.addresses
    desk = OrderDesk(superuser_dsn=at.superuser_dsn, n8n_url=at.n8n_url, n8n_key=at.n8n_api_key, home=estate.home)
    desk.provision()
    world = look(secrets.read(desk.driver_file)["DRIVER_DB_JUDGE"], 7)
    orders = [world.order() for _ in range(6)]
    sent = [("order-intake", order.body) for order in orders]
    for order in orders:
        sent += [("payment", world.payment(order.row, world.total(order)).body)]
        sent += [("status-change", world.status(order.row, "packed").body), ("tidy-up", world.tidy_up().body)]
    for path, body in sent:
        url = f"{at.n8n_url}/webhook/{path}"
        eventually(lambda u=url, b=body: httpx.post(u, json=b, timeout=60).status_code == 200, f"{path}: never taken")
    with N8nApi(at.n8n_url, at.n8n_api_key) as api:
        eventually(lambda: api.in_flight() == 0, "runs never end")
    arguments = (
        "discover --app order-desk --platform n8n --url env:ORDER_DESK_N8N_URL --key env:ORDER_DESK_N8N_KEY "
        f"--database env:ORDER_DESK_DB_INSTALLER --out {tmp_path} --json"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "console", *shlex.split(arguments)],
        env={**os.environ, "REINSTATE_HOME": str(estate.home)},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert ran.returncode == exits.OK, ran.stdout + ran.stderr
    assert_equal(load(tmp_path).apps[0], load(EXAMPLE).apps[0])
    assert any("desk_staff" in d["where"] for d in json.loads(ran.stdout)["unsure"])
