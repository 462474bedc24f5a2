"""Every conflict can be listed with its three values, masked, from a bounded memory."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from undo_desk import PAYMENTS, TABLES, Desk, build, close

from snapshots.model import Policy, UndoSpec
from snapshots.undo import undo
from snapshots.undo.conflicts import MASKED, Value

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


def _listed(desk: Desk, spec: UndoSpec, **given: Any) -> dict[tuple[str, ...], tuple[str, dict[str, Value]]]:
    with undo.look(desk.capturer, spec) as seen:
        return {
            (d.conflict.table, *d.conflict.key): (d.conflict.kind, {v.column: v for v in d.values})
            for d in seen.disagreements(**given)
        }


def _value(column: str, before: str | None, now: str | None, wanted: str | None) -> Value:
    return Value(column=column, before=before, now=now, wanted=wanted)


def test_before_now_and_wanted(desk: Desk) -> None:
    desk.bad(
        "UPDATE shop.payments SET amount = 0, status = 'lost' WHERE id IN (1, 2)",
        "INSERT INTO shop.payments VALUES (50, 'o1', 1, 'bad')",
        "INSERT INTO shop.customers VALUES (100, 'x')",
        "UPDATE shop.customers SET email = NULL WHERE id = 1",
    )
    desk.clerk("UPDATE shop.payments SET amount = 9 WHERE id = 1", "DELETE FROM shop.payments WHERE id = 2")
    desk.clerk("UPDATE shop.payments SET status = 'checked' WHERE id = 50")
    desk.clerk("INSERT INTO shop.customers VALUES (20, 'c1@example.com')")
    desk.clerk("UPDATE shop.orders SET customer_id = 100 WHERE id = 'o1'")
    spec = desk.spec(policy=Policy.NON_CONFLICTING_ONLY)
    found = _listed(desk, spec, show_values=True)
    assert found["shop.payments", "1"] == (
        "later-same-column",
        {"amount": _value("amount", "1", "9", "9"), "status": _value("status", "open", "lost", "open")},
    )
    assert found["shop.payments", "2"] == (
        "row-gone",
        {
            "id": _value("id", "2", None, None),
            "order_id": _value("order_id", "o2", None, None),
            "amount": _value("amount", "2", None, None),
            "status": _value("status", "open", None, None),
        },
    )
    kind, values = found["shop.payments", "50"]
    assert (kind, values["status"]) == ("created-then-edited", _value("status", None, "checked", None))
    kind, values = found["shop.customers", "1"]
    assert (kind, values) == ("key-taken", {"email": _value("email", "c1@example.com", None, "c1@example.com")})
    kind, values = found["shop.customers", "100"]
    assert (kind, values["email"]) == ("referenced", _value("email", None, "x", None))
    assert len(found) == 5


def test_values_are_masked_in_the_database_unless_public(desk: Desk) -> None:
    desk.bad("UPDATE shop.payments SET amount = 0, status = NULL WHERE id = 1")
    desk.clerk("UPDATE shop.payments SET amount = 9 WHERE id = 1")
    tables = tuple(replace(t, public=("amount",)) if t is PAYMENTS else t for t in TABLES)
    ((_, values),) = _listed(desk, desk.spec(tables=tables)).values()
    assert values == {"amount": _value("amount", "1", "9", "9"), "status": _value("status", MASKED, None, MASKED)}


def test_all_of_them_and_not_at_once(desk: Desk) -> None:
    rows = 8_000
    desk.bad(
        f"INSERT INTO shop.payments SELECT n, 'o1', 1, repeat('x', 100) FROM generate_series(1001, 1000 + {rows}) n"
    )
    desk.clerk("UPDATE shop.payments SET amount = 2 WHERE id > 1000")
    with undo.look(desk.capturer, desk.spec()) as seen:
        assert len(seen.preview.conflicts) == 500
        tracemalloc.start()
        try:
            assert sum(1 for _ in seen.disagreements(show_values=True)) == rows
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 3_000_000
