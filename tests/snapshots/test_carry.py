"""Carry: people's edits that were undone with the rows they were made on come back after the replay."""

from collections.abc import Iterator
from typing import Any

import pytest
from undo_desk import Desk, build, close

from snapshots.model import Applied
from snapshots.undo import carry
from snapshots.undo.errors import StepTaken, UndoBusy, UndoRefused

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


def _carry(desk: Desk, *xids: int, **changes: Any) -> Applied:
    call = {"recovery_id": "rec-1", "step": "carry", "plan_hash": "h", **changes}
    return carry.apply(desk.recoverer, call.pop("spec", desk.spec()), xids, **call)


def _order(desk: Desk, run: str, total: int) -> None:
    desk.good(f"INSERT INTO shop.orders (id, customer_id, total, note) VALUES ('n1', 1, {total}, 'made')", run=run)


def test_an_edit_comes_back_on_the_replayed_row(desk: Desk) -> None:
    desk.bad("INSERT INTO shop.orders (id, customer_id, total, note) VALUES ('n1', 1, 3, 'made')")
    edit = desk.clerk(
        "UPDATE shop.orders SET note = 'gift', tags = '{{1},{2}}' WHERE id = 'n1'",
        "INSERT INTO shop.payments VALUES (50, 'n1', 1, 'cash')",
        "DELETE FROM shop.payments WHERE id = 1",
        "UPDATE shop.stock SET qty = qty - 3 WHERE sku = 'sku0'",
    )
    desk.undo(desk.spec("bad-1", xids=[edit]))
    _order(desk, "replay", 30)
    done = _carry(desk, edit)
    assert desk.value("SELECT (total, gross, note, tags)::text FROM shop.orders WHERE id = 'n1'") == (
        '(30.00,36.000,gift,"{{1},{2}}")'
    )
    assert (
        desk.value("SELECT string_agg(id || status, ' ' ORDER BY id) FROM shop.payments WHERE id IN (1, 50)")
        == "50cash"
    )
    assert desk.value("SELECT qty FROM shop.stock WHERE sku = 'sku0'") == 97
    assert done.detail["tables"]["shop.payments"] == {"insert": 1, "update": 0, "delete": 1}
    assert not done.detail["missing"]
    assert desk.preview(desk.spec("bad-1", xids=[edit])).empty


def test_edits_are_carried_in_their_order_onto_counters_by_difference(desk: Desk) -> None:
    first = desk.clerk("UPDATE shop.stock SET qty = 90, note = 'a' WHERE sku = 'sku0'")
    second = desk.clerk("UPDATE shop.stock SET qty = 95, note = 'b' WHERE sku = 'sku0'")
    desk.undo(desk.spec(xids=[first, second]))
    desk.good("UPDATE shop.stock SET qty = qty - 1 WHERE sku = 'sku0'")
    _carry(desk, second, first)
    assert desk.value("SELECT (qty, note)::text FROM shop.stock WHERE sku = 'sku0'") == "(94,b)"


def test_what_cannot_be_carried_is_listed(desk: Desk) -> None:
    desk.bad("INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 1, 3)")
    gone = desk.clerk("UPDATE shop.orders SET note = 'gift' WHERE id = 'n1'")
    item = desk.clerk("INSERT INTO shop.items VALUES ('n1', 1, 'sku1', 1)", "UPDATE shop.stock SET note = 'item'")
    paid = desk.clerk("INSERT INTO shop.payments VALUES (50, 'n1', 1, 'cash')")
    other = desk.clerk("INSERT INTO shop.payments VALUES (51, 'o1', 1, 'cash'), (52, 'o1', 1, 'cash')")
    desk.undo(desk.spec("bad-1", xids=[gone, item, paid, other]))
    desk.good("INSERT INTO shop.payments VALUES (51, 'o2', 2, 'card'), (52, 'o1', 1, 'cash')")
    done = _carry(desk, gone, item, paid, other)
    assert done.detail["missing"] == [{"table": "shop.orders", "key": ["n1"], "xid": gone}]
    assert done.detail["exists"] == [{"table": "shop.payments", "key": ["51"], "xid": other}]
    assert [(row["xid"], row["cause"]) for row in done.detail["refused"]] == [
        (item, "items_order_id_fkey"),
        (paid, "shop.payments would reference missing rows of shop.orders"),
    ]
    assert desk.value("SELECT note FROM shop.stock LIMIT 1") == "first"


def test_carrying_twice_changes_nothing(desk: Desk) -> None:
    edit = desk.clerk("UPDATE shop.stock SET qty = qty - 3")
    desk.undo(desk.spec(xids=[edit]))
    first = _carry(desk, edit)
    assert _carry(desk, edit) == first
    assert desk.value("SELECT min(qty) FROM shop.stock") == 97
    with pytest.raises(StepTaken):
        _carry(desk, edit, plan_hash="other")


def test_triggers_of_the_app_do_not_meddle_and_are_on_again(desk: Desk) -> None:
    edit = desk.clerk("UPDATE shop.orders SET total = 50 WHERE id = 'o1'")
    after = desk.dump()
    desk.undo(desk.spec(xids=[edit]))
    _carry(desk, edit)
    assert desk.dump() == after
    assert desk.value("SELECT count(*) FROM pg_trigger WHERE tgenabled = 'D'") == 0


def test_a_carry_that_cannot_run_changes_nothing(desk: Desk) -> None:
    edit = desk.clerk("DELETE FROM shop.payments")
    desk.undo(desk.spec(xids=[edit]))
    before = desk.dump()
    with pytest.raises(UndoRefused, match="transaction 3 is not in the journal"):
        _carry(desk, edit, 3)
    with pytest.raises(UndoRefused, match=r"10 changes \(10 deletes\) would be carried"):
        _carry(desk, edit, spec=desk.spec(max_deleted_rows=9))
    writer = desk.connections["wf_good"]
    with writer.transaction():
        writer.execute("UPDATE shop.payments SET status = 'x'")
        with pytest.raises(UndoBusy):
            _carry(desk, edit, lock_timeout_s=0.2)
        writer.execute("UPDATE shop.payments SET status = 'open'")
    assert desk.dump() == before
    assert desk.value("SELECT count(*) FROM reinstate.applied WHERE step = 'carry'") == 0


def test_nothing_to_carry_is_a_step_too(desk: Desk) -> None:
    assert _carry(desk).detail["tables"] == {}
