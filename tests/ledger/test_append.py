"""Writing and reading back: what goes in comes out, in order, from every process that asks."""

import stat
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import pytest

from ledger import Ledger
from ledger.entry import genesis
from ledger.errors import Damaged, Refused, UnknownSchema, Unreachable


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    at: datetime


def test_an_entry_is_read_back_as_it_was_appended(ledger: Ledger) -> None:
    made = ledger.append("plan.made", app="desk", incident="INC-1", recovery="R1", step="s", body={"rows": 3})
    assert ledger.entries() == [made]
    assert (made.seq, made.at.tzinfo, made.prev_hash) == (1, UTC, genesis(ledger.id))
    assert ledger.head() == (1, made.hash)


def test_an_empty_ledger_has_the_genesis_as_its_head(ledger: Ledger) -> None:
    assert ledger.head() == (0, genesis(ledger.id))
    assert ledger.entries() == []
    assert ledger.verify() == []


def test_a_second_opening_goes_on_where_the_first_ended(path: Path) -> None:
    with Ledger(path) as first:
        one = first.append("a", app="desk")
    with Ledger(path) as second:
        two = second.append("b", app="desk")
        assert (second.id, two.prev_hash) == (first.id, one.hash)
        assert second.verify() == []


def test_filters_narrow_together(ledger: Ledger) -> None:
    for app, incident, recovery, kind in (
        ("a", "I1", None, "x"),
        ("a", "I1", "R1", "y"),
        ("b", "I2", "R2", "x"),
        ("a", "I3", "R1", "x"),
    ):
        ledger.append(kind, app=app, incident=incident, recovery=recovery)
    assert [e.seq for e in ledger.entries(app="a")] == [1, 2, 4]
    assert [e.seq for e in ledger.entries(incident="I1", kinds=["y"])] == [2]
    assert [e.seq for e in ledger.entries(recovery="R1", after_seq=2)] == [4]
    assert [e.seq for e in ledger.entries(kinds=["x"], limit=2)] == [1, 3]
    assert ledger.entries(kinds=[]) == []


def test_bodies_hold_the_values_of_the_other_rooms(ledger: Ledger) -> None:
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)
    body = {
        "decimal": Decimal("1.10"),
        "when": at,
        "day": date(2026, 1, 2),
        "took": timedelta(seconds=1.5),
        "id": UUID(int=1),
        "path": Path("/x"),
        "enum": Colour.RED,
        "points": (Point(1, at),),
        "set": {"b", "a"},
        "by number": {1: "one"},
        "words": "naïve \x00 \ud800 ✓",
    }
    made = ledger.append("x", app="desk", body=body)
    assert ledger.entries()[0].body == made.body
    assert made.body == {
        "decimal": "1.10",
        "when": at.isoformat(),
        "day": "2026-01-02",
        "took": 1.5,
        "id": str(UUID(int=1)),
        "path": "/x",
        "enum": "red",
        "points": [{"x": 1, "at": at.isoformat()}],
        "set": ["a", "b"],
        "by number": {"1": "one"},
        "words": "naïve \x00 \ud800 ✓",
    }
    assert ledger.verify() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object(), {("a", "b"): 1}, {1: 1, "1": 2}])
def test_a_body_json_cannot_hold_is_refused_and_nothing_recorded(ledger: Ledger, value: object) -> None:
    with pytest.raises(Refused, match=r"body\.deep"):
        ledger.append("x", app="desk", body={"deep": value})
    assert ledger.head()[0] == 0


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_names_must_be_names(ledger: Ledger, name: str) -> None:
    for given in ({"kind": name, "app": "a"}, {"kind": "k", "app": name}, {"kind": "k", "app": "a", "step": name}):
        with pytest.raises(Refused):
            ledger.append(**given)
    assert ledger.head()[0] == 0


def test_a_huge_body_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.entry.MAX_BODY_BYTES", 100)
    with pytest.raises(Refused, match="limit is 100"):
        ledger.append("x", app="desk", body={"a": "b" * 100})


def test_nothing_is_recorded_when_the_caller_changes_its_mind(ledger: Ledger) -> None:
    def compose(_view: object) -> object:
        raise KeyError("changed")

    with pytest.raises(KeyError):
        ledger.append_with(compose)  # type: ignore[arg-type]
    assert ledger.append("x", app="desk").seq == 1


def test_only_the_owner_may_read_the_files(ledger: Ledger, path: Path) -> None:
    ledger.append("x", app="desk")
    files = sorted(path.parent.iterdir())
    assert path in files
    assert {f.name: stat.S_IMODE(f.stat().st_mode) for f in files} == {f.name: 0o600 for f in files}


def test_a_file_open_to_others_is_closed_to_them(path: Path) -> None:
    path.touch(mode=0o644)
    Ledger(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lost_reply_to_a_commit_is_read_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    original = type(ledger._db).writing

    def lossy(self: object) -> object:
        from contextlib import contextmanager

        @contextmanager
        def session():  # type: ignore[no-untyped-def]
            with original(self) as conn:  # type: ignore[arg-type]
                yield conn
            raise Unreachable("the reply was lost")

        return session()

    monkeypatch.setattr(type(ledger._db), "writing", lossy)
    assert ledger.append("x", app="desk").seq == 1
    monkeypatch.undo()
    assert [e.kind for e in ledger.entries()] == ["x"]
    assert ledger.verify() == []


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    import sqlite3

    text = tmp_path / "notes.txt"
    text.write_text("these are my notes, not a database " * 50)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(Damaged, match="give the path") as raised:
            Ledger(path)
        assert "\n" not in str(raised.value)
        assert path.read_bytes()[100:] == before[100:]


def test_a_directory_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        Ledger(tmp_path)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u@h/d", "://"])
def test_addresses_that_cannot_be_ledgers(url: str) -> None:
    with pytest.raises(Refused):
        Ledger(url)


def test_a_newer_schema_is_not_touched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.tables.SCHEMA_VERSION", 2)
    Ledger(path).close()
    monkeypatch.undo()
    with pytest.raises(UnknownSchema, match="schema 2, this Reinstate knows 1"):
        Ledger(path)


def test_the_password_of_an_address_shows_nowhere(path: Path) -> None:
    with pytest.raises(Unreachable) as raised:
        Ledger("postgresql://me:hunter22@127.0.0.1:1/ledger?connect_timeout=1")
    assert "hunter22" not in str(raised.value)


def test_importing_the_room_does_not_load_sqlalchemy() -> None:
    import subprocess
    import sys

    rooms = "ledger, ledger.steps, ledger.timeline, ledger.metrics, incidents.record"
    code = f"import sys, {rooms}; print('sqlalchemy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
