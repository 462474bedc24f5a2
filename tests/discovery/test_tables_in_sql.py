"""What SQL reads and writes: by examples, and with any text at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from discovery.placeholders import MARK, neutral
from discovery.sql_use import ALL
from discovery.tables_in_sql import LARGEST, read
from tests.discovery.shapes import SHOP

Columns = dict[str, str]


def spelled(columns: dict[str, set[str]]) -> Columns:
    return {t.removeprefix("public."): " ".join(sorted(c)) for t, c in columns.items() if c}


READS: list[tuple[str, Columns]] = [
    ("SELECT total FROM orders WHERE id = $1", {"orders": "id total"}),
    ("SELECT * FROM public.orders", {"orders": ALL}),
    ("SELECT o.* FROM orders o JOIN items i ON i.order_id = o.id", {"orders": "* id", "items": "order_id"}),
    ("SELECT count(*) FROM orders", {}),
    ("SELECT qty FROM orders, items", {"items": "qty"}),
    ("SELECT sku FROM items JOIN stock USING (sku)", {"items": "sku", "stock": "sku"}),
    ("WITH o AS (SELECT id, total FROM orders) SELECT total FROM o", {"orders": "id total"}),
    ("WITH orders AS (SELECT 1 AS total) SELECT total FROM orders", {}),
    ("WITH RECURSIVE r AS (SELECT id FROM items UNION ALL SELECT r.id FROM r) SELECT * FROM r", {"items": "id"}),
    ("SELECT (SELECT max(total) FROM orders WHERE customer = p.name) FROM crm.people p",
     {"orders": "customer total", "crm.people": "name"}),
    ("SELECT x FROM (SELECT total AS x FROM orders) AS s", {"orders": "total"}),
    ("SELECT 1 FROM items WHERE EXISTS (SELECT FROM orders WHERE id = order_id)",
     {"items": "order_id", "orders": "id"}),
    ("SELECT total FROM orders UNION SELECT level FROM stock", {"orders": "total", "stock": "level"}),
    ("SELECT * FROM open_orders", {"orders": ALL}),
    ("SELECT row_to_json(o) FROM orders o", {"orders": ALL}),
    ("SELECT e.id FROM jsonb_to_record($1::jsonb) AS e (id text)", {}),
    ("SELECT i.qty FROM orders o, LATERAL (SELECT qty FROM items WHERE order_id = o.id) i",
     {"orders": "id", "items": "order_id qty"}),
    ('SELECT "userName" FROM "Odd"', {"Odd": "userName"}),
    ("SELECT Total FROM ORDERS", {"orders": "total"}),
    ("SELECT total FROM orders LIMIT {{ $json.n }}", {"orders": "total"}),
    ("=SELECT total FROM orders WHERE customer = '{{ $json.name }}'", {"orders": "customer total"}),
    ("SELECT total FROM orders WHERE id = {{{ msg.payload }}} OR id = $id OR id = ${msg.id}", {"orders": "id total"}),
    ("SELECT total FROM orders WHERE id IN ($1:csv) AND status = :status", {"orders": "id status total"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), READS)
def test_reads(text: str, expected: Columns) -> None:
    use = read(text, SHOP)
    assert spelled(use.reads) == expected
    assert use.writes == set()
    assert use.unsure == []


WRITES: list[tuple[str, Columns, Columns, str, Columns]] = [
    # text, inserts, updates, deletes, reads
    ("INSERT INTO orders (id, total) VALUES ($1, $2)", {"orders": "id total"}, {}, "", {}),
    ("INSERT INTO orders VALUES (1, 'a') RETURNING id, total", {"orders": ALL}, {}, "", {}),
    ("INSERT INTO items (sku, price) SELECT sku, level FROM stock", {"items": "price sku"}, {}, "",
     {"stock": "level sku"}),
    ("INSERT INTO stock (sku, level) VALUES ($1, 1) ON CONFLICT (sku) DO UPDATE SET level = stock.level + 1",
     {"stock": "level sku"}, {"stock": "level"}, "", {}),
    ("INSERT INTO stock (sku, level) VALUES ($1, 1) ON CONFLICT (sku) DO NOTHING", {"stock": "level sku"}, {}, "", {}),
    ("UPDATE orders SET status = 'paid' WHERE id = $1", {}, {"orders": "status"}, "", {}),
    ("UPDATE orders SET (status, total) = ($1, $2)", {}, {"orders": "status total"}, "", {}),
    ("UPDATE orders o SET total = s.sum FROM (SELECT order_id, sum(qty) AS sum FROM items GROUP BY 1) s"
     " WHERE s.order_id = o.id", {}, {"orders": "total"}, "", {"items": "order_id qty"}),
    ("UPDATE stock SET level = level - $1 WHERE sku = $2", {}, {"stock": "level"}, "", {}),
    ("UPDATE stock SET level = reserved WHERE sku = $2", {}, {"stock": "level"}, "", {"stock": "reserved"}),
    ("UPDATE orders SET status = 'old' WHERE status = 'new' AND placed_at < now()", {}, {"orders": "status"}, "",
     {"orders": "placed_at status"}),
    ("DELETE FROM items USING orders WHERE orders.id = items.order_id AND orders.status = 'x'", {}, {}, "items",
     {"orders": "id status"}),
    ("WITH gone AS (DELETE FROM orders WHERE id = $1 RETURNING id) INSERT INTO items (order_id) SELECT id FROM gone",
     {"items": "order_id"}, {}, "orders", {"orders": "id"}),
    ("MERGE INTO stock AS s USING items AS i ON s.sku = i.sku WHEN MATCHED THEN UPDATE SET level = s.level - i.qty"
     " WHEN NOT MATCHED THEN INSERT (sku, level) VALUES (i.sku, 0)", {"stock": "level sku"}, {"stock": "level"}, "",
     {"items": "qty sku"}),
    ("MERGE INTO stock s USING items i ON s.sku = i.sku WHEN MATCHED THEN DELETE", {}, {}, "stock", {"items": "sku"}),
    ("TRUNCATE orders, items", {}, {}, "items orders", {}),
    ("COPY stock (sku, level) FROM STDIN", {"stock": "level sku"}, {}, "", {}),
    ("UPDATE stock SET level = 1; DELETE FROM items", {}, {"stock": "level"}, "items", {}),
    ("INSERT INTO orders (id) VALUES ('{{ $json.id }}'), ({{ $json.other }})", {"orders": "id"}, {}, "", {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "inserts", "updates", "deletes", "reads"), WRITES)
def test_writes(text: str, inserts: Columns, updates: Columns, deletes: str, reads: Columns) -> None:
    use = read(text, SHOP)
    assert spelled(use.inserts) == inserts
    assert spelled(use.updates) == updates
    assert " ".join(sorted(t.removeprefix("public.") for t in use.deletes)) == deletes
    assert spelled(use.reads) == reads
    assert use.unsure == []


def test_a_counter_is_set_to_itself_and_more() -> None:
    for right in ("level + 1", "stock.level - $1", "1 + level", "coalesce(level, 0) + $1"):
        assert read(f"UPDATE stock SET level = {right}", SHOP).counters == {"public.stock": {"level"}}, right
    for right in ("1 - level", "reserved + 1", "level * 2", "$1"):
        use = read(f"UPDATE stock SET level = {right}", SHOP)
        assert (use.counters, use.not_counters) == ({}, {"public.stock": {"level"}}), right


def test_what_finds_a_row_to_write_is_told_from_what_decides() -> None:
    use = read("UPDATE orders o SET status = 'x' FROM items i WHERE o.id = i.order_id AND o.total > 5", SHOP)
    assert use.finds == {"public.orders": {"id"}}
    assert spelled(use.reads) == {"items": "order_id", "orders": "total"}


UNSURE = [
    ("SELECT * FROM {{ $json.table }}", "only named at run time"),
    ("UPDATE prefix_{{ $json.t }} SET a = 1", "it writes is only named at run time"),
    ("SELECT * FROM nowhere", "public.nowhere is not in the database"),
    ("SELECT other.thing(id) FROM orders", "other.thing is not in the database"),
    ("CALL tidy(1)", "CALL does what"),
    ("DO $$ BEGIN DELETE FROM orders; END $$", "DO does what"),
    ("CREATE TABLE x AS SELECT id FROM orders", "changes the shape"),
    ("UPDATE open_orders SET status = 'x'", "writes through the view"),
    ("{{ $json.query }}", ""),
    ("SELEC total FRM orders WHERE (", "cannot be parsed"),
    ("UPDATE orders SET FROM WHERE", "it names public.orders"),
    ("x" * (LARGEST + 1), "too long"),
]


@pytest.mark.parametrize(("text", "why"), UNSURE)
def test_what_cannot_be_known_is_said(text: str, why: str) -> None:
    use = read(text, SHOP)
    assert any(why in u for u in use.unsure), use.unsure
    assert use.writes == set()


def test_functions_of_the_app_are_named_and_pure_ones_are_not() -> None:
    assert read("SELECT book($1), vat(2), now()", SHOP).functions == {"public.book"}
    assert read("SELECT public.book($1)", SHOP).functions == {"public.book"}


def test_placeholders_become_names() -> None:
    text = neutral("=SELECT {{ $json.a }}, '${b}', $1, $2:name, $name, :kept, {{{ c }}} FROM t_{{ d }} -- $$x$$")
    assert "{{" not in text
    assert text.count(MARK) == 6
    assert "$1" in text
    assert ":kept" in text
    assert f"t_{MARK}" in text


WORDS = (
    "SELECT FROM orders items INSERT INTO UPDATE SET WHERE = ( ) , ; * WITH x AS DELETE USING MERGE $1 {{ a }} ' \""
    " JOIN ON id total VALUES 1 UNION RETURNING o . LATERAL NOT EXISTS IN CASE WHEN THEN END :: jsonb [ ]"
)
TEXT = st.text(max_size=80) | st.lists(st.sampled_from(WORDS.split()), max_size=24).map(" ".join)


@given(TEXT)
@example("(" * 3000)
@example("SELECT " + "(SELECT " * 200 + "1" + ")" * 200)
@settings(max_examples=400, deadline=None)
def test_no_text_breaks_it(text: str) -> None:
    use = read(text, SHOP)
    known = set(SHOP.tables)
    assert use.writes <= known
    assert set(use.reads) <= known
    assert all(isinstance(u, str) and "\n" not in u for u in use.unsure)
