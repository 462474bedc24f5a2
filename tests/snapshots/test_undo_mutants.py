"""The tests can tell right from wrong: rules that look plausible give other rows, and are caught."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from psycopg import sql
from undo_desk import ITEMS, ORDERS, Desk, build, close

from snapshots.undo import chain, merge, relations, undo
from snapshots.undo.errors import UndoRefused
from snapshots.undo.shape import Column, Shape, col

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


def _undo(desk: Desk) -> None:
    spec = desk.spec()
    expected = desk.preview(spec).counts
    undo.apply(desk.recoverer, spec, recovery_id="r", step="s", plan_hash="h", expected=expected)


def _first_image_by_sequence(conn: Any, shape: Shape) -> int:
    """The prototype: DISTINCT ON (key) ... ORDER BY key, seq over the selected old images."""
    rows = _link(conn, shape)
    conn.execute(
        sql.SQL(
            "UPDATE {row} AS r SET rj_base = o.rj_id, rj_start = o.rj_id FROM (SELECT DISTINCT ON (i.rj_xid, {key}) "
            "i.rj_id, {keys} FROM {img} AS i JOIN pg_temp.rj_sel AS s ON s.xid = i.rj_xid WHERE i.rj_side = 'o' "
            "ORDER BY i.rj_xid, {key}, i.rj_id) AS o WHERE {same}"
        ).format(
            row=shape.temp("row"),
            img=shape.temp("img"),
            key=col("i", shape.key[0]),
            keys=shape.keys_from("i"),
            same=shape.same_key("r", "o"),
        )
    )
    return rows


_link = chain.link


@pytest.mark.parametrize("mutated", [False, True])
def test_the_first_image_by_sequence_is_not_the_state_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, mutated: bool
) -> None:
    if mutated:
        monkeypatch.setattr(chain, "link", _first_image_by_sequence)
    before = desk.dump(ORDERS)
    desk.bad("UPDATE shop.orders SET total = total * 10")
    _undo(desk)
    assert (desk.dump(ORDERS) == before) is not mutated


@pytest.mark.parametrize("mutated", [False, True])
def test_without_merging_columns_edits_are_lost(desk: Desk, monkeypatch: pytest.MonkeyPatch, mutated: bool) -> None:
    def start(shape: Shape, n: int, column: Column) -> sql.Composable:
        return col("s", column.name)

    if mutated:
        monkeypatch.setattr(merge, "_value", start)
    desk.bad("UPDATE shop.orders SET state = 'sent' WHERE id = 'o1'")
    desk.clerk("UPDATE shop.orders SET note = 'mine' WHERE id = 'o1'")
    _undo(desk)
    kept = desk.value("SELECT (state, note)::text FROM shop.orders WHERE id = 'o1'") == "(new,mine)"
    assert kept is not mutated


@pytest.mark.parametrize("mutated", [False, True])
def test_without_cancelling_an_undo_is_undone_again(desk: Desk, mutated: bool) -> None:
    desk.bad("UPDATE shop.stock SET qty = 7", "DELETE FROM shop.payments WHERE id = 1")
    _undo(desk)
    done = undo.applied(desk.recoverer, "r", "s")
    assert done is not None
    desk.recoverer.rollback()
    again = desk.preview(replace(desk.spec(), cancelled=() if mutated else (done.xid,)))
    assert (again.empty and not again.problems) is not mutated


@pytest.mark.parametrize("mutated", [False, True])
def test_without_relations_a_needed_row_would_go(desk: Desk, monkeypatch: pytest.MonkeyPatch, mutated: bool) -> None:
    """The last check in the transaction catches what the computation missed."""
    if mutated:
        monkeypatch.setattr("snapshots.undo.plan.mark_conflicts", lambda *_: None)
    desk.bad("INSERT INTO shop.orders (id, customer_id, total) VALUES ('n1', 1, 3)")
    desk.clerk("INSERT INTO shop.payments VALUES (50, 'n1', 3, 'paid')")
    before = desk.dump()
    match = "would reference missing rows of shop.orders" if mutated else relations.REFERENCED
    with pytest.raises(UndoRefused, match=match):
        _undo(desk)
    assert desk.dump() == before


@pytest.mark.parametrize("mutated", [False, True])
def test_a_table_left_out_is_noticed(desk: Desk, mutated: bool) -> None:
    desk.bad("DELETE FROM shop.items WHERE order_id = 'o1'", "UPDATE shop.orders SET note = 'x' WHERE id = 'o1'")
    tables = tuple(table for table in desk.spec().tables if not (mutated and table is ITEMS))
    assert bool(desk.preview(desk.spec(tables=tables)).problems) is mutated
