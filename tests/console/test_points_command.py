"""`reinstate points` and `reinstate erase` on a real app: what they say, and that the person is in none of it."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from console import exits
from ingress.queue import Queue
from recovery.context import open_app
from snapshots.erasure import erasure
from snapshots.points import points
from snapshots.store.store import Store
from tests.console import desk as console_desk
from tests.console.desk import Desk
from tests.snapshots import erasure_desk, point_desk

pytestmark = pytest.mark.postgres
EMAIL = "c7@example.com"


@pytest.fixture
def desk(live_desk: Desk, app_db: Any, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A real database with one point of it, and a catalogue that says which column names a person."""
    monkeypatch.setattr("recovery.context.open_platform", console_desk.answering)
    customers, *others = console_desk.APP["tables"]
    monkeypatch.setitem(console_desk.APP, "tables", [{**customers, "subject": "email"}, *others])
    live_desk.write()
    point_desk.take(app_db, live_desk.home / "store")
    return live_desk


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_points_are_listed_shown_and_exported(desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.run("points", "--json") == exits.OK
    [listed] = said(capsys)
    assert (listed["verified"], listed["rows"], listed["method"], listed["held"], listed["proof"]) == (
        True, 232, "full", None, None,
    )  # fmt: skip
    assert desk.run("points", "show", "latest", "--json") == exits.OK
    shown = said(capsys)
    assert {t["table"]: t["rows"] for t in shown["tables"]} == {
        "shop.customers": 20, "shop.orders": 200, "shop.log": 12,
    }  # fmt: skip
    assert shown["sequences"]["shop.orders_id_seq"] == 200
    assert desk.run("points", "show", listed["id"]) == exits.OK
    assert "verified: 0 checks ran, 0 failed" in capsys.readouterr().out

    out = tmp_path / "out"
    assert desk.run("points", "export", "latest", "--to", str(out), "--json") == exits.OK
    assert {f["table"]: f["rows"] for f in said(capsys)["files"]}["shop.orders"] == 200
    with duckdb.connect() as reader:
        path = str(out / "shop.orders.parquet")
        total = reader.execute("SELECT sum(total::decimal(12, 2)) FROM read_parquet(?)", [path]).fetchone()
    assert total is not None
    assert str(total[0]) == "22110.00"
    types = json.loads((out / "schema.json").read_text())["tables"]["shop.orders"]["columns"]
    assert types["total"] == "numeric(12,2)"
    assert desk.run("points", "export", "latest", "--to", str(out)) == exits.REFUSED
    assert [e.body["operation"] for e in desk.entries() if e.kind == "data.applied"] == ["export"]


def test_ranking_asks_for_a_start_and_names_the_best_choice(
    desk: Desk, app_db: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--rank"], ["--incident-start", "2026-01-01"], ["--rank", "--incident-start", "soon"]):
        assert desk.run("points", *wrong) == exits.USAGE
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("UPDATE shop.orders SET total = 1 WHERE id <= 30")
    capsys.readouterr()
    start = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    assert desk.run("points", "--rank", "--incident-start", start, "--json") == exits.OK
    found = said(capsys)
    best = found["choices"][0]
    assert (best["kind"], best["safe"], best["lost"], best["tables"]) == ("point", True, 30, {"shop.orders": 30})
    assert best["actors"][0]["actor"] == "installer"
    assert desk.run("points", "--rank", "--incident-start", "2020-01-01") == exits.NOTHING
    assert "taken after the incident began" in capsys.readouterr().out
    desk.tell(console_desk.OPENED, console_desk.DIAGNOSED)
    assert desk.run("points", "--rank", "--incident", "INC-1") == exits.NOTHING
    assert "holds the first bad transaction" in capsys.readouterr().out
    assert desk.run("points", "--rank", "--incident", "INC-2") == exits.NOTHING


def test_somebody_is_erased_and_named_nowhere(
    desk: Desk, app_db: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*options: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{EMAIL}\n"))
        return desk.run("erase", "--stdin", *options)

    assert desk.run("erase") == exits.USAGE
    assert desk.run("erase", "--subject", EMAIL, "--json") == exits.USAGE
    assert desk.run("erase", "--subject", EMAIL, "--table", "shop.orders") == exits.USAGE
    assert desk.run("erase", "--subject", "nobody", "--table", "shop.orders", "--where", "no") == exits.REFUSED
    assert desk.run("erase", "--subject", "nobody", "--table", "shop.orders", "--where", "note") == exits.NOTHING
    assert "nobody" not in "".join(capsys.readouterr())
    assert asked("--yes") == exits.REFUSED
    assert "still has 1 live row of" in capsys.readouterr().out
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("DELETE FROM shop.orders WHERE customer_id = 7")
        conn.execute("DELETE FROM shop.customers WHERE id = 7")
    assert asked("--dry-run", "--json") == exits.OK
    plan = said(capsys)
    assert {t["table"]: t["rows"] for t in plan["tables"]} == {"shop.customers": 1, "shop.orders": 10}
    assert EMAIL.encode() in erasure_desk.everything(app_db, desk.home)
    with open_app(desk.catalog) as early:
        assert erasure.entries(early.store, "desk") == ()
        erased(desk, app_db, asked, capsys, plan)
        assert len(erasure.entries(early.store, "desk")) == 1  # although it was opened before there was a secret


def erased(desk: Desk, app_db: Any, asked: Any, capsys: pytest.CaptureFixture[str], plan: Any) -> None:
    assert asked("--yes", "--by", "ada", "--reason", f"request of {EMAIL}") == exits.OK
    assert EMAIL not in "".join(capsys.readouterr())
    assert EMAIL.encode() not in erasure_desk.everything(app_db, desk.home)
    [planned, applied] = [e for e in desk.entries() if e.kind.startswith("data.")]
    assert (planned.body["operation"], applied.body["reason"]) == ("erase", "request of (erased)")
    assert planned.body["plan_hash"] == applied.body["plan_hash"] == plan["plan_hash"]
    assert asked("--yes") == exits.NOTHING
    store = Store(str(desk.home / "store"))
    [point] = points.listing(store, "desk").points
    assert {t.name: t.rows for t in point.tables} == {"shop.customers": 19, "shop.orders": 190, "shop.log": 12}
    assert desk.run("timeline") in {exits.OK, exits.NOTHING}


def test_events_of_somebody_who_is_erased_are_forgotten_once_they_ended(
    desk: Desk, app_db: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(console_desk.APP, "ingress", {"listen": "127.0.0.1:0"})
    desk.write()
    queue = Queue(desk.home / "events-desk.sqlite", app="desk")

    def take(body: dict[str, Any]) -> str:
        sent: dict[str, Any] = {"method": "POST", "path": "/orders", "query": "", "headers": [], "key": None}
        return queue.record(workflow="order-intake", body=json.dumps(body).encode(), **sent).id

    ended, other, waiting = take({"mail": EMAIL}), take({"mail": "other@example.com"}), take({"mail": EMAIL})
    for event_id in (ended, other):
        queue.answered(event_id, 200)
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("DELETE FROM shop.orders WHERE customer_id = 7")
        conn.execute("DELETE FROM shop.customers WHERE id = 7")
    assert desk.run("erase", "--subject", EMAIL, "--yes") == exits.REFUSED
    assert f"1 events of this person have not ended (event {waiting})" in capsys.readouterr().out
    assert len(queue.events()) == 3
    queue.answered(waiting, 200)
    assert desk.run("erase", "--subject", EMAIL, "--dry-run", "--json") == exits.OK
    assert said(capsys)["events"] == 2
    assert desk.run("erase", "--subject", EMAIL, "--yes", "--json") == exits.OK
    assert said(capsys)["events"] == 2
    assert [e.id for e in queue.events()] == [other]
    assert "2 events of the ingress forgotten" in desk.entries()[-1].body["summary"][-1]
    take({"mail": EMAIL})
    queue.answered(queue.events()[-1].id, 200)
    assert desk.run("erase", "--subject", EMAIL, "--yes") == exits.OK  # nothing but an event is left of the person
    assert [e.id for e in queue.events()] == [other]
    assert desk.run("erase", "--subject", EMAIL, "--yes") == exits.NOTHING
    queue.close()
