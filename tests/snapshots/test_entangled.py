"""Who is drawn in: transactions that cannot stand without the selection, and those that may have read its damage."""

from collections.abc import Iterator
from typing import Any

import pytest
from undo_desk import CLERK, Desk, build, close

from snapshots.model import Policy
from snapshots.undo import undo

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


def _bad_order(desk: Desk) -> None:
    desk.bad(
        "INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 1, 3)",
        "INSERT INTO shop.items VALUES ('n1', 1, 'sku1', 2)",
        "UPDATE shop.stock SET qty = qty - 4 WHERE sku = 'sku1'",
    )


def _found(desk: Desk) -> dict[int, tuple[str, ...]]:
    return {tx.xid: tx.why for tx in undo.entangled(desk.capturer, desk.spec())}


def test_an_edit_of_a_created_row_is_entangled(desk: Desk) -> None:
    _bad_order(desk)
    edit = desk.clerk("UPDATE shop.orders SET note = 'gift' WHERE id = 'n1'", "UPDATE shop.stock SET note = 'x'")
    desk.clerk("UPDATE shop.orders SET note = 'other' WHERE id = 'o1'")
    (found,) = undo.entangled(desk.capturer, desk.spec())
    assert (found.xid, found.actor, found.run, found.why) == (edit, CLERK, None, ("edited",))
    assert found.tables == ("shop.orders", "shop.stock")


def test_references_by_foreign_key_and_by_declaration_are_entangled(desk: Desk) -> None:
    _bad_order(desk)
    paid = desk.good("INSERT INTO shop.payments VALUES (50, 'n1', 3, 'paid')", run="pay-1")
    added = desk.clerk("INSERT INTO shop.items VALUES ('n1', 2, 'sku1', 1)")
    moved = desk.clerk("UPDATE shop.payments SET order_id = 'n1' WHERE id = 1")
    desk.clerk("INSERT INTO shop.payments VALUES (51, 'o1', 3, 'paid')")
    assert _found(desk) == {paid: ("references",), added: ("references",), moved: ("references",)}


def test_a_reference_that_no_longer_stands_is_not_entangled(desk: Desk) -> None:
    _bad_order(desk)
    desk.clerk("INSERT INTO shop.payments VALUES (50, 'n1', 3, 'paid')")
    desk.clerk("DELETE FROM shop.payments WHERE id = 50")
    assert _found(desk) == {}


def test_work_on_overwritten_or_remade_rows_is_not_entangled(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0", "INSERT INTO shop.payments VALUES (50, 'o1', 1, 'bad')")
    desk.good("UPDATE shop.stock SET qty = qty - 1")
    desk.clerk("UPDATE shop.payments SET status = 'x' WHERE id = 50")
    desk.clerk("DELETE FROM shop.payments WHERE id = 50")
    desk.clerk("INSERT INTO shop.payments VALUES (50, 'o1', 1, 'mine')")
    desk.clerk("UPDATE shop.payments SET status = 'y' WHERE id = 50")
    assert _found(desk) == {}


def test_the_cascade_follows_chains_and_whole_runs(desk: Desk) -> None:
    before = desk.dump()
    _bad_order(desk)
    paid = desk.good("INSERT INTO shop.payments VALUES (50, 'n1', 3, 'open')", run="pay-1")
    desk.good("INSERT INTO shop.payments VALUES (60, 'o1', 3, 'open')", run="pay-1")
    late = desk.clerk("UPDATE shop.payments SET status = 'checked' WHERE id = 60")
    spec, found = undo.cascade(desk.capturer, desk.spec(policy=Policy.CASCADE))
    assert [(tx.xid, tx.why) for tx in found] == [(paid, ("references",)), (late, ("edited",))]
    desk.undo(spec)
    assert desk.dump() == before


def test_after_the_undo_replayed_work_is_not_entangled(desk: Desk) -> None:
    _bad_order(desk)
    desk.undo(desk.spec())
    desk.good("INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 1, 30)", run="replay")
    desk.clerk("UPDATE shop.orders SET note = 'gift' WHERE id = 'n1'")
    assert _found(desk) == {}
    assert desk.preview(desk.spec()).empty


def test_suspects_are_later_writers_of_overwritten_rows(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0 WHERE sku <> 'sku2'")
    first = desk.good("UPDATE shop.stock SET qty = qty - 1", run="later-1")
    second = desk.clerk("UPDATE shop.stock SET note = 'x' WHERE sku = 'sku0'")
    desk.clerk("UPDATE shop.stock SET note = 'x' WHERE sku = 'sku2'")
    seen = undo.suspects(desk.capturer, desk.spec())
    assert [(s.xid, s.run, s.rows) for s in seen.listed] == [(first, "later-1", 2), (second, None, 1)]
    few = undo.suspects(desk.capturer, desk.spec(), limit=1)
    assert (few.count, len(few.listed)) == (2, 1)


def test_a_role_that_reads_what_was_damaged_is_suspect_and_joins_a_cascade(desk: Desk) -> None:
    before = desk.dump()
    desk.bad("UPDATE shop.stock SET qty = 0 WHERE sku = 'sku0'")
    later = desk.good("INSERT INTO shop.payments VALUES (50, 'o1', 3, 'computed')", run="later-1")
    spec = desk.spec(policy=Policy.CASCADE)
    for reads in ("shop.stock.note", "shop.orders"):
        assert undo.suspects(desk.capturer, spec, reads={"wf_good": [reads]}).count == 0
    seen = undo.suspects(desk.capturer, spec, reads={"wf_good": ["shop.stock.qty"]})
    assert [(s.xid, s.rows) for s in seen.listed] == [(later, 0)]
    closed, found = undo.cascade(desk.capturer, spec, reads={"wf_good": ["shop.stock"]})
    assert [(tx.xid, tx.why) for tx in found] == [(later, ("read",))]
    desk.undo(closed)
    assert desk.dump() == before
