"""Undo takes back what the selection wrote, exactly, and nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from undo_desk import STOCK, Desk, build, close

from snapshots.model import RunRef

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
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


def test_an_own_row_trigger_that_journals_first_is_unravelled(desk: Desk) -> None:
    before = desk.dump()
    desk.bad("UPDATE shop.orders SET total = total * 10")
    twin = desk.value("SELECT twin FROM reinstate.journal_table WHERE table_name = 'shop.orders'")
    inner_first = (
        f"SELECT (array_agg(gross ORDER BY rj_seq))[1] <> 1.8 FROM reinstate.{twin} WHERE id = 'o1' AND rj_side = 'n'"
    )
    assert desk.value(inner_first)
    desk.undo(desk.spec())
    assert desk.dump() == before


def test_a_net_change_of_nothing_is_not_selected(desk: Desk) -> None:
    desk.bad(
        "UPDATE shop.stock SET note = 'x' WHERE sku = 'sku0'", "UPDATE shop.stock SET note = 'first' WHERE sku = 'sku0'"
    )
    assert desk.preview(desk.spec()).counts[0].table == "shop.stock"
    assert desk.preview(desk.spec()).empty


def test_deletes_and_inserts_of_one_key_fold(desk: Desk) -> None:
    before = desk.dump(STOCK)
    desk.bad("DELETE FROM shop.stock WHERE sku = 'sku0'")
    desk.bad("INSERT INTO shop.stock VALUES ('sku0', 5, 'bad')")
    desk.bad("UPDATE shop.stock SET qty = 6 WHERE sku = 'sku0'")
    desk.undo(desk.spec())
    assert desk.dump(STOCK) == before


def test_a_row_made_by_others_survives_bad_deletes_and_edits(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET note = 'bad' WHERE sku = 'sku0'")
    desk.good("DELETE FROM shop.stock WHERE sku = 'sku0'")
    desk.good("INSERT INTO shop.stock VALUES ('sku0', 50, 'recount')")
    desk.bad("UPDATE shop.stock SET qty = 0, note = 'bad' WHERE sku = 'sku0'")
    desk.good("UPDATE shop.stock SET qty = qty + 3 WHERE sku = 'sku0'")
    desk.bad("DELETE FROM shop.stock WHERE sku = 'sku0'")
    desk.undo(desk.spec())
    assert desk.value("SELECT (qty, note)::text FROM shop.stock WHERE sku = 'sku0'") == "(53,recount)"


def test_a_changed_key_is_put_back(desk: Desk) -> None:
    before = desk.dump()
    desk.bad("UPDATE shop.stock SET sku = 'moved' WHERE sku = 'sku1'")
    desk.undo(desk.spec())
    assert desk.dump() == before


def test_a_later_legitimate_delete_stays(desk: Desk) -> None:
    desk.bad("UPDATE shop.payments SET status = 'lost' WHERE id <= 2")
    desk.clerk("DELETE FROM shop.payments WHERE id = 1")
    shown = desk.preview(desk.spec())
    assert [(c.key, c.kind, c.blocking) for c in shown.conflicts] == [(("1",), "row-gone", False)]
    desk.undo(desk.spec())
    assert desk.value("SELECT string_agg(id || status, ' ' ORDER BY id) FROM shop.payments WHERE id < 3") == "2open"


def test_a_later_value_on_the_same_column_stands_and_is_listed(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET note = 'bad', state = 'sent' WHERE id = 'o1'")
    desk.clerk("UPDATE shop.orders SET note = 'mine' WHERE id = 'o1'")
    shown = desk.preview(desk.spec())
    assert [(c.kind, c.columns, c.blocking) for c in shown.conflicts] == [
        ("later-same-column", ("note", "touched"), False)
    ]
    assert not shown.problems
    desk.undo(desk.spec())
    assert desk.value("SELECT (state, note)::text FROM shop.orders WHERE id = 'o1'") == "(new,mine)"


def test_arrays_of_other_dimensions_and_nulls_merge(desk: Desk) -> None:
    desk.bad("UPDATE shop.orders SET tags = '[5:6]={1,2}', meta = NULL, note = NULL WHERE id = 'o1'")
    desk.clerk("UPDATE shop.orders SET tags = '{{1},{2}}', raw = '{\"a\":   1}' WHERE id = 'o1'")
    desk.bad("UPDATE shop.orders SET tags = NULL, meta = '{}', raw = '1' WHERE id = 'o1'")
    desk.undo(desk.spec())
    got = desk.value("SELECT (tags, meta, note, raw)::text FROM shop.orders WHERE id = 'o1'")
    assert got == '("{{1},{2}}","{""n"": 1}",first,"{""a"":   1}")'


def test_a_null_counter_takes_the_last_value(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 1")
    desk.good(
        "UPDATE shop.stock SET qty = NULL WHERE sku = 'sku0'", "UPDATE shop.stock SET qty = qty - 1 WHERE sku = 'sku1'"
    )
    desk.good("UPDATE shop.stock SET qty = 40 WHERE sku = 'sku0'")
    desk.undo(desk.spec())
    assert desk.value("SELECT string_agg(qty::text, ' ' ORDER BY sku) FROM shop.stock") == "40 99 100"


def test_truncate_is_taken_back(desk: Desk) -> None:
    before = desk.dump()
    desk.act("installer", "bad-9", "TRUNCATE shop.items")
    desk.undo(replace(desk.spec(), runs=(RunRef(actor="installer", run="bad-9"),)))
    assert desk.dump() == before


def test_transactions_can_be_named_instead_of_runs(desk: Desk) -> None:
    before = desk.dump()
    xid = desk.act("wf_bad", None, "UPDATE shop.orders SET total = 0")
    assert desk.preview(desk.spec()).empty
    assert desk.preview(desk.spec(xids=[xid])).first_at is not None
    desk.undo(desk.spec(xids=[xid]))
    assert desk.dump() == before


def test_a_parent_made_by_the_run_goes_after_its_child_is_pointed_back(desk: Desk) -> None:
    before = desk.dump()
    desk.bad(
        "INSERT INTO shop.customers VALUES (100, NULL)",
        "UPDATE shop.orders SET customer_id = 100 WHERE id < 'o2'",
        "DELETE FROM shop.customers WHERE id NOT IN (SELECT customer_id FROM shop.orders)",
    )
    desk.undo(desk.spec())
    assert desk.dump() == before


def test_the_undo_is_journaled_as_the_recovery(desk: Desk) -> None:
    desk.bad("UPDATE shop.stock SET qty = 0")
    done = desk.undo(desk.spec())
    twin = desk.value("SELECT twin FROM reinstate.journal_table WHERE table_name = 'shop.stock'")
    who = desk.value(f"SELECT DISTINCT (rj_actor, rj_run)::text FROM reinstate.{twin} WHERE rj_xid = '{done.xid}'")
    assert who == "(recoverer,rec-1)"
    assert desk.value("SELECT count(*) FROM pg_trigger WHERE tgenabled = 'D'") == 0
    assert desk.value("SELECT count(*) FROM reinstate.trigger_off") == 0


def test_after_an_undo_others_go_on_and_nothing_is_left(desk: Desk) -> None:
    desk.bad(
        "UPDATE shop.stock SET qty = 7",
        "DELETE FROM shop.payments WHERE id = 1",
        "INSERT INTO shop.payments VALUES (99)",
    )
    desk.good("UPDATE shop.stock SET qty = qty - 1")
    desk.undo(desk.spec())
    desk.good(
        "UPDATE shop.stock SET qty = qty - 5, note = 'more'",
        "UPDATE shop.payments SET status = 'paid' WHERE id = 1",
        "INSERT INTO shop.payments VALUES (99, 'o1', 1, 'replayed')",
    )
    after = desk.dump()
    desk.undo(desk.spec())
    assert desk.dump() == after
    assert desk.value("SELECT max(qty) FROM shop.stock") == 94
