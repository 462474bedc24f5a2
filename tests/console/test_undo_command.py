"""`reinstate undo`: a readable plan with every conflict, exact effects, on record, and the way back."""

import json
from typing import Any

import psycopg
import pytest

from console import exits
from ledger import kinds
from snapshots import database
from snapshots.journal import install
from tests.conftest import AppDb
from tests.console.desk import Desk
from tests.snapshots import point_desk

pytestmark = pytest.mark.postgres
NAMES = ("shop.customers", "shop.orders")


@pytest.fixture
def desk(live_desk: Desk, app_db: AppDb) -> Desk:
    with database.connect(app_db.installer, purpose="test") as owner:
        for role in ("wf_intake", "wf_stock"):
            owner.execute(f"GRANT USAGE ON SCHEMA shop TO {role}".encode())
            owner.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO {role}".encode())
        owner.commit()
        install.install(owner, point_desk.TABLES[:2], capturer="capturer", recoverer="recoverer")
    return live_desk


def _write(app: AppDb, role: str, run: str | None, *statements: str) -> int:
    with psycopg.connect(app.dsn(role)) as conn:
        if run:
            conn.execute("SELECT set_config('reinstate.run', %s, true)", (run,))
        for statement in statements:
            conn.execute(statement.encode())
        row = conn.execute("SELECT pg_current_xact_id()::text").fetchone()
    return int(row[0]) if row else 0


def _said(desk: Desk, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = exits.OK) -> str:
    capsys.readouterr()
    found = desk.run("undo", *arguments)
    said = capsys.readouterr()
    assert found == code, said.err
    return said.out + said.err


def _json(desk: Desk, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = exits.OK) -> Any:
    capsys.readouterr()
    found = desk.run("undo", *arguments, "--json")
    said = capsys.readouterr()
    assert found == code, said.err
    return json.loads(said.out)


def test_an_undo_is_shown_asked_done_recorded_and_taken_back(
    desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = point_desk.image(app_db, *NAMES)
    _write(
        app_db,
        "wf_intake",
        "7",
        "UPDATE shop.orders SET total = 0 WHERE id < 9",
        "DELETE FROM shop.orders WHERE id = 9",
    )
    damaged = point_desk.image(app_db, *NAMES)
    shown = _json(desk, capsys, "--run", "7", "--dry-run")
    assert [(t["table"], t["update"], t["insert"]) for t in shown["tables"]] == [("shop.orders", 8, 1)]
    assert (shown["policy"], shown["conflicts"], shown["problems"], shown["done"]) == ("refuse", [], [], None)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: (_ for _ in ()).throw(AssertionError("asked")))
    assert "look at it again" in _said(desk, capsys, "--run", "7", "--yes", "--plan-hash", "0" * 64, code=exits.REFUSED)
    assert point_desk.image(app_db, *NAMES) == damaged
    assert kinds.DATA_PLANNED not in [e.kind for e in desk.entries()]
    done = _json(desk, capsys, "--run", "7", "--yes", "--plan-hash", shown["plan_hash"], "--reason", "wrong totals")
    assert point_desk.image(app_db, *NAMES) == before
    assert done["done"]["tables"]["shop.orders"] == {"delete": 0, "update": 8, "insert": 1, "merged": 0}
    planned, applied = (
        next(e for e in desk.entries() if e.kind == kind) for kind in (kinds.DATA_PLANNED, kinds.DATA_APPLIED)
    )
    assert (planned.recovery, planned.body["plan_hash"]) == (done["done"]["recovery"], shown["plan_hash"])
    assert (applied.body["operation"], applied.body["reason"]) == ("undo", "wrong totals")
    assert applied.body["summary"][0] == "undo of run 7, policy refuse"
    assert applied.body["counts"]["shop.orders"]["update"] == 8

    recovery = done["done"]["recovery"]
    for n in (1, 2):
        recovery = _json(desk, capsys, "--recovery", recovery, "--yes")["done"]["recovery"]
        assert point_desk.image(app_db, *NAMES) == (damaged if n % 2 else before)
    _said(desk, capsys, "--run", "9", "--yes", code=exits.NOTHING)


def test_a_person_is_asked(
    desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(app_db, "wf_intake", "7", "UPDATE shop.orders SET total = 0 WHERE id < 9")
    answers = iter([False, True])
    asked: list[str] = []

    def confirm(text: str, *, abort: bool) -> None:
        asked.append(text)
        if not next(answers) and abort:
            import typer

            raise typer.Abort

    monkeypatch.setattr("typer.confirm", confirm)
    assert "nothing was changed" in _said(desk, capsys, "--workflow", "order-intake", code=exits.USAGE)
    said = _said(desk, capsys, "--workflow", "order-intake")
    assert asked == ["Undo exactly this?"] * 2
    assert "first write: " in said
    assert "caps: 5000 deleted rows, 20% of a table" in said
    assert "shop.orders: 0 deleted, 8 updated, 0 inserted" in said
    assert "takes it back" in said


def test_conflicts_are_shown_with_their_values_masked_unless_asked(
    desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(app_db, "wf_intake", "7", "UPDATE shop.orders SET total = 5, note = '{\"x\": 1}' WHERE id IN (3, 4)")
    _write(app_db, "wf_stock", "8", "UPDATE shop.orders SET total = 6.5 WHERE id IN (3, 4)")
    masked = _said(desk, capsys, "--run", "7", "--dry-run")
    assert "shop.orders 3: later-same-column, the later work stands" in masked
    assert "total: before ***, now ***, wanted ***" in masked
    assert "6.50" not in masked
    shown = _said(desk, capsys, "--run", "7", "--dry-run", "--show-values", "--limit", "1")
    assert "total: before 3.30, now 6.50, wanted 6.50" in shown
    assert 'note: before {"n": 3}, now {"x": 1}, wanted {"n": 3}' in shown
    assert "and 1 more: --limit 0 lists all" in shown
    found = _json(desk, capsys, "--run", "7", "--dry-run", "--limit", "0")
    assert [c["conflict"]["key"] for c in found["conflicts"]] == [["3"], ["4"]]
    assert found["conflict_counts"] == {"later-same-column": 2}


def test_a_cascade_takes_what_depends_and_who_may_have_read(
    desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    before = point_desk.image(app_db, *NAMES)
    _write(app_db, "wf_intake", "7", "INSERT INTO shop.customers OVERRIDING SYSTEM VALUE VALUES (900, 'x@example.com')")
    later = _write(app_db, "wf_stock", "8", "INSERT INTO shop.orders (id, customer_id, total) VALUES (9000, 900, 1)")
    said = _said(desk, capsys, "--run", "7", "--dry-run", code=exits.REFUSED)
    assert "not now: 1 rows in conflict (referenced)" in said
    shown = _json(desk, capsys, "--run", "7", "--policy", "cascade", "--dry-run")
    assert [(tx["xid"], tx["why"]) for tx in shown["joined"]] == [(later, ["references"])]
    said = _said(desk, capsys, "--run", "7", "--policy", "cascade", "--yes")
    assert f"also undone: transaction {later}, run 8 of wf_stock (references; shop.orders)" in said
    assert point_desk.image(app_db, *NAMES) == before


def test_rows_by_condition_and_caps(desk: Desk, app_db: AppDb, capsys: pytest.CaptureFixture[str]) -> None:
    number = _write(app_db, "wf_intake", None, "UPDATE shop.orders SET total = 0")
    where = ("--actor", "wf_intake", "--tx", str(number), "--where", "shop.orders: r.id <= 10")
    said = _said(desk, capsys, *where, "--max-changed-rows", "9", "--yes", code=exits.REFUSED)
    assert "10 rows would change, the cap is 9" in said
    assert "--max-changed-rows" in said
    said = _said(desk, capsys, *where, "--yes")
    assert "rows of shop.orders that meet a condition" in said
    assert "shop.orders: 0 deleted, 10 updated, 0 inserted" in said
    assert "r.id" not in json.dumps([e.body for e in desk.entries()])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), exits.REFUSED, "nothing is selected"),
        (("--run", "7", "--json"), exits.USAGE, "--json asks no questions"),
        (("--workflow", "nope"), exits.REFUSED, "workflow nope is not in the catalogue"),
        (("--table", "shop.nope"), exits.REFUSED, "table shop.nope is not in the catalogue"),
        (("--where", "r.id = 1"), exits.USAGE, "write it as 'schema.table: condition over r'"),
        (("--from", "yesterday"), exits.USAGE, "write it like"),
        (("--from", "2020-01-01"), exits.REFUSED, "ticks"),
    ],
)
def test_what_is_off_is_said(
    desk: Desk, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert said in _said(desk, capsys, *arguments, code=code)
