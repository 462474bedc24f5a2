"""An undo can be undone, exactly, and that undone again; later work of others stays by the same rule."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from undo_desk import Desk, build, close

from snapshots.model import RunRef, UndoSpec

pytestmark = pytest.mark.postgres
DAMAGE = (
    "UPDATE shop.orders SET total = 0, tags = '{{1,2},{3,4}}', meta = '{\"x\": 1.10}', code = 'z' WHERE id < 'o3'",
    "DELETE FROM shop.items WHERE order_id IN ('o5', 'o6')",
    "DELETE FROM shop.orders WHERE id = 'o5'",
    "INSERT INTO shop.customers VALUES (100, 'x@example.com')",
    "INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 100, 3), ('n2', 1, 4)",
    "INSERT INTO shop.items VALUES ('n1', 1, 'sku1', 2)",
    "UPDATE shop.stock SET qty = qty - 2",
    "INSERT INTO shop.payments VALUES (50, 'never', 1, 'of an order that is not there')",
    "UPDATE shop.payments SET order_id = 'nowhere' WHERE id = 2",
)


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


def _of(desk: Desk, *recoveries: str) -> UndoSpec:
    desk.cancelled = ()
    return replace(desk.spec(), runs=tuple(RunRef(actor="recoverer", run=run) for run in recoveries), cancelled=())


def test_back_and_forth_byte_for_byte(desk: Desk) -> None:
    before = desk.dump()
    desk.bad(*DAMAGE)
    damaged = desk.dump()
    desk.undo(desk.spec(), recovery_id="R0")
    for n in range(1, 6):
        desk.undo(_of(desk, f"R{n - 1}"), recovery_id=f"R{n}")
        assert desk.dump() == (damaged if n % 2 else before), n


def test_later_work_stays_whichever_way(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = qty - 10, note = 'bad'", "DELETE FROM shop.payments WHERE id = 1")
    desk.undo(desk.spec(), recovery_id="R0")
    desk.good("UPDATE shop.stock SET qty = qty - 1 WHERE sku = 'sku0'")
    desk.clerk("UPDATE shop.payments SET status = 'mine' WHERE id = 2")
    desk.undo(_of(desk, "R0"), recovery_id="R1")
    assert desk.value("SELECT string_agg(note || qty, ' ' ORDER BY sku) FROM shop.stock") == "bad89 bad90 bad90"
    desk.clerk("UPDATE shop.stock SET note = 'counted' WHERE sku = 'sku1'")
    desk.undo(_of(desk, "R1"), recovery_id="R2")
    assert (
        desk.value("SELECT string_agg(note || qty, ' ' ORDER BY sku) FROM shop.stock") == "first99 counted100 first100"
    )
    assert desk.value("SELECT string_agg(status, ' ' ORDER BY id) FROM shop.payments WHERE id < 3") == "open mine"


def test_the_first_run_can_be_undone_anew_together_with_what_went_back_and_forth(desk: Desk) -> None:
    before = desk.dump()
    desk.bad(*DAMAGE)
    desk.undo(desk.spec(), recovery_id="R0")
    desk.undo(_of(desk, "R0"), recovery_id="R1")
    both = _of(desk, "R0", "R1")
    desk.undo(replace(both, runs=(*both.runs, *desk.spec().runs)), recovery_id="R2")
    assert desk.dump() == before


def test_part_of_an_undo_is_undone(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0", "UPDATE shop.payments SET amount = 0")
    desk.undo(desk.spec(), recovery_id="R0")
    desk.undo(replace(_of(desk, "R0"), only=("shop.payments",)), recovery_id="R1")
    assert desk.value("SELECT min(qty) FROM shop.stock") == 100
    assert desk.value("SELECT max(amount) FROM shop.payments") == 0
