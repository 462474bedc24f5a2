"""Selections by run, role, transaction, time, table and condition, alone and together."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from undo_desk import BAD, CLERK, GOOD, STOCK, Desk, build, close

from snapshots.errors import Incomplete
from snapshots.journal import journal
from snapshots.model import Policy, UndoSpec
from snapshots.undo import undo, where, window
from snapshots.undo.errors import UndoRefused

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


def _spec(desk: Desk, **changes: Any) -> UndoSpec:
    return replace(desk.spec(), **{"runs": (), **changes})


def _stock(desk: Desk) -> str:
    return str(desk.value("SELECT string_agg(coalesce(note, '-') || qty, ' ' ORDER BY sku) FROM shop.stock"))


def test_nothing_given_selects_nothing(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0")
    spec = _spec(desk)
    assert not spec.selects
    assert desk.preview(spec).empty


def test_by_role(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0 WHERE sku = 'sku0'")
    desk.bad("UPDATE shop.stock SET qty = 0 WHERE sku = 'sku1'", run="another")
    desk.good("UPDATE shop.stock SET qty = 7 WHERE sku = 'sku2'")
    desk.undo(_spec(desk, actors=(BAD,)))
    assert _stock(desk) == "first100 first100 first7"


def test_by_time_between_ticks(desk: Desk) -> None:
    desk.clerk("UPDATE shop.stock SET qty = 90 WHERE sku = 'sku0'")
    begin = journal.tick(desk.recoverer)
    desk.clerk("UPDATE shop.stock SET qty = 80 WHERE sku = 'sku1'")
    end = journal.tick(desk.recoverer)
    desk.clerk("UPDATE shop.stock SET qty = 70 WHERE sku = 'sku2'")
    desk.undo(_spec(desk, since=begin, until=end))
    assert _stock(desk) == "first90 first100 first70"


def test_a_transaction_open_across_the_begin_is_in_the_stretch_that_saw_its_commit(desk: Desk) -> None:
    early = desk.connect(CLERK)
    early.execute("UPDATE shop.stock SET qty = 90 WHERE sku = 'sku0'")
    begin = journal.tick(desk.recoverer)
    early.commit()
    early.close()
    end = journal.tick(desk.recoverer)
    desk.undo(_spec(desk, since=begin, until=end))
    assert _stock(desk) == "first100 first100 first100"


def test_parts_of_a_selection_narrow_each_other(desk: Desk) -> None:
    first = desk.bad("UPDATE shop.stock SET qty = 1 WHERE sku = 'sku0'")
    begin = journal.tick(desk.recoverer)
    second = desk.bad("UPDATE shop.stock SET qty = 2 WHERE sku = 'sku1'")
    other = desk.act(GOOD, "bad-1", "UPDATE shop.stock SET qty = 3 WHERE sku = 'sku2'")
    run = {"runs": desk.spec().runs}
    assert desk.preview(_spec(desk, xids=(first,), actors=(GOOD,))).empty
    assert desk.preview(_spec(desk, xids=(other,), **run)).empty
    assert desk.preview(_spec(desk, xids=(first,), since=begin)).problems == ()
    for narrowed in (
        _spec(desk, since=begin, **run),
        _spec(desk, xids=(second, other), actors=(BAD,)),
        _spec(desk, since=begin, actors=(BAD,), only=("shop.stock",)),
    ):
        assert [(c.table, c.update) for c in desk.preview(narrowed).counts] == [("shop.stock", 1)]
    desk.undo(_spec(desk, since=begin, **run))
    assert _stock(desk) == "first1 first100 first3"


def test_a_table_of_a_transaction(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0", "UPDATE shop.payments SET amount = 0")
    desk.undo(desk.spec(only=("shop.stock",)))
    assert _stock(desk) == "first100 first100 first100"
    assert desk.value("SELECT sum(amount) FROM shop.payments") == 0
    assert desk.preview(desk.spec(only=("shop.stock",), cancelled=desk.cancelled)).empty
    assert "shop.nope is not one of the app's" in " ".join(desk.preview(desk.spec(only=("shop.nope",))).problems)


def test_half_a_transaction_that_leaves_a_reference_dangling_is_a_conflict(desk: Desk) -> None:
    desk.bad(
        "INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 1, 3)",
        "INSERT INTO shop.items VALUES ('n1', 1, 'sku1', 2)",
    )
    assert desk.preview(desk.spec(only=("shop.orders",))).conflict_counts == {"referenced": 1}
    desk.undo(desk.spec(only=("shop.items",)))
    assert desk.value("SELECT count(*) FROM shop.orders WHERE id = 'n1'") == 1


def test_rows_that_meet_a_condition_before_or_after(desk: Desk) -> None:
    desk.bad("UPDATE shop.payments SET amount = -1 WHERE id IN (1, 2)", "UPDATE shop.payments SET amount = 5")
    desk.bad("INSERT INTO shop.payments VALUES (50, 'o1', 99, 'open'), (51, 'o1', 5, 'open')")
    desk.bad("DELETE FROM shop.payments WHERE id = 9")
    spec = desk.spec(where=(("shop.payments", "r.amount > 8"),))
    shown = desk.preview(spec)
    assert [(c.delete, c.update, c.insert) for c in shown.counts] == [(1, 1, 0)]
    done = desk.undo(spec)
    assert desk.value("SELECT amount FROM shop.payments WHERE id = 10") == 10
    assert desk.value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM shop.payments WHERE id > 8") == "10 51"
    assert desk.preview(replace(spec, cancelled=(done.xid,))).empty


def test_what_does_not_meet_the_condition_is_later_work(desk: Desk) -> None:
    """Two changes of one row by the same run: only the selected one is taken back."""
    desk.bad("UPDATE shop.stock SET qty = 7, note = 'wrong' WHERE sku = 'sku0'")
    desk.bad("UPDATE shop.stock SET note = 'kept' WHERE sku = 'sku0'")
    desk.undo(desk.spec(where=(("shop.stock", "r.qty = 100"),)))
    assert desk.value("SELECT (qty, note)::text FROM shop.stock WHERE sku = 'sku0'") == "(100,kept)"


def test_conditions_may_hold_what_formats_and_drivers_take_for_theirs(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET note = '{0} 50% (x' WHERE sku <> 'sku2'")
    spec = desk.spec(where=(("shop.stock", "r.note LIKE '{%\\% (x' AND r.sku = 'sku0'".replace("\\", "")),))
    desk.undo(spec)
    assert desk.value("SELECT string_agg(note, ',' ORDER BY sku) FROM shop.stock") == "first,{0} 50% (x,first"


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("", "it is empty"),
        ("r.qty > 1) OR (true", "closes what it does not open|syntax error"),
        ("r.qty > 1); DROP TABLE shop.stock; --", "closes|not allowed"),
        ("r.note = 'x", "quotation does not end"),
        ("(r.qty > 1", "bracket is not closed"),
        ("r.qty > 1 -- x", "-- is not allowed"),
        ("r.colour = 'x'", "colour does not exist"),
        ("r.qty", "must be type boolean"),
        ("EXISTS (SELECT FROM shop.orders)", "subquery"),
        ("pg_sleep(1) IS NULL", "IMMUTABLE"),
        ("r.qty > random()", "IMMUTABLE"),
    ],
)
def test_what_is_no_plain_condition_is_refused(desk: Desk, condition: str, reason: str) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0")
    with pytest.raises(UndoRefused, match=reason):
        desk.preview(desk.spec(where=(("shop.stock", condition),)))
    assert desk.value("SELECT count(*) FROM shop.stock") == 3


def test_a_condition_on_an_unknown_table_is_refused(desk: Desk) -> None:
    with pytest.raises(UndoRefused, match=r"shop\.nope"):
        desk.preview(desk.spec(where=(("shop.nope", "true"),)))
    assert where.malformed("r.\"odd)\" = ')('") is None


def test_a_time_becomes_the_ticks_around_it(desk: Desk) -> None:
    with pytest.raises(Incomplete, match="not there at all"):
        window.begin(desk.capturer, journal.status(desk.capturer).tables[0].complete_since)
    desk.capturer.rollback()
    first = journal.tick(desk.recoverer)
    second = journal.tick(desk.recoverer)
    between = first.at + (second.at - first.at) / 2
    assert window.begin(desk.capturer, between) == first
    assert window.end(desk.capturer, between) == second
    assert window.end(desk.capturer).at > second.at
    desk.capturer.rollback()


def test_a_stretch_older_than_the_journal_is_a_gap(desk: Desk) -> None:
    begin = journal.tick(desk.recoverer)
    desk.clerk("UPDATE shop.stock SET qty = 90")
    late = journal.status(desk.capturer).tables[0].complete_since
    desk.capturer.rollback()
    old = replace(begin, at=late.replace(year=late.year - 1))
    assert any("not-yet-journaled" in p for p in desk.preview(_spec(desk, since=old)).problems)


def test_a_cascade_of_half_a_transaction_is_refused(desk: Desk) -> None:
    with pytest.raises(UndoRefused, match="leave out tables and conditions"):
        undo.cascade(desk.capturer, desk.spec(only=(STOCK.name,), policy=Policy.CASCADE))


def test_a_gap_stands_only_in_the_way_of_tables_that_are_undone(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0 WHERE sku = 'sku0'")
    with desk.connect("installer") as owner:
        owner.execute("ALTER TABLE shop.customers DISABLE TRIGGER rj_update")
        owner.commit()
        owner.execute("ALTER TABLE shop.customers ENABLE ALWAYS TRIGGER rj_update")
        owner.commit()
    journal.tick(desk.recoverer)
    assert any("shop.customers" in p for p in desk.preview(_spec(desk, actors=(BAD,))).problems)
    desk.undo(_spec(desk, actors=(BAD,), only=(STOCK.name,)))
    assert _stock(desk) == "first100 first100 first100"
