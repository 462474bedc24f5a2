"""`reinstate diff` and `reinstate restore`: readable plans, exact effects, all on record, nothing by accident."""

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from console import exits
from ledger import kinds
from snapshots import database
from snapshots.journal import journal
from snapshots.restore import checks, diff, lost_table
from tests.conftest import AppDb
from tests.console.desk import Desk
from tests.snapshots import point_desk

pytestmark = pytest.mark.postgres
NAMES = ("shop.customers", "shop.orders")
WRECK = ("UPDATE shop.orders SET total = 0 WHERE id <= 30", "DELETE FROM shop.orders WHERE id BETWEEN 31 AND 33")


@pytest.fixture
def desk(live_desk: Desk) -> Desk:
    return live_desk


@pytest.fixture
def point(desk: Desk, app_db: AppDb) -> str:
    taken, _ = point_desk.take(app_db, desk.home / "store", tables=point_desk.TABLES[:2])
    return taken.id


def _said(desk: Desk, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = exits.OK) -> str:
    capsys.readouterr()
    found = desk.run(*arguments)
    said = capsys.readouterr()
    assert found == code, said.err
    return said.out + said.err


def _json(desk: Desk, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = exits.OK) -> Any:
    capsys.readouterr()
    found = desk.run(*arguments, "--json")
    said = capsys.readouterr()
    assert found == code, said.err
    return json.loads(said.out)


def _tick(app: AppDb) -> datetime:
    with database.connect(app.recoverer, purpose="test") as conn:
        return journal.tick(conn).at


def test_a_diff_says_what_and_by_whom(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    point_desk.write(app_db, *WRECK)
    found = _json(desk, capsys, "diff")
    assert (found["point"], found["rows"], found["lost"]) == (point, 33, [])
    assert [(t["table"], t["how"], t["changed"], t["deleted"]) for t in found["tables"]] == [
        ("shop.customers", "journal", 0, 0),
        ("shop.orders", "journal", 30, 3),
    ]
    assert [a["actor"] for a in found["actors"]] == ["installer"]
    scanned = _json(desk, capsys, "diff", "--source", "scan", "--table", "shop.orders", "--keys", "2")
    assert [(t["how"], t["rows"] if "rows" in t else t["changed"]) for t in scanned["tables"]] == [("scan", 30)]
    assert scanned["tables"][0]["deleted_keys"] == [["31"], ["32"]]
    said = _said(desk, capsys, "diff", "--keys", "1")
    assert "installer" in said
    assert "shop.orders, deleted: 31" in said


def test_a_restore_shows_asks_and_is_on_record(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = point_desk.image(app_db, *NAMES)
    point_desk.write(app_db, *WRECK)
    damaged = point_desk.image(app_db, *NAMES)
    assert _json(desk, capsys, "restore", "--dry-run")["rows"] == 33
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert "Overwrite this?" in _said(desk, capsys, "restore", code=exits.USAGE)
    assert point_desk.image(app_db, *NAMES) == damaged
    said = _said(desk, capsys, "restore", "--yes", "--by", "ada", "--reason", "import ran twice")
    assert "30 updated, 3 inserted" in said
    assert point_desk.image(app_db, *NAMES) == before
    back = re.search(r"`reinstate (undo --recovery \S+)` takes it back", said)
    assert back
    _said(desk, capsys, *back[1].split(), "--yes")
    assert point_desk.image(app_db, *NAMES) == damaged
    _said(desk, capsys, "restore", "--yes")
    planned, applied = (
        next(e for e in desk.entries() if e.kind == kind) for kind in (kinds.DATA_PLANNED, kinds.DATA_APPLIED)
    )
    assert planned.body["plan_hash"] == applied.body["plan_hash"]
    assert (applied.body["by"], applied.body["reason"]) == ("ada", "import ran twice")
    assert applied.body["counts"]["shop.orders"] == {"delete": 0, "update": 30, "insert": 3}
    assert "nothing differs" in _said(desk, capsys, "restore", "--yes", code=exits.NOTHING)


def test_rows_now_add_up_where_the_table_is_too_large_to_count(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point_desk.write(app_db, *WRECK)
    monkeypatch.setattr(diff, "rows", lambda *_: 5_000)
    orders = next(t for t in _json(desk, capsys, "diff")["tables"] if t["table"] == "shop.orders")
    assert (orders["live_rows"], orders["point_rows"], orders["deleted"]) == (197, 200, 3)


def test_any_moment_between_points(desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str]) -> None:
    point_desk.write(app_db, "UPDATE shop.orders SET total = 5 WHERE id = 7")
    good = _tick(app_db)
    kept = point_desk.image(app_db, *NAMES)
    point_desk.write(app_db, *WRECK)
    _tick(app_db)
    asked = (good + timedelta(milliseconds=1)).isoformat()
    said = _said(desk, capsys, "diff", "--at", asked)
    assert "tick of" in said
    assert _json(desk, capsys, "diff", "--at", asked)["rows"] == 33
    assert _json(desk, capsys, "restore", "--at", asked, "--yes")["done"]["tables"]["shop.orders"]["update"] == 30
    assert point_desk.image(app_db, *NAMES) == kept
    early = _said(desk, capsys, "restore", "--at", "2020-01-01T00:00", "--yes", code=exits.NOTHING)
    assert "ticks begin at" in early
    assert point in early


def test_a_moment_that_has_not_come_is_refused(desk: Desk, point: str, capsys: pytest.CaptureFixture[str]) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    said = _said(desk, capsys, "restore", "--at", later, "--yes", code=exits.REFUSED)
    assert "has not come yet" in said
    assert "needs its offset" in said


def test_a_tick_beyond_a_gap_names_the_points(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    good = _tick(app_db)
    point_desk.write(app_db, "ALTER TABLE shop.orders DISABLE TRIGGER rj_update", *WRECK)
    said = _said(desk, capsys, "restore", "--at", good.isoformat(), "--dry-run", code=exits.REFUSED)
    assert "does not reach back" in said
    assert "--table" in said
    assert point in said


def test_caps_refuse_and_can_be_passed_on_purpose(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    before = point_desk.image(app_db, *NAMES)
    point_desk.write(app_db, "INSERT INTO shop.orders (customer_id, total) SELECT 1, 1 FROM generate_series(1, 90)")
    found = _json(desk, capsys, "restore", "--yes", code=exits.REFUSED)
    assert "cap" in found["problems"][0]
    assert found["done"] is None
    assert "--over-caps" in _said(desk, capsys, "restore", "--dry-run", code=exits.REFUSED)
    _json(desk, capsys, "restore", "--yes", "--over-caps")
    assert point_desk.image(app_db, *NAMES) == before


def test_a_dropped_table_is_made_again(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    before = point_desk.image(app_db, *NAMES)
    point_desk.write(app_db, "UPDATE shop.customers SET email = 'x' WHERE id = 1", "DROP TABLE shop.orders CASCADE")
    assert "made again with its 200 rows" in _said(desk, capsys, "restore", "--dry-run")
    done = _json(desk, capsys, "restore", "--yes")["done"]
    assert (done["made"], done["tables"]["shop.customers"]["update"]) == ({"shop.orders": 200}, 1)
    assert point_desk.image(app_db, *NAMES) == before


def test_into_an_empty_database(desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str]) -> None:
    app_db.server.create_database("copy", owner="installer")
    desk.write(DESK_COPY=app_db.server.dsn("copy", "installer"))
    try:
        bare = _said(desk, capsys, "restore", "--into", "env:DESK_COPY", code=exits.REFUSED)
        assert "make the schema first" in bare
        with psycopg.connect(app_db.server.dsn("copy", "installer")) as conn:
            conn.execute("CREATE SCHEMA IF NOT EXISTS shop")
            conn.execute("CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
        found = _json(desk, capsys, "restore", "--into", "env:DESK_COPY")
        assert found["rows"] == {"shop.customers": 20, "shop.orders": 200}
        with psycopg.connect(app_db.server.dsn("copy", "installer")) as conn:
            row = conn.execute("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated").fetchone()
            assert row == (1,)
        again = _said(desk, capsys, "restore", "--into", "env:DESK_COPY", code=exits.REFUSED)
        assert "not empty" in again
        mine = _said(desk, capsys, "restore", "--into", "env:DESK_INSTALLER", code=exits.REFUSED)
        assert "own database" in mine
    finally:
        app_db.server.drop_database("copy")


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore", "--json"),
        ("restore", "--point", "p", "--at", "3"),
        ("diff", "--at", "yesterday"),
        ("restore", "--into", "env:X", "--at", "3"),
    ],
)
def test_what_makes_no_sense_is_told(
    desk: Desk, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert _said(desk, capsys, *arguments, code=exits.USAGE).startswith("reinstate: ")


def test_a_table_nobody_declared(desk: Desk, point: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not in the catalogue" in _said(desk, capsys, "diff", "--table", "shop.nothing", code=exits.REFUSED)


class Killed(BaseException):
    """The process is gone at this point."""


def _die(*_: Any) -> None:
    raise Killed


def test_a_lost_table_whose_restore_was_killed_is_finished_by_the_next(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = point_desk.image(app_db, *NAMES)
    point_desk.write(app_db, "DROP TABLE shop.orders CASCADE", "DELETE FROM shop.customers WHERE id = 1")
    with monkeypatch.context() as patch:
        patch.setattr(lost_table, "_finished", _die)
        with pytest.raises(Killed):
            desk.run("restore", "--table", "shop.orders", "--yes")
    assert kinds.DATA_APPLIED not in [e.kind for e in desk.entries()]
    assert "cut short" not in _said(desk, capsys, "restore", "--table", "shop.orders", "--dry-run", code=exits.NOTHING)
    said = _said(desk, capsys, "restore", "--table", "shop.orders", "--yes", code=exits.NOTHING)
    assert "was cut short: finishing it" in said
    assert "orders_customer_id_fkey of shop.orders does not hold" in said
    planned, applied = (
        next(e for e in desk.entries() if e.kind == kind) for kind in (kinds.DATA_PLANNED, kinds.DATA_APPLIED)
    )
    assert (applied.recovery, applied.body["counts"]) == (planned.recovery, {"shop.orders": {"insert": 200}})
    with psycopg.connect(app_db.superuser) as conn:
        assert conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'reinstate_lost%'").fetchone() == (0,)
    assert "cut short" not in _said(desk, capsys, "restore", "--yes")
    assert point_desk.image(app_db, *NAMES) == before


def test_views_of_a_restore_that_was_killed_follow_with_the_next(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point_desk.write(app_db, "CREATE MATERIALIZED VIEW shop.sums AS SELECT sum(total) AS s FROM shop.orders", *WRECK)
    with monkeypatch.context() as patch:
        patch.setattr(checks, "refresh", _die)
        with pytest.raises(Killed):
            desk.run("restore", "--yes")
    said = _said(desk, capsys, "restore", "--yes", code=exits.NOTHING)
    assert "materialised view shop.sums is stale" in said
    assert [e.body["counts"]["shop.orders"]["update"] for e in desk.entries() if e.kind == kinds.DATA_APPLIED] == [30]


def test_what_cannot_be_finished_does_not_stand_in_the_way(
    desk: Desk, point: str, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point_desk.write(app_db, "DROP TABLE shop.orders CASCADE")
    with monkeypatch.context() as patch:
        patch.setattr(lost_table, "_finished", _die)
        with pytest.raises(Killed):
            desk.run("restore", "--table", "shop.orders", "--yes")
    with psycopg.connect(app_db.installer) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('reinstate.lost', 0))")
        said = _said(desk, capsys, "restore", "--yes", code=exits.NOTHING)
    assert "stays unfinished: Another restore of lost tables runs" in said
    assert "was cut short: finishing it" in _said(desk, capsys, "restore", "--yes", code=exits.NOTHING)
