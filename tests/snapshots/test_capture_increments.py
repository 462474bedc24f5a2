"""A point that leans on another holds exactly what live held, whichever way the changes were found."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from point_desk import CUSTOMERS, LOG, ORDERS, TABLES, WORKFLOWS, Told, build, write

from snapshots import database
from snapshots.capture import capture, increments
from snapshots.journal import journal
from snapshots.model import RecoveryPoint, TableSpec
from snapshots.points import chunks, points, reading
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres

MIXED = TableSpec(name="shop.mixed", key=("at", "ref"))
SHELF = TableSpec(name="shop.shelf", key=("a", "b"))
PARTS = TableSpec(name="shop.parts", key=("id",))
PRICES = TableSpec(name="shop.prices", key=("price",))
SPANS = TableSpec(name="shop.spans", key=("span",))
KINDS = (MIXED, SHELF, PARTS, PRICES, SPANS)
MORE = """
CREATE TABLE shop.mixed (at timestamptz, ref varchar(20), data bytea, f real, PRIMARY KEY (at, ref));
INSERT INTO shop.mixed SELECT '2026-01-01'::timestamptz + n * interval '1 s', 'r"' || n, decode(md5(n::text), 'hex'), n
    FROM generate_series(1, 60) n;
CREATE TABLE shop.shelf (a bigint, b uuid, n int GENERATED ALWAYS AS (a * 2) STORED, note text, PRIMARY KEY (a, b));
INSERT INTO shop.shelf (a, b, note)
    SELECT n % 7 - 3, md5(n::text)::uuid, CASE WHEN n % 3 = 0 THEN '' END FROM generate_series(1, 90) n;
CREATE TABLE shop.parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (50);
CREATE TABLE shop.parts_2 (v text, id int PRIMARY KEY);
ALTER TABLE shop.parts ATTACH PARTITION shop.parts_2 FOR VALUES FROM (50) TO (100);
INSERT INTO shop.parts SELECT n, 'v' || n FROM generate_series(1, 99) n;
CREATE TABLE shop.prices (price numeric PRIMARY KEY, note text);
INSERT INTO shop.prices SELECT n * 1.10, 'p' FROM generate_series(1, 40) n;
CREATE TABLE shop.spans (span interval PRIMARY KEY, note text);
INSERT INTO shop.spans SELECT n * interval '1 hour', 's' FROM generate_series(1, 40) n;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO capturer;
"""
ROUNDS = (
    (
        "UPDATE shop.orders SET total = total + 1 WHERE id % 40 = 3",
        "DELETE FROM shop.orders WHERE id IN (7, 200)",
        "INSERT INTO shop.orders (customer_id, total) VALUES (1, 5), (2, 6)",
        "UPDATE shop.orders SET id = 1000 WHERE id = 11",
        "UPDATE shop.mixed SET ref = 'other', f = 'NaN' WHERE f IN (3, 4)",
        "DELETE FROM shop.mixed WHERE f = 9",
        "DELETE FROM shop.shelf WHERE note = '' AND a = -3",
        "UPDATE shop.shelf SET a = 9 WHERE a = 2 AND note IS NULL",
        "DELETE FROM shop.parts WHERE id IN (45, 99, 60, 61)",
        "UPDATE shop.parts SET id = id + 56 WHERE id = 5",  # to the other partition
        "UPDATE shop.prices SET price = 1.1 WHERE price = 1.10",
        "DELETE FROM shop.prices WHERE price = 4.40",
        "UPDATE shop.spans SET note = 'x' WHERE span = '1 hour'",
    ),
    ("UPDATE shop.log SET line = 'other' WHERE line = 'line 1'",),
    (
        "INSERT INTO shop.orders (id, customer_id, total) VALUES (7, 3, 0.10)",
        "DELETE FROM shop.orders WHERE id = 1000",
        "INSERT INTO shop.parts VALUES (60, NULL)",
        "INSERT INTO shop.prices VALUES (4.400, 'back')",
        "DELETE FROM shop.shelf WHERE a = 9",
        "UPDATE shop.spans SET span = '60 minutes' WHERE span = '1 hour'",
    ),
    (
        "TRUNCATE shop.mixed",
        "INSERT INTO shop.mixed VALUES ('2026-02-02', 'new', NULL, '-0')",
        "DELETE FROM shop.orders WHERE id < 190",
    ),
    (),
)


def _take(app: Any, store: Store, tables: Sequence[TableSpec], base: RecoveryPoint | None, **how: Any) -> RecoveryPoint:
    point = capture.capture(app.capturer, tables, WORKFLOWS, Told(), store, app="desk", base=base, **how)
    assert points.audit(store, point) == ()
    return points.load(store, "desk", point.id)


def _exact(app: Any, store: Store, point: RecoveryPoint) -> None:
    """Each table of the point, read back, has live's very rows."""
    with database.connect(app.capturer, purpose="test") as conn, conn.transaction():
        chunks.settle(conn)
        for manifest in point.tables:
            columns = chunks.stored(manifest.columns)
            query = chunks.select_list(columns, "t").as_string(conn)
            live = conn.execute(f"SELECT {query} FROM {manifest.name} t".encode()).fetchall()
            kept = [r for b in reading.batches(store, manifest) for r in zip(*(c.to_pylist() for c in b), strict=True)]
            assert sorted(map(repr, kept)) == sorted(map(repr, live)), (manifest.name, manifest.method)
            assert manifest.rows == len(live), manifest.name


def _methods(point: RecoveryPoint) -> dict[str, str]:
    return {t.name.removeprefix("shop."): t.method for t in point.tables}


@pytest.mark.parametrize("method", ["journal", "scan", "auto"])
def test_each_round_is_exactly_what_live_was(app_db: Any, tmp_path: Path, method: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(increments, "MAX_DELTAS", 2)
    build(app_db)
    write(app_db, MORE)
    with database.connect(app_db.installer, purpose="test") as conn:
        journal.install(conn, [CUSTOMERS, ORDERS, *KINDS], capturer="capturer", recoverer="recoverer")
    tables, store = (*TABLES, *KINDS), Store(str(tmp_path))
    point = _take(app_db, store, tables, None)
    assert set(_methods(point).values()) == {"full"}
    assert point.base is None
    first = point
    for statements in ROUNDS:
        write(app_db, *statements)
        point = _take(app_db, store, tables, point, method=method)
        _exact(app_db, store, point)
        found = _methods(point)
        assert point.base == first.id
        small = "scan" if method == "scan" else "journal"
        assert found["orders"] == found["customers"] == found["parts"] == found["shelf"] == small
        assert found["spans"] == (
            "full" if any("spans" in s for s in statements) else small
        )  # texts cannot tell its keys
        if method != "journal":
            assert found["log"] == ("full" if any("log" in s for s in statements) else "scan")
    assert all(len(t.deltas) <= 2 for t in point.tables)
    _exact(app_db, store, points.load(store, "desk", point.id))


def test_the_base_serves_until_enough_points_lean_on_it(app_db: Any, tmp_path: Path) -> None:
    build(app_db, journal=False)
    store, point, said = Store(str(tmp_path)), None, list[str]()
    bases = []
    for n in range(6):
        write(app_db, f"UPDATE shop.orders SET total = {n} WHERE id = {n + 1}")
        point = _take(app_db, store, TABLES, point, full_after=2, say=said.append)
        bases.append(point.base is None)
        _exact(app_db, store, point)
    assert bases == [True, False, False, True, False, False]
    assert any("this one is full" in line for line in said)
    never = _take(app_db, store, TABLES, point, full_after=0)
    assert never.base is None


def test_a_point_never_leans_on_what_is_not_there(app_db: Any, tmp_path: Path) -> None:
    build(app_db, journal=False)
    store = Store(str(tmp_path))
    first = _take(app_db, store, TABLES, None)
    orders = next(t for t in first.tables if t.name == "shop.orders")
    (tmp_path / "chunks" / orders.chunks[0].sha256[:2] / f"{orders.chunks[0].sha256}.parquet").unlink()
    second = _take(app_db, store, TABLES, first)
    assert second.base is None
    other = replace(second, position=replace(second.position, system_id="1"))
    third = _take(app_db, store, TABLES, other)
    assert (third.base, set(_methods(third).values())) == (None, {"full"})
    _exact(app_db, store, third)


def test_many_changes_or_a_new_shape_are_copied_in_full(app_db: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(increments, "MIN_ROWS", 10)
    build(app_db)
    store = Store(str(tmp_path))
    first = _take(app_db, store, TABLES, None)
    write(
        app_db,
        "UPDATE shop.orders SET total = 1 WHERE id <= 60",
        "ALTER TABLE shop.customers DROP COLUMN shout, ADD COLUMN shout text DEFAULT 'x'",
    )
    second = _take(app_db, store, TABLES, first)
    assert _methods(second) == {"customers": "full", "orders": "full", "log": "scan"}
    _exact(app_db, store, second)


def test_a_gap_in_the_journal_leads_to_the_rows_themselves(app_db: Any, tmp_path: Path) -> None:
    build(app_db)
    store = Store(str(tmp_path))
    first = _take(app_db, store, TABLES, None)
    write(
        app_db,
        "ALTER TABLE shop.orders DISABLE TRIGGER USER",
        "UPDATE shop.orders SET total = 1 WHERE id = 5",
        "ALTER TABLE shop.orders ENABLE TRIGGER USER",
        "DELETE FROM shop.orders WHERE id = 6",
    )
    with database.connect(app_db.recoverer, purpose="test") as conn:
        journal.tick(conn)
    second = _take(app_db, store, TABLES, first)
    assert _methods(second) == {"customers": "journal", "orders": "scan", "log": "scan"}
    _exact(app_db, store, second)
    third = _take(app_db, store, TABLES, first, method="journal")
    assert _methods(third) == {"customers": "journal", "orders": "full", "log": "full"}
    _exact(app_db, store, third)


def test_an_open_transaction_is_in_the_next_point(app_db: Any, tmp_path: Path) -> None:
    build(app_db)
    store = Store(str(tmp_path))
    first = _take(app_db, store, [ORDERS, LOG], None)
    with database.connect(app_db.installer, purpose="test") as open_one:
        open_one.execute("UPDATE shop.orders SET total = 77 WHERE id = 1")
        for method in ("journal", "scan"):
            middle = _take(app_db, store, [ORDERS, LOG], first, method=method)
            _exact(app_db, store, middle)
        write(app_db, "UPDATE shop.orders SET total = 78 WHERE id = 2")
        open_one.commit()
    for method in ("journal", "scan"):
        _exact(app_db, store, _take(app_db, store, [ORDERS, LOG], middle, method=method))
