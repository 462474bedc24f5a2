"""Somebody is erased: nothing of them is found any more, and nothing brings them back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest

from snapshots import database
from snapshots.erasure import erasure, rules
from snapshots.errors import Refused
from snapshots.journal import audit
from snapshots.model import Policy, RecoveryPoint, RunRef, UndoSpec
from snapshots.points import points, reading
from snapshots.points.errors import Damaged
from snapshots.restore import diff, restore
from snapshots.store import retention
from snapshots.store.store import Store
from snapshots.undo import undo
from tests.snapshots import erasure_desk as desk

pytestmark = pytest.mark.postgres
TRACES = (desk.PERSON, "Ann Marsh", "A. Marsh", "gift for ann", "lamp")


@pytest.fixture
def store(app_db: Any, tmp_path: Path) -> Store:
    """Two points, the second on the first with pieces of the journal, and the app's own deletion after them."""
    desk.build(app_db)
    made = desk.store_at(tmp_path / "store", tmp_path)
    first = desk.take(app_db, made)
    desk.touch(app_db)
    second = desk.take(app_db, made, base=first)
    assert second.segments
    assert second.tables[0].deltas
    desk.write(app_db, "SELECT set_config('reinstate.run', 'R7', true)", *desk.DELETE)
    return made


def rows(store: Store, point: RecoveryPoint, table: str) -> list[dict[str, Any]]:
    [manifest] = [t for t in point.tables if t.name == table]
    return [r for b in reading.batches(store, manifest, app="desk") for r in b.to_pylist()]


def live(app: Any, table: str) -> list[str]:
    with psycopg.connect(app.installer) as conn:
        return [r[0] for r in conn.execute(f"SELECT t::text FROM {table} t ORDER BY 1".encode()).fetchall()]


def bring_back(app: Any, point: RecoveryPoint, store: Store, *, source: Any = "auto") -> None:
    with database.connect(app.recoverer, purpose="test") as conn:
        restore.apply(
            conn, point, store, desk.TABLES[:4], recovery_id="r", step=point.id + source, plan_hash="h", source=source
        )


def test_a_person_is_gone_from_store_and_journal(app_db: Any, tmp_path: Path, store: Store) -> None:
    with psycopg.connect(app_db.installer) as conn:
        said = "invalid input: " + desk.PERSON
        conn.execute(
            "INSERT INTO reinstate.gap (table_name, kind, detail, at, until)"
            " VALUES ('shop.people', 'capture-failed', %s, now(), now())",
            (said,),
        )
    before = desk.everything(app_db, tmp_path)
    assert all(trace.encode() in before for trace in TRACES)
    plan = desk.plan(app_db, store, desk.person())
    assert plan.problems == ()
    assert {t.table: t.rows for t in plan.tables} == {
        "shop.people": 1, "shop.orders": 3, "shop.lines": 4, "shop.tickets": 0, "shop.mails": None,
    }  # fmt: skip
    assert [x.where for x in plan.left] == ["shop.tickets.asked_by"]
    assert desk.PERSON not in repr(plan)
    done = desk.erase(app_db, store)
    assert len(done.points) == 2
    assert sum(done.images.values()) == sum(t.images for t in plan.tables)
    after = desk.everything(app_db, tmp_path)
    assert [trace for trace in TRACES if trace.encode() in after] == []
    for point in points.listing(store, "desk").points:
        assert points.audit(store, point) == ()
        assert sum(t.rows for t in point.tables) == sum(len(rows(store, point, t.name)) for t in point.tables)
        assert {r["id"] for r in rows(store, point, "shop.people")} == set(range(1, 41))
        assert {r["asked_by"] for r in rows(store, point, "shop.tickets")} == {None, 3}
    assert desk.plan(app_db, store, desk.person()).empty


def test_no_restore_and_no_undo_brings_them_back(app_db: Any, store: Store) -> None:
    desk.write(app_db, "DELETE FROM shop.lines WHERE order_id = 3", "UPDATE shop.people SET name = 'x' WHERE id = 9")
    desk.erase(app_db, store)
    spec = UndoSpec(tables=desk.TABLES[:4], runs=(RunRef(actor="installer", run="R7"),), policy=Policy.KEEP_LATER)
    with database.connect(app_db.recoverer, purpose="test") as conn:
        seen = undo.preview(conn, spec)
        assert seen.problems == ()
        assert seen.erased == {"shop.lines": 4, "shop.mails": 1, "shop.orders": 3, "shop.people": 1}
        undo.apply(conn, spec, recovery_id="u", step="s", plan_hash="h", expected=seen.counts)
    assert len(live(app_db, "shop.people")) == 40
    newest, oldest = points.listing(store, "desk").points
    for point in (newest, oldest):
        for source in ("journal", "scan"):
            bring_back(app_db, point, store, source=source)
        assert len(live(app_db, "shop.people")) == 40
        assert len(live(app_db, "shop.orders")) == 100
        with database.connect(app_db.recoverer, purpose="test") as conn:
            assert [t.rows for t in diff.diff(conn, point, store, [s.name for s in desk.TABLES[:4]])] == [0, 0, 0, 0]
    assert "(3,1,thing)" in live(app_db, "shop.lines")


def test_what_an_undo_cannot_see_any_more_is_said_by_every_kind_of_selection(app_db: Any, store: Store) -> None:
    [first, *_] = points.listing(store, "desk").points[::-1]
    desk.erase(app_db, store)
    spec = UndoSpec(tables=desk.TABLES[:4], runs=(), policy=Policy.REFUSE)
    with database.connect(app_db.recoverer, purpose="test") as conn:
        row = conn.execute("SELECT xid::text::bigint FROM reinstate.erased WHERE run = 'R7'").fetchone()
        assert row is not None

        def gone(**selection: Any) -> int:
            return sum(erasure.images_gone(conn, dataclasses.replace(spec, **selection)).values())

        assert gone(runs=(RunRef(actor="installer", run="R7"),)) == gone(xids=(row[0],)) == 9
        assert gone(runs=(RunRef(actor="installer", run=None, xids=(row[0],)),)) == 9
        assert gone(runs=(RunRef(actor="", run="R7"),)) == 9, "an empty actor is anybody"
        assert gone(runs=(RunRef(actor="", run="R8"),)) == 0
        assert gone(runs=(RunRef(actor="installer", run="R8"), RunRef(actor="clerk", run="R7"))) == 0
        assert gone(actors=("installer",), only=("shop.mails",)) == 1
        assert gone(since=first.position) == 13
        assert gone(until=first.position) == gone() == 0


def test_a_copy_of_the_store_from_before_does_not_either(app_db: Any, tmp_path: Path, store: Store) -> None:
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    desk.erase(app_db, store)
    old = desk.store_at(tmp_path / "copy", tmp_path)
    assert desk.PERSON.encode() in desk.everything(app_db, tmp_path / "copy")
    for point in points.listing(old, "desk").points:
        assert {r["id"] for r in rows(old, point, "shop.people")} == set(range(1, 41))
        assert desk.PERSON not in repr([rows(old, point, t.name) for t in point.tables])
        bring_back(app_db, point, old, source="scan")
        assert len(live(app_db, "shop.people")) == 40
        assert min(live(app_db, "shop.tickets")).startswith("(1,,")
    newest = points.listing(old, "desk").points[0]
    leaning = desk.take(app_db, old, base=newest)
    assert {r["id"] for r in rows(old, leaning, "shop.people")} == set(range(1, 41))
    desk.erase(app_db, old)
    assert desk.PERSON.encode() not in desk.everything(app_db, tmp_path / "copy")


@pytest.mark.parametrize("anonymous", [False, True])
def test_the_audit_of_the_journal_and_the_next_increment_go_on(app_db: Any, tmp_path: Path, anonymous: bool) -> None:
    """Point, journal and live agree after an erasure as before: nothing counts as missed, nothing is lost."""
    desk.build(app_db)
    store = desk.store_at(tmp_path / "store", tmp_path)
    desk.take(app_db, store, fingerprint=True)
    desk.touch(app_db)
    if anonymous:
        desk.write(app_db, desk.DELETE[0], "UPDATE shop.people SET email = 'gone', name = NULL WHERE id = 77")
    else:
        desk.write(app_db, *desk.DELETE)
    desk.erase(app_db, store)
    [point] = points.listing(store, "desk").points
    with database.connect(app_db.recoverer, purpose="test") as conn:
        assert audit.audit(conn, point, store, desk.TABLES[:4]) == ()
    later = desk.take(app_db, store, base=point, fingerprint=True)
    assert later.base == point.id
    for table in desk.TABLES[:4]:
        mine = sorted(tuple(str(v) for v in r.values()) for r in rows(store, later, table.name))
        with psycopg.connect(app_db.installer) as conn:
            found = conn.execute(f"SELECT * FROM {table.name}".encode()).fetchall()
        assert mine == sorted(tuple(str(v) for v in r) for r in found), table.name
    with database.connect(app_db.recoverer, purpose="test") as conn:
        assert audit.audit(conn, later, store, desk.TABLES[:4]) == ()


def test_whoever_comes_back_later_is_kept(app_db: Any, store: Store) -> None:
    desk.erase(app_db, store)
    desk.write(app_db, "INSERT INTO shop.people VALUES (77, 'ann.marsh@example.com', 'Ann again')")
    point = desk.take(app_db, store)
    assert [r["name"] for r in rows(store, point, "shop.people") if r["id"] == 77] == ["Ann again"]
    leaning = desk.take(app_db, store, base=points.listing(store, "desk").points[1])
    assert [r["name"] for r in rows(store, leaning, "shop.people") if r["id"] == 77] == ["Ann again"]


def test_the_list_tells_nobody_and_is_needed(app_db: Any, tmp_path: Path, store: Store) -> None:
    desk.erase(app_db, store)
    text = (tmp_path / "store" / "erased" / "desk.json").read_text()
    assert (tmp_path / "erased" / "desk.json").read_text() == text
    assert desk.PERSON not in text
    [entry] = erasure.entries(store, "desk")
    hashes = {h for r in entry.rules for h in r.hashes}
    assert not any(rules.hashed(b"guess", b"", v) in hashes for v in ("77", desk.PERSON))
    shutil.rmtree(tmp_path / "erased")
    assert erasure.entries(store, "desk") == (entry,)
    erasure.mirror(store, "desk")
    assert (tmp_path / "erased" / "desk.json").read_text() == text
    point = points.listing(store, "desk").points[0]
    unmarked = dataclasses.replace(point, tables=tuple(dataclasses.replace(t, erased="") for t in point.tables))
    with pytest.raises(Refused, match="without ERASURE_SECRET nothing is read"):
        rows(desk.store_at(tmp_path / "store", tmp_path, secret=None), unmarked, "shop.people")
    with pytest.raises(Damaged, match="another ERASURE_SECRET"):
        rows(desk.store_at(tmp_path / "store", tmp_path, secret=b"other"), unmarked, "shop.people")
    altered = json.loads(text)
    altered["entries"][0]["rules"] = []
    (tmp_path / "store" / "erased" / "desk.json").write_text(json.dumps(altered))
    with pytest.raises(Damaged, match="was altered"):
        rows(store, unmarked, "shop.people")


def test_a_person_who_is_still_live_is_refused_unless_kept(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db)
    store = desk.store_at(tmp_path / "store", tmp_path)
    desk.take(app_db, store)
    before = desk.everything(app_db, tmp_path)
    with pytest.raises(Refused, match=r"shop.people still has 1 live row of"):
        desk.erase(app_db, store)
    assert desk.everything(app_db, tmp_path) == before
    desk.write(app_db, desk.DELETE[0])
    mails = desk.person(keep=frozenset({"shop.people"}))
    assert [t.table for t in desk.plan(app_db, store, mails).tables] == ["shop.mails"]
    desk.erase(app_db, store, mails)
    [point] = points.listing(store, "desk").points
    assert (len(rows(store, point, "shop.people")), len(rows(store, point, "shop.mails"))) == (41, 1)
    with pytest.raises(Refused, match="not in the catalogue"):
        desk.plan(app_db, store, desk.person(keep=frozenset({"shop.no"})))


def test_a_row_made_anonymous_takes_its_place_in_the_past(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db)
    store = desk.store_at(tmp_path / "store", tmp_path)
    first = desk.take(app_db, store)
    desk.touch(app_db)
    desk.take(app_db, store, base=first)
    desk.write(app_db, desk.DELETE[0], "UPDATE shop.people SET email = 'gone-77', name = NULL WHERE id = 77")
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    plan = desk.plan(app_db, store, desk.person())
    assert {t.table for t in plan.tables} == {"shop.people", "shop.mails"}
    assert {x.where for x in plan.left} == {"shop.people", "shop.orders"}
    desk.erase(app_db, store)
    assert b"Marsh" not in desk.everything(app_db, tmp_path / "store")
    for point in points.listing(store, "desk").points:
        kept = [r for r in rows(store, point, "shop.people") if r["id"] == 77]
        assert kept == [{"id": 77, "email": "gone-77", "name": None}]
        assert {700, 701} <= {r["id"] for r in rows(store, point, "shop.orders") if r["person"] == 77}
        bring_back(app_db, point, store, source="scan")
        assert "(77,gone-77,)" in live(app_db, "shop.people")
    old = desk.store_at(tmp_path / "copy", tmp_path)
    for point in points.listing(old, "desk").points:
        assert desk.PERSON not in repr(rows(old, point, "shop.people"))
        with database.connect(app_db.recoverer, purpose="test") as conn:
            people = diff.diff(conn, point, old, ["shop.people"], source="scan")[0]
            assert (people.added, people.deleted) == (0, 0)


def test_without_a_journal_and_by_a_number(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db, journal=False)
    store = desk.store_at(tmp_path / "store", tmp_path)
    desk.take(app_db, store)
    desk.write(app_db, *desk.DELETE)
    for value, columns in (("seventy", {"shop.people": "id"}), ("7", {"shop.people": "id", "shop.mails": "at"})):
        who = desk.Who(value=value, subjects=columns, keep=frozenset({"shop.orders", "shop.lines"}))
        assert not any(t.table == "shop.mails" for t in desk.plan(app_db, store, who).tables)
    done = desk.erase(app_db, store, desk.Who(value="77", subjects={"shop.people": "id"}))
    assert (done.images, len(done.points)) == ({}, 1)
    [point] = points.listing(store, "desk").points
    assert {t.name: t.rows for t in point.tables} == {
        "shop.people": 40, "shop.orders": 100, "shop.lines": 100, "shop.tickets": 2, "shop.mails": 2,
    }  # fmt: skip
    with pytest.raises(Refused, match="no table says"):
        desk.plan(app_db, store, desk.Who(value="77", subjects={}))
    with pytest.raises(Refused, match="no stored column mail"):
        desk.plan(app_db, store, desk.Who(value="77", subjects={"shop.people": "mail"}))


def test_a_kept_table_cannot_lose_what_its_rows_need(app_db: Any, tmp_path: Path, store: Store) -> None:
    before = desk.everything(app_db, tmp_path)
    with pytest.raises(Refused, match=r"rows of shop\.orders cannot be kept without those of shop\.people"):
        desk.erase(app_db, store, desk.person(keep=frozenset({"shop.orders"})))
    assert desk.everything(app_db, tmp_path) == before


def test_a_held_point_stops_it(app_db: Any, tmp_path: Path, store: Store) -> None:
    held = points.listing(store, "desk").points[1]
    retention.hold(store, "desk", held.id, reason="case 12", by="law", now=held.taken_at)
    before = desk.everything(app_db, tmp_path)
    with pytest.raises(Refused, match=rf"point {held.id} is under legal hold \(case 12\)"):
        desk.erase(app_db, store)
    assert desk.everything(app_db, tmp_path) == before
    retention.release(store, "desk", held.id)
    assert desk.erase(app_db, store).points


def test_what_only_mentions_them_is_left_to_decide(app_db: Any, tmp_path: Path) -> None:
    desk.build(app_db)
    desk.write(app_db, f"INSERT INTO shop.tickets VALUES (9, 3, 'please call {desk.PERSON}')")
    store = desk.store_at(tmp_path / "store", tmp_path)
    desk.take(app_db, store)
    desk.write(app_db, *desk.DELETE)
    left = {x.where for x in desk.plan(app_db, store, desk.person()).left}
    assert {"shop.tickets.text in live", "shop.tickets.text in the journal", "shop.tickets.text in points"} <= left
    also = desk.person(also=frozenset({"shop.tickets"}))
    [tickets] = [t for t in desk.plan(app_db, store, also).tables if t.table == "shop.tickets"]
    assert tickets.stored == 0  # live still has it: the app decides
    desk.write(app_db, "DELETE FROM shop.tickets WHERE id = 1")
    [tickets] = [t for t in desk.plan(app_db, store, also).tables if t.table == "shop.tickets"]
    assert (tickets.rows, tickets.cleared) == (1, 0)


def test_an_encrypted_store(app_db: Any, tmp_path: Path) -> None:
    import base64

    desk.build(app_db)
    store = Store(str(tmp_path / "store"), keys=[base64.b64encode(b"k" * 32).decode()])
    store.guard = erasure.Guard(secret=b"pepper", beside=tmp_path / "erased")
    desk.take(app_db, store)
    desk.write(app_db, *desk.DELETE)
    desk.erase(app_db, store)
    [point] = points.listing(store, "desk").points
    assert len(rows(store, point, "shop.people")) == 40
    assert points.audit(store, point) == ()
    assert b"shop.people" not in (tmp_path / "store" / "erased" / "desk.json").read_bytes()


def test_interrupted_at_any_write_it_ends_the_same(
    app_db: Any, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies at every other write or removal in turn; a reader sees sound points and nobody, and a rerun finishes."""
    point_ids = [p.id for p in points.listing(store, "desk").points]
    steps = 0

    class Killed(BaseException):
        pass

    def dying(method: Any, at: int) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == at:
                raise Killed
            return method(*arguments, **options)

        return call

    died = 0
    for at in range(1, 200, 2):
        steps = 0
        with monkeypatch.context() as patch:
            for name in ("create", "replace", "remove"):
                patch.setattr(store.backend, name, dying(getattr(store.backend, name), at))
            try:
                desk.erase(app_db, store)
                break
            except Killed:
                died += 1
        for path in (tmp_path / "store" / "locks").glob("*"):
            path.unlink()  # the dead process's announcement
        found = points.listing(store, "desk")
        assert (found.problems, sorted(p.id for p in found.points)) == ((), sorted(point_ids))
        for point in found.points:
            assert points.audit(store, point) == ()
            if erasure.entries(store, "desk"):
                assert len(rows(store, point, "shop.people")) == 40
    assert died > 8
    assert desk.plan(app_db, store, desk.person()).empty
    left = desk.everything(app_db, tmp_path)
    assert [trace for trace in TRACES if trace.encode() in left] == []
