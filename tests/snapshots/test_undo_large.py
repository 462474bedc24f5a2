"""A large update also names one column of each index: the rows are the same, and nobody else is told."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from undo_desk import CUSTOMERS, Desk, build, close

from snapshots.undo import write
from snapshots.undo.shape import Shape

pytestmark = pytest.mark.postgres


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    yield made
    close(made)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Every update is large. By table, which columns were named beside those that change."""
    seen: dict[str, list[str]] = {}
    ask = write._index_columns

    def listen(conn: psycopg.Connection[Any], shape: Shape, columns: list[str]) -> list[str]:
        seen[shape.name] = ask(conn, shape, columns)
        return seen[shape.name]

    monkeypatch.setattr(write, "MANY", 0)
    monkeypatch.setattr(write, "_index_columns", listen)
    return seen


def own(desk: Desk, *statements: str) -> None:
    with desk.connect("installer") as owner:
        for statement in statements:
            owner.execute(statement.encode())


def test_one_column_of_each_index_is_named(desk: Desk, named: dict[str, list[str]]) -> None:
    own(
        desk,
        "CREATE INDEX ON shop.orders (state, total)",
        "CREATE INDEX ON shop.orders (customer_id, note)",
        "CREATE INDEX ON shop.orders (serial)",
        "CREATE INDEX ON shop.orders (lower(note))",
    )
    before = desk.dump(CUSTOMERS)
    desk.bad("UPDATE shop.orders SET total = 0", "UPDATE shop.customers SET note = 'lost'")
    desk.clerk("UPDATE shop.orders SET code = 'cl' WHERE id = 'o7'")
    desk.undo(desk.spec())
    # Not the index on what changes anyway, nor on what is always the database's own number.
    assert named == {"shop.orders": ["id", "note"], "shop.customers": ["email", "id"]}
    assert desk.dump(CUSTOMERS)["shop.customers"] == before["shop.customers"]
    assert desk.value("SELECT count(*) FROM shop.orders WHERE total = substr(id, 2)::int * 1.5") == 40


def test_a_right_that_is_missing_is_not_used(desk: Desk, named: dict[str, list[str]]) -> None:
    own(
        desk, "REVOKE UPDATE ON shop.customers FROM recoverer", "GRANT UPDATE (id, note) ON shop.customers TO recoverer"
    )
    before = desk.dump(CUSTOMERS)
    desk.bad("UPDATE shop.customers SET note = 'lost'")
    desk.undo(desk.spec())
    assert named == {"shop.customers": ["id"]}
    assert desk.dump(CUSTOMERS) == before


def test_where_a_trigger_of_the_app_is_at_work_nothing_more_is_named(desk: Desk, named: dict[str, list[str]]) -> None:
    own(
        desk,
        "CREATE FUNCTION shop.never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'looked'; END $$",
        "CREATE TRIGGER never BEFORE UPDATE OF email ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.never()",
    )
    desk.bad("UPDATE shop.customers SET note = 'lost'")
    desk.undo(desk.spec())
    assert named == {}
    assert desk.value("SELECT count(note) FROM shop.customers") == 0
