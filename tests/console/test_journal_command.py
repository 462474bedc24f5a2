"""`reinstate journal`: what it costs and how far it reaches, what it missed, what pruning forgets; all on record."""

import json
from typing import Any

import psycopg
import pytest

from console import exits
from snapshots import database
from snapshots.journal import journal
from tests.conftest import AppDb
from tests.console.desk import Desk
from tests.snapshots import point_desk

pytestmark = pytest.mark.postgres


def said(desk: Desk, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = exits.OK) -> str:
    capsys.readouterr()
    ended = desk.run("journal", *arguments)
    told = capsys.readouterr()
    assert ended == code, told.err
    return told.out


def answered(desk: Desk, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = exits.OK) -> Any:
    return json.loads(said(desk, capsys, *arguments, "--json", code=code))


def tick(app: AppDb) -> None:
    with database.connect(app.recoverer, purpose="test") as conn:
        journal.tick(conn)


def test_status_tells_size_reach_and_cost(live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]) -> None:
    point_desk.write(app_db, "UPDATE shop.orders SET total = total + 1")
    tick(app_db)
    found = answered(live_desk, capsys, "status")
    assert [t["table"] for t in found["tables"]] == ["shop.customers", "shop.orders"]
    assert found["tables"][1]["bytes_per_day"] > 0
    assert found["tables"][1]["pieces"] == 1
    text = said(live_desk, capsys, "status")
    for word in ("complete since (UTC)", "a day", "shop.orders", "last tick", "gaps: none"):
        assert word in text
    point_desk.write(app_db, "ALTER TABLE shop.orders ADD COLUMN extra int")
    text = said(live_desk, capsys, "status", code=exits.REFUSED)
    assert "gap in shop.orders since" in text
    assert "open gap " in text
    said(live_desk, capsys, "install")
    ended = answered(live_desk, capsys, "status")["past"][-1]["until"]
    text = said(live_desk, capsys, "status")
    assert "open gap " not in text
    assert next(line for line in text.splitlines() if "shop.orders" in line).count(ended[11:19]) == 1


def test_install_of_one_table(live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]) -> None:
    point_desk.write(app_db, "ALTER TABLE shop.orders ADD COLUMN extra int")
    point_desk.write(app_db, "ALTER TABLE shop.customers ADD COLUMN extra int")
    said(live_desk, capsys, "install", "--table", "shop.orders")
    assert {g["table"] for g in answered(live_desk, capsys, "status", code=exits.REFUSED)["gaps"]} == {"shop.customers"}
    said(live_desk, capsys, "install", "--table", "shop.nobody", code=exits.REFUSED)
    said(live_desk, capsys, "install")
    assert answered(live_desk, capsys, "status")["gaps"] == []


def test_install_says_that_a_journal_of_another_server_begins_anew(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("UPDATE reinstate.journal_table SET system_id = '1' WHERE table_name = 'shop.orders'")
    assert "other-server" in said(live_desk, capsys, "status", code=exits.REFUSED)
    text = said(live_desk, capsys, "install")
    assert text.startswith("shop.orders: its journal is of another server, or of a later time of this one: begun anew")
    assert "shop.customers" not in text
    said(live_desk, capsys, "status")


def test_verify_names_what_was_missed_and_records_a_gap(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    said(live_desk, capsys, "verify", code=exits.NOTHING)
    tick(app_db)
    point, _ = point_desk.take(app_db, live_desk.home / "store", tables=point_desk.TABLES[:2])
    point_desk.write(app_db, "UPDATE shop.orders SET total = 5 WHERE id < 9")
    assert "saw every change" in said(live_desk, capsys, "verify")
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("ALTER TABLE shop.orders DISABLE TRIGGER rj_update")
        conn.execute("UPDATE shop.orders SET total = 6 WHERE id IN (7, 77)")
        conn.execute("ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER rj_update")
    found = answered(live_desk, capsys, "verify", "--point", point.id, code=exits.REFUSED)
    assert [(m["table"], m["kind"], m["rows"], m["keys"]) for m in found["missed"]] == [
        ("shop.orders", "update", 2, [["7"], ["77"]])
    ]
    text = said(live_desk, capsys, "verify", code=exits.REFUSED)
    assert "MISSED update" in text
    assert "77" in text
    assert "saw every change" in said(live_desk, capsys, "verify", "--table", "shop.customers")
    assert "past gap in shop.orders" in said(live_desk, capsys, "status")
    with database.connect(app_db.recoverer, purpose="test") as conn:
        gaps = journal.gaps(conn, since=point.position, tables=["shop.orders"])
    assert "audit" in {g.kind for g in gaps}


def test_pruning_shows_asks_and_is_on_record(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from recovery import setup

    assert answered(live_desk, capsys, "prune") == {"dry_run": False, "pruned": []}
    point_desk.write(app_db, "UPDATE shop.orders SET total = total + 1")
    tick(app_db)
    monkeypatch.setattr(setup, "_retention", lambda _: __import__("datetime").timedelta(0))
    shown = answered(live_desk, capsys, "prune", "--dry-run")
    assert [(p["table"], p["rows"]) for p in shown["pruned"]] == [("shop.orders", 400)]
    assert "images that go" in said(live_desk, capsys, "prune", "--dry-run")
    said(live_desk, capsys, "prune", "--json", code=exits.USAGE)
    assert not [e for e in live_desk.entries() if e.kind.startswith("data.")]
    assert "forgotten: 400 images" in said(live_desk, capsys, "prune", "--yes", "--by", "ada")
    entries = [e for e in live_desk.entries() if e.kind.startswith("data.")]
    assert [(e.kind, e.body["operation"], e.body["by"]) for e in entries] == [
        ("data.planned", "journal prune", "ada"),
        ("data.applied", "journal prune", "ada"),
    ]
    assert "nothing to prune" in said(live_desk, capsys, "prune")


def test_removing_is_on_record(live_desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(live_desk, capsys, "remove", "--yes")["removed"][-1] == "schema reinstate"
    assert [e.body["operation"] for e in live_desk.entries() if e.kind == "data.applied"] == ["journal remove"]
