"""Whatever is done to the record behind its back is found; and the database refuses most of it."""

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ledger import Ledger
from ledger.entry import Draft, Stored, genesis, plain, seal
from ledger.errors import Damaged
from ledger.headfile import Head
from ledger.verify import MAX_HEAD_LAG, problems
from ledger.verify import problems as verify

LEDGER = "0" * 32
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
DRAFTS = st.builds(
    Draft,
    kind=NAMES,
    app=NAMES,
    incident=st.none() | NAMES,
    recovery=st.none() | NAMES,
    step=st.none() | NAMES,
    body=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
)


def chain(drafts: list[Draft]) -> list[Stored]:
    out: list[Stored] = []
    before = genesis(LEDGER)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for seq, draft in enumerate(drafts, start=1):
        plain_draft = Draft(**{**{f: getattr(draft, f) for f in Draft.__slots__}, "body": plain(draft.body)})
        stored = seal(plain_draft, seq=seq, at=at + timedelta(seconds=seq), prev_hash=before)
        out.append(stored)
        before = stored.hash
    return out


def head_of(entries: list[Stored]) -> Head:
    return Head(ledger=LEDGER, seq=entries[-1].seq, hash=entries[-1].hash)


CHAINS = st.lists(DRAFTS, min_size=1, max_size=6).map(chain)


@given(CHAINS)
def test_any_sequence_of_appends_verifies(entries: list[Stored]) -> None:
    assert verify(entries, ledger_id=LEDGER, head=head_of(entries)) == []


@given(CHAINS, st.data())
def test_any_single_alteration_is_found(entries: list[Stored], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(entries) - 1))
    field = data.draw(st.sampled_from(Stored._fields))
    old: Any = getattr(entries[at], field)
    new: Any = data.draw(st.integers(1, 99) if field == "seq" else st.none() | st.text(max_size=8))
    assume(new != old)
    if field == "body":
        # Also changes that mean the same: the text itself is part of the record.
        new = data.draw(st.sampled_from([new, f" {old}", old.replace(":", ": "), old[:-1] + ',"x":1}']))
        assume(new != old)
    altered = [e._replace(**{field: new}) if i == at else e for i, e in enumerate(entries)]
    assert verify(altered, ledger_id=LEDGER, head=head_of(entries))


@given(CHAINS, st.data())
def test_any_swap_of_two_entries_is_found(entries: list[Stored], data: st.DataObject) -> None:
    assume(len(entries) > 1)
    one = data.draw(st.integers(0, len(entries) - 2))
    other = data.draw(st.integers(one + 1, len(entries) - 1))
    swapped = list(entries)
    # As an intruder would do it: contents change places, numbers stay.
    swapped[one] = entries[other]._replace(seq=entries[one].seq)
    swapped[other] = entries[one]._replace(seq=entries[other].seq)
    assert verify(swapped, ledger_id=LEDGER, head=head_of(entries))


@given(CHAINS, st.data())
def test_any_deletion_or_cut_is_found_and_named(entries: list[Stored], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(entries) - 1))
    last = data.draw(st.integers(first, len(entries) - 1))
    left = entries[:first] + entries[last + 1 :]
    found = verify(left, ledger_id=LEDGER, head=head_of(entries))
    name = f"entry {first + 1}: missing" if first == last else f"entries {first + 1} to {last + 1}: missing"
    assert any(name in problem for problem in found)


@given(CHAINS, DRAFTS)
def test_a_rewritten_tail_is_found_by_the_head(entries: list[Stored], draft: Draft) -> None:
    """The chain alone cannot tell: every link and hash of the forged ledger fits."""
    forged = chain([*[_draft(e) for e in entries[:-1]], draft])
    assume(forged[-1].hash != entries[-1].hash)
    assert verify(forged, ledger_id=LEDGER, head=None) == []
    assert verify(forged, ledger_id=LEDGER, head=head_of(entries)) == [
        f"entry {len(entries)}: not the one that the head file knows: rewritten from here or earlier"
    ]


def _draft(entry: Stored) -> Draft:
    import json

    return Draft(
        kind=entry.kind,
        app=entry.app,
        incident=entry.incident,
        recovery=entry.recovery,
        step=entry.step,
        body=json.loads(entry.body),
    )


@given(CHAINS)
def test_a_stretch_of_another_ledger_is_found(entries: list[Stored]) -> None:
    assert verify(entries, ledger_id="1" * 32, head=None) == [
        "entry 1: broken link, it does not follow the beginning of this ledger"
    ]


def test_a_head_that_is_not_written_any_more_is_reported() -> None:
    entries = chain([Draft(kind="k", app="a")] * (MAX_HEAD_LAG + 2))
    lagging = Head(ledger=LEDGER, seq=1, hash=entries[0].hash)
    assert "entries behind" in problems(entries, ledger_id=LEDGER, head=lagging)[0]
    assert problems(entries[:-1], ledger_id=LEDGER, head=lagging) == []


# --- on a real file ---


@pytest.fixture
def written(ledger: Ledger) -> Ledger:
    for i in range(5):
        ledger.append("x", app="desk", body={"i": i})
    return ledger


def behind_its_back(path: Path, *statements: str, triggers: bool = True) -> None:
    """Change the file as an intruder with write access would, the triggers dropped and put back if need be."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        names = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        if triggers:
            for name, _ in names:
                connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        if triggers:
            for _, sql in names:
                connection.execute(sql)
    finally:
        connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_entry SET body = '{}' WHERE seq = 2",
        "UPDATE ledger_entry SET at = at",
        "DELETE FROM ledger_entry WHERE seq = 5",
        "DELETE FROM ledger_entry",
        "INSERT OR REPLACE INTO ledger_entry SELECT * FROM ledger_entry WHERE seq = 5",
        "INSERT INTO ledger_entry SELECT seq + 9, at, kind, app, incident, recovery, step, body, 'a', 'b' "
        "FROM ledger_entry WHERE seq = 5",
        "UPDATE ledger_meta SET value = 'x'",
        "DELETE FROM ledger_meta",
        "INSERT OR REPLACE INTO ledger_meta VALUES ('ledger', 'x')",
    ],
)
def test_the_database_itself_refuses(written: Ledger, path: Path, statement: str) -> None:
    before = written.entries()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        behind_its_back(path, statement, triggers=False)
    assert written.entries() == before
    assert written.verify() == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            "UPDATE ledger_entry SET body = '{\"i\":9}' WHERE seq = 2",
            "entry 2: altered, its content does not give its hash",
        ),
        ("UPDATE ledger_entry SET body = 'x' WHERE seq = 2", "entry 2: altered, its body is not JSON any more"),
        # It means the same, and is not what was written.
        ("UPDATE ledger_entry SET body = ' ' || body WHERE seq = 2", "entry 2: altered, its content does not give"),
        ('UPDATE ledger_entry SET body = \'{"i":5,"i":1}\' WHERE seq = 2', "entry 2: altered, its content does not"),
        ("UPDATE ledger_entry SET hash = 'x' WHERE seq = 2", "entry 3: broken link, it does not follow entry 2"),
        ("DELETE FROM ledger_entry WHERE seq = 3", "entry 3: missing"),
        ("DELETE FROM ledger_entry WHERE seq > 3", "entries 4 to 5: missing from the end: the head file knows entry 5"),
        ("DELETE FROM ledger_entry", "entries 1 to 5: missing from the end: the head file knows entry 5"),
        ("UPDATE ledger_meta SET value = 'x' WHERE name = 'ledger'", "replaced as a whole"),
    ],
)
def test_what_the_database_did_not_refuse_is_found(written: Ledger, path: Path, statement: str, found: str) -> None:
    behind_its_back(path, statement)
    with Ledger(path) as again:
        assert any(found in problem for problem in again.verify()), again.verify()


def test_a_dropped_trigger_is_found(written: Ledger, path: Path) -> None:
    behind_its_back(path, "DROP TRIGGER ledger_entry_no_update", triggers=False)
    assert written.verify() == ["trigger ledger_entry_no_update: gone or changed"]


def test_a_cut_tail_stays_found_after_further_appends(written: Ledger, path: Path) -> None:
    behind_its_back(path, "DELETE FROM ledger_entry WHERE seq > 3")
    for _ in range(4):
        written.append("y", app="desk")
    assert written.verify() == ["entry 5: not the one that the head file knows: rewritten from here or earlier"]


def test_an_older_copy_of_the_file_is_found(written: Ledger, path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with sqlite3.connect(path) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    connection.close()
    written.append("y", app="desk")
    written.close()
    shutil.copy(copy, path)
    with Ledger(path) as again:
        assert again.verify() == ["entry 6: missing from the end: the head file knows entry 6"]


def test_a_deleted_ledger_is_not_silently_begun_anew(written: Ledger, path: Path) -> None:
    written.close()
    path.unlink()
    with pytest.raises(Damaged, match="its head file knows 5 entries"):
        Ledger(path)
    assert not path.exists()


def test_a_missing_or_spoilt_head_file_is_found(written: Ledger, path: Path) -> None:
    head = path.with_name(path.name + ".head")
    good = head.read_text()
    head.write_text("{")
    assert "unreadable" in written.verify()[0]
    written.append("y", app="desk")
    assert head.read_text() == "{"
    head.unlink()
    written.append("y", app="desk")
    assert "cut tail cannot be ruled out" in written.verify()[0]
    head.write_text(good)
    assert written.verify() == []


def test_a_head_that_lags_by_a_crash_catches_up(written: Ledger, path: Path) -> None:
    head = path.with_name(path.name + ".head")
    old = head.read_text()
    written.append("y", app="desk")
    head.write_text(old)
    assert written.verify() == []
    written.append("z", app="desk")
    assert '"seq": 7' in head.read_text()


def test_a_person_can_accept_the_ledger_as_it_stands_on_record(written: Ledger, path: Path) -> None:
    path.with_name(path.name + ".head").unlink()
    entry = written.accept_head(app="desk", by="ann", reason="disk replaced")
    assert written.verify() == []
    assert (entry.kind, entry.body) == ("ledger.head_reset", {"by": "ann", "reason": "disk replaced"})


@settings(max_examples=20, deadline=None)
@given(st.lists(DRAFTS, max_size=5))
def test_what_is_appended_to_a_real_ledger_verifies(drafts: list[Draft]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "l") as ledger:
        for draft in drafts:
            ledger.append_with(lambda _view, draft=draft: draft)
        assert ledger.verify() == []
        assert [e.kind for e in ledger.entries()] == [d.kind for d in drafts]
