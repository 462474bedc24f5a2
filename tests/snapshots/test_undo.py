"""Undo takes back what the selection wrote, exactly, and nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from undo_desk import Desk, build, close

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(app_db: Any) -> Iterator[Desk]:
    made = build(app_db)
    yield made
    close(made)


def test_everything_a_run_did_is_taken_back(desk: Desk) -> None:
    before = desk.dump()
    desk.bad(
        "UPDATE shop.orders SET total = 0, tags = '{{1,2},{3,4}}', meta = '{\"x\": 1.10}', code = 'z' WHERE id < 'o3'",
        "DELETE FROM shop.items WHERE order_id IN ('o5', 'o6')",
        "DELETE FROM shop.orders WHERE id = 'o5'",
        "INSERT INTO shop.customers VALUES (100, 'x@example.com')",
        "INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 100, 3), ('n2', 1, 4)",
        "INSERT INTO shop.items VALUES ('n1', 1, 'sku1', 2)",
        "UPDATE shop.stock SET qty = qty - 2",
    )
    assert desk.dump() != before
    done = desk.undo(desk.spec())
    assert desk.dump() == before
    assert done.detail["tables"]["shop.orders"] == {"delete": 2, "update": 22, "insert": 1, "merged": 0}


def test_later_edits_of_other_columns_are_kept(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET state = 'sent' WHERE id IN ('o1', 'o2')")
    desk.clerk("UPDATE shop.orders SET note = 'call back' WHERE id = 'o1'")
    desk.undo(desk.spec())
    assert desk.value("SELECT (state, note)::text FROM shop.orders WHERE id = 'o1'") == '(new,"call back")'
    assert desk.value("SELECT (state, note)::text FROM shop.orders WHERE id = 'o2'") == "(new,first)"


def test_a_later_legitimate_value_between_two_bad_ones_comes_back(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET note = 'X' WHERE id = 'o1'")
    desk.clerk("UPDATE shop.orders SET note = 'B' WHERE id = 'o1'")
    desk.bad("UPDATE shop.orders SET note = 'X' WHERE id = 'o1'")
    desk.undo(desk.spec())
    assert desk.value("SELECT note FROM shop.orders WHERE id = 'o1'") == "B"


def test_counters_are_merged_by_difference(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 7 WHERE sku = 'sku0'")
    desk.good("UPDATE shop.stock SET qty = qty - 1 WHERE sku = 'sku0'")
    desk.good("UPDATE shop.stock SET qty = qty - 2, note = 'counted' WHERE sku = 'sku0'")
    desk.undo(desk.spec())
    assert desk.value("SELECT (qty, note)::text FROM shop.stock WHERE sku = 'sku0'") == "(97,counted)"
