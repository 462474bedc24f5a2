"""Undo is exact for every type and indifferent to how tables are named, keyed and tied to each other."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from undo_desk import TABLES, Desk, build, close

from snapshots.journal import install
from snapshots.model import TableSpec

pytestmark = pytest.mark.postgres

ODD = TableSpec(name="Odd shop.Rows %s", key=("Key a", "select"), additive=("cash", "spent"))
TREE = TableSpec(name="shop.tree", key=("id",))
LEAF = TableSpec(name="shop.leaf", key=("id",))
PARTS = TableSpec(name="shop.parts", key=("id", "half"))
SCHEMA = """
CREATE SCHEMA "Odd shop";
CREATE TYPE shop.pair AS (a int, b text);
CREATE DOMAIN shop.short AS varchar(5) CHECK (value <> 'no');
CREATE TABLE "Odd shop"."Rows %s" (
    "Key a" shop.short COLLATE "C", "select" numeric, "rows" shop.pair, f8 float8, f4 float4,
    b bytea, r int4range, net inet, bits varbit, ts tsvector, x point,
    gap interval, cash money, spent interval, o oid,
    names name[], dom shop.short[], doc json, "%" text, twice int GENERATED ALWAYS AS (1 + 1) STORED,
    ident int GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY ("Key a", "select")
);
CREATE TABLE shop.tree (id int PRIMARY KEY, up int REFERENCES shop.tree (id) ON DELETE CASCADE, n text);
CREATE TABLE shop.leaf (id int PRIMARY KEY, tree int REFERENCES shop.tree (id) ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO "Odd shop"."Rows %s" VALUES
    ('a', 1.0, '(1,"x, y")', '-0', 'NaN', '\\x00ff', '[1,5)', '10.0.0.1/8', B'101', 'a b', '(1,-0)', '1 mon 2 days',
     '1.50', '1 day', 7, '{"a b",NULL}', '{x,NULL}', '{"a":  1}', ''),
    ('b', 2.50, NULL, 'Infinity', 1e-30, '', 'empty', '::1', B'', '', NULL, '-1 sec',
     '0', '0', 0, '{}', NULL, '[]', ' ');
CREATE TABLE shop.parts (id int, half int, n text, PRIMARY KEY (id, half)) PARTITION BY LIST (half);
CREATE TABLE shop.parts_0 PARTITION OF shop.parts FOR VALUES IN (0);
CREATE TABLE shop.parts_1 (n text, half int NOT NULL, id int NOT NULL);
ALTER TABLE shop.parts ATTACH PARTITION shop.parts_1 FOR VALUES IN (1);
INSERT INTO shop.parts SELECT n, n % 2, 'first' FROM generate_series(1, 6) n;
INSERT INTO shop.tree VALUES (1, NULL, 'root'), (2, 1, 'a'), (3, 2, 'b');
INSERT INTO shop.leaf VALUES (1, 3), (2, 1);
GRANT USAGE ON SCHEMA "Odd shop" TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop, "Odd shop" TO recoverer, wf_bad, clerk;
GRANT SELECT ON ALL TABLES IN SCHEMA shop, "Odd shop" TO capturer;
"""
EXTRA = (ODD, TREE, LEAF, PARTS)
NAME = '"Odd shop"."Rows %s"'


@pytest.fixture
def desk(pg: Any) -> Iterator[Desk]:
    made = build(pg)
    owner = made.connections["installer"]
    try:
        owner.execute(SCHEMA.encode())
        owner.commit()
        install.install(owner, (*TABLES, *EXTRA), capturer="capturer", recoverer="recoverer")
        yield made
    finally:
        close(made)


def _all(desk: Desk) -> list[str]:
    queries = (
        f"SELECT t::text FROM {table} AS t ORDER BY 1" for table in (NAME, "shop.tree", "shop.leaf", "shop.parts")
    )
    with desk.capturer.transaction():
        return [row[0] for query in queries for row in desk.capturer.execute(query.encode())]


def _undo(desk: Desk) -> None:
    desk.undo(replace(desk.spec(), tables=(*TABLES, *EXTRA)))


def test_every_type_comes_back_exactly(desk: Desk) -> None:
    before = _all(desk)
    desk.bad(
        f"UPDATE {NAME} SET \"rows\" = NULL, f8 = 0, f4 = 1, b = NULL, r = '[1,6)', net = NULL, bits = B'1', ts = 'z', "
        "x = NULL, gap = '32 days', cash = '2', spent = '0', o = 1, names = NULL, "
        "dom = '{{a},{b}}', doc = '{\"a\": 1}', "
        '"%" = NULL'
    )
    desk.bad(f'DELETE FROM {NAME} WHERE "select" = 2.5')
    _undo(desk)
    assert _all(desk) == before


def test_equal_but_not_identical_values_are_told_apart(desk: Desk) -> None:
    """1.0 = 1.00 and -0 = 0 by the database's equality; json has none at all."""
    before = _all(desk)
    desk.bad(
        f'UPDATE {NAME} SET "select" = "select" + 0.00, f8 = f8 + 0.0, doc = \'{{"a": 1}}\', names = names WHERE o = 7'
    )
    assert _all(desk) != before
    _undo(desk)
    assert _all(desk) == before


def test_edits_merge_in_any_type(desk: Desk) -> None:
    desk.bad(f"UPDATE {NAME} SET cash = '9', spent = '9 days', r = NULL, x = NULL, f8 = 5")
    desk.clerk(
        f"UPDATE {NAME} SET cash = cash + '0.25', spent = spent + '1 hour', \"rows\" = '(2,z)', doc = '{{\"b\":1}}', "
        "bits = B'0', gap = '60 min', f8 = '-0', dom = '[0:1]={q,NULL}' WHERE o = 7"
    )
    _undo(desk)
    got = desk.value(f'SELECT (cash, spent, "rows", doc, bits, gap, f8, dom, r)::text FROM {NAME} WHERE o = 7')
    assert got == '($1.75,"1 day 01:00:00","(2,z)","{""b"":1}",0,01:00:00,-0,"[0:1]={q,NULL}","[1,5)")'


def test_cascades_and_self_references_come_back(desk: Desk) -> None:
    before = _all(desk)
    desk.bad("DELETE FROM shop.tree WHERE id = 1")
    desk.bad("INSERT INTO shop.tree VALUES (8, NULL), (9, 8)", "INSERT INTO shop.leaf VALUES (9, 9)")
    assert desk.value("SELECT count(*) FROM shop.leaf") == 1
    _undo(desk)
    assert _all(desk) == before


def test_a_cascaded_key_change_comes_back(desk: Desk) -> None:
    before = _all(desk)
    desk.bad("UPDATE shop.tree SET id = 30 WHERE id = 3")
    _undo(desk)
    assert _all(desk) == before


def test_partitions_come_back_wherever_they_were_written(desk: Desk) -> None:
    before = _all(desk)
    desk.bad(
        "UPDATE shop.parts SET n = 'bad' WHERE id < 5",
        "UPDATE shop.parts_1 SET n = 'worse'",
        "UPDATE shop.parts SET half = 1 - half WHERE id = 2",
        "DELETE FROM shop.parts_0 WHERE id = 6",
        "INSERT INTO shop.parts_1 VALUES ('made', 1, 9)",
    )
    _undo(desk)
    assert _all(desk) == before


def test_identity_columns_keep_their_numbers_and_sequences_do_not_go_back(desk: Desk) -> None:
    desk.bad(f"DELETE FROM {NAME}")
    _undo(desk)
    assert desk.value(f"SELECT string_agg(ident::text, ' ' ORDER BY ident) FROM {NAME}") == "1 2"
    desk.clerk(f'INSERT INTO {NAME} ("Key a", "select") VALUES (\'c\', 1)')
    assert desk.value(f"SELECT max(ident) FROM {NAME}") == 3
