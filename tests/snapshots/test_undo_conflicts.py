"""Where undo and later work disagree: what is refused, what is left alone, what is kept."""

from collections.abc import Iterator
from typing import Any

import pytest
from undo_desk import Desk, build, close

from snapshots.model import Policy
from snapshots.undo.errors import UndoRefused

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


SKIP = {"policy": Policy.NON_CONFLICTING_ONLY}
KEEP = {"policy": Policy.KEEP_LATER}


def _refused(desk: Desk, kind: str) -> None:
    """Policy refuse: the plan says so, the undo does not happen."""
    before = desk.dump()
    shown = desk.preview(desk.spec())
    assert any(kind in problem for problem in shown.problems), shown.problems
    with pytest.raises(UndoRefused, match=kind):
        desk.undo(desk.spec())
    assert desk.dump() == before


def _left(desk: Desk, **changes: Any) -> set[tuple[str, tuple[str, ...], str]]:
    done = desk.undo(desk.spec(**changes))
    return {(row["table"], tuple(row["key"]), row["kind"]) for row in done.detail["left"]}


def test_a_created_row_that_someone_edited(desk: Desk) -> None:
    desk.bad("INSERT INTO shop.payments VALUES (50, 'o1', 1, 'bad'), (51, 'o1', 1, 'bad')")
    desk.clerk("UPDATE shop.payments SET status = 'checked' WHERE id = 50")
    _refused(desk, "created-then-edited")
    assert _left(desk, **SKIP) == {("shop.payments", ("50",), "created-then-edited")}
    assert desk.value("SELECT string_agg(id || status, ' ') FROM shop.payments WHERE id >= 50") == "50checked"


def test_a_key_that_was_taken_again(desk: Desk) -> None:
    desk.bad("DELETE FROM shop.payments WHERE id IN (1, 2)")
    desk.clerk("INSERT INTO shop.payments VALUES (1, 'o9', 9, 'new')")
    desk.bad("UPDATE shop.payments SET amount = 0 WHERE id = 1")
    _refused(desk, "key-taken")
    assert _left(desk, **SKIP) == {("shop.payments", ("1",), "key-taken")}
    assert desk.value("SELECT (amount, status)::text FROM shop.payments WHERE id = 1") == "(0,new)"
    assert desk.value("SELECT status FROM shop.payments WHERE id = 2") == "open"


def test_keep_later_keeps_the_new_owner_of_a_key_but_not_the_damage(desk: Desk) -> None:
    desk.bad("DELETE FROM shop.payments WHERE id = 1")
    desk.clerk("INSERT INTO shop.payments VALUES (1, 'o9', 9, 'new')")
    desk.bad("UPDATE shop.payments SET amount = 0 WHERE id = 1")
    desk.undo(desk.spec(**KEEP))
    assert desk.value("SELECT (amount, status)::text FROM shop.payments WHERE id = 1") == "(9,new)"


def test_a_unique_value_that_another_row_took(desk: Desk) -> None:
    desk.bad(
        "UPDATE shop.customers SET email = 'bad', note = 'bad' WHERE id = 1",
        "UPDATE shop.customers SET note = 'bad' WHERE id = 2",
    )
    desk.clerk("INSERT INTO shop.customers VALUES (20, 'c1@example.com')")
    _refused(desk, "key-taken")
    assert _left(desk, **SKIP) == {("shop.customers", ("1",), "key-taken")}
    assert desk.value("SELECT note FROM shop.customers WHERE id = 2") is None


def test_a_row_that_others_reference_stays_with_what_it_needs(desk: Desk) -> None:
    """A foreign key, then a declared reference; keeping the order keeps its customer."""
    desk.bad(
        "INSERT INTO shop.customers VALUES (100, 'x'), (101, 'y')",
        "INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 100, 3), ('n2', 101, 4)",
    )
    desk.clerk("INSERT INTO shop.payments VALUES (50, 'n1', 3, 'paid')")
    _refused(desk, "referenced")
    assert _left(desk, **SKIP) == {("shop.orders", ("n1",), "referenced"), ("shop.customers", ("100",), "referenced")}
    assert desk.value("SELECT string_agg(id, ' ') FROM shop.orders WHERE id LIKE 'n%'") == "n1"


def test_a_reference_that_another_bad_write_removed_does_not_count(desk: Desk) -> None:
    before = desk.dump()
    desk.bad("INSERT INTO shop.customers VALUES (100, 'x')", "UPDATE shop.orders SET customer_id = 100 WHERE id = 'o1'")
    desk.bad("INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 100, 3)")
    desk.undo(desk.spec())
    assert desk.dump() == before


def test_a_row_whose_parent_is_gone_cannot_come_back(desk: Desk) -> None:
    desk.bad("DELETE FROM shop.items WHERE order_id IN ('o40', 'o39')")
    desk.clerk("DELETE FROM shop.orders WHERE id = 'o40'")
    _refused(desk, "parent-gone")
    assert _left(desk, **SKIP) == {("shop.items", ("o40", "1"), "parent-gone")}
    assert desk.value("SELECT count(*) FROM shop.items WHERE order_id = 'o39'") == 1


def test_keep_later_undoes_what_it_can(desk: Desk) -> None:
    desk.bad(
        "INSERT INTO shop.payments VALUES (50, 'o1', 1, 'bad'), (51, 'o1', 1, 'bad')", "UPDATE shop.stock SET qty = 0"
    )
    desk.clerk("UPDATE shop.payments SET status = 'checked' WHERE id = 50")
    assert _left(desk, **KEEP) == {("shop.payments", ("50",), "created-then-edited")}
    assert desk.value("SELECT min(qty) FROM shop.stock") == 100


def test_conflicts_are_counted_in_full_and_listed_in_part(desk: Desk) -> None:
    desk.bad("INSERT INTO shop.payments SELECT n, 'o1', 1, 'bad' FROM generate_series(1000, 1699) n")
    desk.clerk("UPDATE shop.payments SET status = 'checked' WHERE id >= 1000")
    shown = desk.preview(desk.spec())
    assert shown.conflict_counts == {"created-then-edited": 700}
    assert len(shown.conflicts) == 500
