"""`reinstate store`: every command on a real point, its record in the ledger, its plan before anything goes."""

import io
import json
from typing import Any

import psycopg
import pytest

from console import exits
from snapshots.points import points
from snapshots.restore import whole
from snapshots.store import retention
from snapshots.store.store import Store
from tests.conftest import AppDb
from tests.console import desk as desk_module
from tests.console.desk import Desk
from tests.snapshots import point_desk
from tests.snapshots.store_desk import KEY, NEW_KEY

pytestmark = pytest.mark.postgres


def _json(desk: Desk, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = exits.OK) -> Any:
    capsys.readouterr()
    assert desk.run("store", *arguments, "--json") == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def _configure(monkeypatch: pytest.MonkeyPatch, desk: Desk, **store: Any) -> None:
    monkeypatch.setitem(desk_module.APP, "store", store)
    desk.write()


@pytest.fixture
def taken(live_desk: Desk, app_db: AppDb) -> tuple[Desk, list[str]]:
    """Three verified points, each with a change of its own."""
    ids = []
    for n in range(3):
        point_desk.write(app_db, f"UPDATE shop.orders SET total = total + 1 WHERE id = {n + 1}")
        point, _ = point_desk.take(app_db, live_desk.home / "store", tables=point_desk.TABLES[:2])
        ids.append(point.id)
    return live_desk, ids


def test_status_and_verify(taken: tuple[Desk, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    desk, ids = taken
    found = _json(desk, capsys, "status")
    assert (found["points"], found["verified"], found["encryption"], found["key"]) == (3, 3, "plain", None)
    assert found["bytes"] > found["piece_bytes"] > 0
    assert (found["others"], found["unneeded"], found["at_work"]) == ([], 0, [])
    assert desk.run("store", "status") == exits.OK
    said = capsys.readouterr().out
    assert "3 verified, 0 proven, 0 held" in said
    assert "plain" in said
    everything = _json(desk, capsys, "verify", "--all")
    assert [p["point"] for p in everything["points"]] == ids[::-1]
    assert everything["passed"] is True
    piece = next(iter(points.pieces(points.load(Store(str(desk.home / "store")), "desk", ids[0]))))
    path = next((desk.home / "store").rglob(f"{piece}.parquet"))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    damaged = _json(desk, capsys, "verify", "--point", ids[0], code=exits.NOT_PROVEN)
    assert piece in damaged["points"][0]["problems"][0]
    assert desk.run("store", "verify", "--all") == exits.NOT_PROVEN
    assert piece in capsys.readouterr().out
    assert desk.run("store", "verify", "--point", "nobody") == exits.NOTHING
    assert desk.run("store", "verify", "--all", "--point", ids[0]) == exits.USAGE
    assert desk.run("store", "verify", "--scratch", "env:X") == exits.USAGE


def test_a_point_is_proven_in_an_empty_database(
    taken: tuple[Desk, list[str]], app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, ids = taken
    desk.write(SCRATCH=app_db.server.superuser_dsn())
    done = _json(desk, capsys, "verify", "--restore", "--scratch", "env:SCRATCH")
    proof = done["points"][0]["proof"]
    assert (done["passed"], done["points"][0]["proven"]) == (True, True)
    assert (proof["rows"], proof["ran"], proof["problems"]) == ({"shop.customers": 20, "shop.orders": 200}, 1, [])
    assert _json(desk, capsys, "status")["proven"] == 1
    proven = [e for e in desk.entries() if e.kind == "point.proven"]
    assert [(e.body["point"], e.body["passed"], e.body["rows"]) for e in proven] == [(ids[-1], True, 220)]
    with psycopg.connect(app_db.superuser) as conn:
        left = conn.execute("SELECT datname FROM pg_database WHERE datname LIKE 'reinstate_scratch%'").fetchall()
    assert left == []
    # A table that has lost a column since the capture takes the point's rows no more: said, not passed over.
    point_desk.write(app_db, "ALTER TABLE shop.orders DROP COLUMN note")
    failed = _json(desk, capsys, "verify", "--restore", "--scratch", "env:SCRATCH", code=exits.NOT_PROVEN)
    assert "shop.orders" in failed["points"][0]["proof"]["problems"][0]
    assert _json(desk, capsys, "status")["proven"] == 0


def test_a_proof_needs_suites_that_hold(
    taken: tuple[Desk, list[str]], app_db: AppDb, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, _ = taken
    desk.write(SCRATCH=app_db.server.superuser_dsn())
    suite = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "customer_id"}}
    content = {**desk_module.SUITE, "expectations": [suite]}
    (desk.folder / "checks" / "orders.json").write_text(json.dumps(content))
    failed = _json(desk, capsys, "verify", "--restore", "--scratch", "env:SCRATCH", code=exits.NOT_PROVEN)
    assert "shop.orders" in failed["points"][0]["proof"]["failed"][0]
    # Without a server named, one is started for the purpose.
    assert desk.run("store", "verify", "--restore") == exits.NOT_PROVEN
    assert "check failed: orders shop.orders" in capsys.readouterr().out


def test_a_copy_that_differs_proves_nothing(
    taken: tuple[Desk, list[str]],
    app_db: AppDb,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, _ = taken
    desk.write(SCRATCH=app_db.server.superuser_dsn())
    real = whole.into_empty

    def off_by_one(dsn: str, *args: Any) -> Any:
        loaded = real(dsn, *args)
        with psycopg.connect(dsn) as conn:
            conn.execute("UPDATE shop.orders SET total = total + 0.01 WHERE id = 7")
        return loaded

    monkeypatch.setattr(whole, "into_empty", off_by_one)
    failed = _json(desk, capsys, "verify", "--restore", "--scratch", "env:SCRATCH", code=exits.NOT_PROVEN)
    problem = "shop.orders: 1 rows of the restored copy differ from the point"
    assert failed["points"][0]["proof"]["problems"] == [problem]


def test_prune_shows_asks_and_spares_what_is_held(
    taken: tuple[Desk, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, ids = taken
    keep = {"last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}
    _configure(monkeypatch, desk, keep=keep)
    monkeypatch.setattr(retention.prune, "__kwdefaults__", {**retention.prune.__kwdefaults__, "grace_s": -60.0})
    assert _json(desk, capsys, "hold", ids[0], "--reason", "case 17", "--by", "ann")["reason"] == "case 17"
    assert [h["point"] for h in _json(desk, capsys, "holds")] == [ids[0]]
    assert desk.run("store", "holds") == exits.OK
    assert "case 17" in capsys.readouterr().out
    shown = _json(desk, capsys, "prune", "--dry-run")
    assert (list(shown["dropped"]), shown["kept"][ids[0]], shown["objects"]) == ([ids[1]], ["held"], 1)
    assert desk.run("store", "prune", "--json") == exits.USAGE
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert desk.run("store", "prune") == exits.USAGE, "a question that nobody answers is a no"
    assert len(Store(str(desk.home / "store")).point_ids("desk")) == 3
    said = capsys.readouterr().out
    assert "GOES" in said
    done = _json(desk, capsys, "prune", "--yes", "--by", "ann")
    assert (list(done["dropped"]), done["objects"]) == ([ids[1]], 1)
    assert Store(str(desk.home / "store")).point_ids("desk") == [ids[0], ids[2]]
    assert _json(desk, capsys, "verify", "--all")["passed"] is True
    assert _json(desk, capsys, "release", ids[0])["released"] == ids[0]
    assert desk.run("store", "release", ids[0]) == exits.NOTHING
    assert list(_json(desk, capsys, "prune", "--yes")["dropped"]) == [ids[0]]
    assert _json(desk, capsys, "prune", "--yes")["dropped"] == {}
    operations = [(e.kind, e.body["operation"]) for e in desk.entries() if e.kind.startswith("data.")]
    assert operations == [
        ("data.applied", "hold"),
        ("data.planned", "prune"),
        ("data.applied", "prune"),
        ("data.applied", "release"),
        ("data.planned", "prune"),
        ("data.applied", "prune"),
    ]


def test_a_store_is_encrypted_and_its_key_turned(
    taken: tuple[Desk, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, ids = taken
    desk.write(OLD=KEY, NEW=NEW_KEY)
    assert desk.run("store", "rotate", "--yes") == exits.CATALOGUE, "no key is given"
    _configure(monkeypatch, desk, keys=["env:OLD"])
    assert desk.run("points") == exits.REFUSED
    assert "reinstate store rotate" in capsys.readouterr().err
    done = _json(desk, capsys, "rotate", "--yes")
    assert done["encrypted"] is True
    assert _json(desk, capsys, "status")["encryption"] == "encrypted"
    assert _json(desk, capsys, "verify", "--all")["passed"] is True
    _configure(monkeypatch, desk, keys=["env:NEW"])
    assert desk.run("store", "status") == exits.CATALOGUE
    assert done["key"] in capsys.readouterr().err
    _configure(monkeypatch, desk, keys=["env:NEW", "env:OLD"])
    assert desk.run("store", "rotate", "--everything", "--yes") == exits.OK
    _configure(monkeypatch, desk, keys=["env:NEW"])
    assert _json(desk, capsys, "verify", "--all")["passed"] is True
    said = "".join(str(e.body) for e in desk.entries())
    for secret in (KEY, NEW_KEY):
        assert secret not in said
    assert [p["id"] for p in _points(desk, capsys)] == ids[::-1]


def _points(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert desk.run("points", "--json") == exits.OK
    return json.loads(capsys.readouterr().out)
