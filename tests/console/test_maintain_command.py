"""`reinstate maintain`: what is in order is said so, what is not is named with its next step; all on record."""

import json
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from prefect.logging import disable_run_logger

from console import exits
from flows import maintain as flow
from flows import states
from incidents import record
from ledger import Ledger, kinds
from recovery import setup
from recovery.errors import NotInOrder
from snapshots import database
from snapshots.journal import journal
from snapshots.points import points
from snapshots.store.store import Store
from tests.conftest import AppDb
from tests.console.desk import Desk
from tests.snapshots import point_desk

pytestmark = pytest.mark.postgres


def maintained(desk: Desk, capsys: pytest.CaptureFixture[str], *, code: int = exits.OK) -> Any:
    capsys.readouterr()
    ended = desk.run("maintain", "--by", "ada", "--json")
    told = capsys.readouterr()
    assert ended == code, told.err
    return json.loads(told.out)


def take(desk: Desk, app: AppDb) -> str:
    with database.connect(app.recoverer, purpose="test") as conn:
        journal.tick(conn)
    return point_desk.take(app, desk.home / "store", tables=point_desk.TABLES[:2])[0].id


def test_what_is_in_order_is_said_and_on_record(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point = take(live_desk, app_db)
    point_desk.write(app_db, "UPDATE shop.orders SET total = total + 1")
    found = maintained(live_desk, capsys)
    assert (found["in_order"], found["problems"], found["waits"]) == (True, [], [])
    assert (found["audited"], found["missed"], found["read"], found["forgotten"]) == (point, 0, point, {})
    assert found["bytes"] > 0
    [entry] = [e for e in live_desk.entries() if e.kind == kinds.MAINTAINED]
    assert (entry.body["audited"], entry.body["problems"], entry.body["by"]) == (point, [], "ada")
    assert live_desk.run("maintain") == exits.OK
    assert "journal and points are in order" in capsys.readouterr().out
    monkeypatch.setattr(setup, "_retention", lambda _: timedelta(0))
    assert maintained(live_desk, capsys)["forgotten"] == {"shop.orders": 400}


def test_what_the_journal_missed_is_counted_and_never_named_on_record(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    point = take(live_desk, app_db)
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("ALTER TABLE shop.orders DISABLE TRIGGER rj_update")
        conn.execute("UPDATE shop.orders SET total = 6 WHERE id IN (7, 77)")
        conn.execute("ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER rj_update")
    found = maintained(live_desk, capsys, code=exits.REFUSED)
    assert (found["missed"], found["in_order"]) == (2, False)
    [problem] = found["problems"]
    assert f"missed 2 changed rows in shop.orders since point {point}" in problem
    assert "`reinstate protect`" in problem
    assert "77" not in json.dumps([e.body for e in live_desk.entries() if e.kind == kinds.MAINTAINED])
    assert live_desk.run("maintain") == exits.REFUSED
    assert "NOT IN ORDER: the journal missed 2" in capsys.readouterr().out
    take(live_desk, app_db)
    assert maintained(live_desk, capsys)["in_order"]


def test_a_flipped_bit_of_the_newest_point_is_found(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    point = take(live_desk, app_db)
    piece = next(iter(points.pieces(points.load(Store(str(live_desk.home / "store")), "desk", point))))
    path = next((live_desk.home / "store").rglob(f"{piece}.parquet"))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    found = maintained(live_desk, capsys, code=exits.REFUSED)
    assert any(f"point {point} is damaged" in p and piece in p for p in found["problems"])


def test_a_manifest_that_cannot_be_read_hides_nothing_else(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newest = take(live_desk, app_db), take(live_desk, app_db)
    (live_desk.home / "store" / "points" / "desk" / f"{newest}.json").write_text("{")
    found = maintained(live_desk, capsys, code=exits.REFUSED)
    assert (found["audited"], found["read"]) == (older, None)
    assert any(newest in p for p in found["problems"])
    assert [e for e in live_desk.entries() if e.kind == kinds.MAINTAINED]


def test_a_table_in_use_is_named_and_the_others_are_audited(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take(live_desk, app_db)
    connect = database.connect
    monkeypatch.setattr(database, "connect", lambda dsn, **how: connect(dsn, **{**how, "lock_timeout_s": 0.1}))
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("ALTER TABLE shop.orders DISABLE TRIGGER rj_update")
        conn.execute("UPDATE shop.orders SET total = 6 WHERE id = 7")
        conn.execute("ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER rj_update")
        conn.commit()
        conn.execute("LOCK TABLE shop.customers IN ACCESS EXCLUSIVE MODE")
        found = maintained(live_desk, capsys, code=exits.REFUSED)
    assert (found["missed"], len(found["problems"])) == (1, 2)
    assert "the journal of shop.customers was not audited: The tables are in use" in found["problems"][0]


def test_without_a_journal_or_a_point_it_says_what_that_means(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    found = maintained(live_desk, capsys, code=exits.REFUSED)
    assert [p for p in found["problems"] if "run `reinstate protect`" in p]
    point = take(live_desk, app_db)
    assert live_desk.run("journal", "remove", "--yes") == exits.OK
    found = maintained(live_desk, capsys)
    assert (found["audited"], found["read"]) == (None, point)
    assert "no journal is installed" in found["waits"][0]
    assert live_desk.run("maintain") == exits.OK
    assert "the points are in order" in capsys.readouterr().out


def test_a_journal_that_is_gone_is_not_in_order(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    take(live_desk, app_db)
    assert maintained(live_desk, capsys)["in_order"]
    assert live_desk.run("journal", "remove", "--yes") == exits.OK
    assert "the journal is gone" in maintained(live_desk, capsys, code=exits.REFUSED)["problems"][0]


def test_a_table_without_journal_is_named(live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]) -> None:
    take(live_desk, app_db)
    point_desk.write(app_db, "ALTER TABLE shop.orders ADD COLUMN extra int")
    found = maintained(live_desk, capsys, code=exits.REFUSED)
    assert any("a gap that lasts: shop.orders" in p for p in found["problems"])


def test_nothing_is_forgotten_while_it_may_be_needed(
    live_desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "_retention", lambda _: timedelta(0))
    take(live_desk, app_db)
    point_desk.write(app_db, "UPDATE shop.orders SET total = total + 1")
    ledger = Ledger(live_desk.home / "ledger.sqlite")
    with ledger.lease("desk", "a recovery", ttl_s=30):
        assert "forgets nothing for now" in maintained(live_desk, capsys)["waits"][0]
    opened = record.open_incident(ledger, "desk", title="odd rows", severity="sev2", workflows=["order-intake"])
    found = maintained(live_desk, capsys)
    assert (found["forgotten"], found["waits"]) == (
        {},
        [f"the journal forgets nothing while incident {opened.id} is open"],
    )


def test_the_flow_fails_when_something_is_not_in_order(live_desk: Desk, app_db: AppDb) -> None:
    with disable_run_logger():
        take(live_desk, app_db)
        done = flow.keep_in_order.fn(str(live_desk.folder), "desk")
        good = flow.ended(done)
        assert (good.name, good.is_completed()) == ("In order", True)
        assert "the journal saw every change since point" in str(good.message)
        point_desk.write(app_db, "ALTER TABLE shop.orders ADD COLUMN extra int")
        with pytest.raises(NotInOrder) as wrong:
            flow.ended(flow.keep_in_order.fn(str(live_desk.folder), "desk"))
    bad = states.ended(wrong.value)
    assert (bad.name, bad.is_failed(), bad.data) == ("Not in order", True, wrong.value)
    assert "`reinstate journal status`" in str(bad.message)
