"""What changed since a position: by journal and by the rows' own numbers, never less than what did."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from point_desk import CUSTOMERS, LOG, ORDERS, build, take, write
from psycopg import sql

from snapshots import database
from snapshots.capture import shape, touched
from snapshots.errors import Incomplete
from snapshots.journal import journal
from snapshots.model import Position, RecoveryPoint, TableManifest, TableSpec
from snapshots.points import chunks

pytestmark = pytest.mark.postgres

CHANGED = sql.Identifier("pg_temp", "changed")
GONE = sql.Identifier("pg_temp", "gone")
WORK = (
    "UPDATE shop.orders SET total = total + 1 WHERE id IN (3, 150)",
    "DELETE FROM shop.orders WHERE id IN (7, 200)",
    "INSERT INTO shop.orders (customer_id, total) VALUES (1, 5), (2, 6)",
    "UPDATE shop.orders SET id = 1000 WHERE id = 11",
)


@contextmanager
def _settled(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    conn = database.connect(dsn, purpose="test")
    try:
        with conn.transaction():
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            chunks.settle(conn)
            yield conn
    finally:
        conn.close()


def _listed(conn: Any, table: sql.Identifier) -> list[Any]:
    return sorted(row[0] for row in conn.execute(sql.SQL("SELECT * FROM {}").format(table)).fetchall())


def _manifest(point: RecoveryPoint, app: Any, table: str) -> TableManifest:
    manifest = next(t for t in point.tables if t.name == table)
    with _settled(app.capturer) as conn:
        return replace(manifest, leaves=tuple(leaf.oid for leaf in shape.leaves(conn, table)))


def test_the_journal_names_every_key_that_was_written(app_db: Any, tmp_path: Path) -> None:
    build(app_db)
    point, _ = take(app_db, tmp_path)
    write(app_db, *WORK)
    with _settled(app_db.capturer) as conn:
        assert touched.by_journal(conn, ORDERS, point.position, into=CHANGED) == 8
        assert _listed(conn, CHANGED) == [3, 7, 11, 150, 200, 201, 202, 1000]
        assert touched.by_journal(conn, CUSTOMERS, point.position, into=CHANGED) == 0
        with pytest.raises(touched.NotComparable, match="no key"):
            touched.by_journal(conn, LOG, point.position, into=CHANGED)


def test_a_gap_is_not_read_across(app_db: Any, tmp_path: Path) -> None:
    build(app_db)
    point, _ = take(app_db, tmp_path)
    write(app_db, "ALTER TABLE shop.orders DISABLE TRIGGER USER")
    with database.connect(app_db.recoverer, purpose="test") as conn:
        journal.tick(conn)
    with _settled(app_db.capturer) as conn, pytest.raises(Incomplete, match=r"shop\.orders"):
        touched.by_journal(conn, ORDERS, point.position, into=CHANGED)


@pytest.mark.parametrize("role", ["capturer", "recoverer"])
def test_rows_tell_themselves_and_counting_finds_what_is_gone(app_db: Any, tmp_path: Path, role: str) -> None:
    build(app_db, journal=False)
    with psycopg.connect(app_db.installer) as open_one:  # begun before the point, committed after it
        open_one.execute("UPDATE shop.orders SET total = 0 WHERE id = 40")
        with open_one.transaction():
            open_one.execute("UPDATE shop.orders SET total = 0 WHERE id = 41")  # of a subtransaction
        write(app_db, "UPDATE shop.orders SET total = 1 WHERE id = 42")  # committed before, with a later number
        point, store = take(app_db, tmp_path)
    orders = _manifest(point, app_db, "shop.orders")
    with _settled(app_db.dsn(role)) as conn:
        assert touched.by_rows(conn, orders, point.position, into=CHANGED) == 3
        assert _listed(conn, CHANGED) == [40, 41, 42]  # a superset: 42 is as it was
        assert touched.gone(conn, store, orders, touched=CHANGED, into=GONE) == 0
    write(app_db, *WORK)
    with psycopg.connect(app_db.superuser, autocommit=True) as conn:
        conn.execute("VACUUM (FREEZE, FULL) shop.orders")
    with _settled(app_db.dsn(role)) as conn:
        touched.by_rows(conn, orders, point.position, into=CHANGED)
        assert _listed(conn, CHANGED) == [3, 40, 41, 42, 150, 201, 202, 1000]
        assert touched.gone(conn, store, orders, touched=CHANGED, into=GONE) == 3
        assert _listed(conn, GONE) == [7, 11, 200]


def test_partitions_the_point_did_not_know_count_as_a_whole(app_db: Any, tmp_path: Path) -> None:
    build(app_db, journal=False)
    spec = TableSpec(name="shop.parts", key=("id",))
    write(
        app_db,
        "CREATE TABLE shop.parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
        "CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE shop.parts_2 (id int PRIMARY KEY, v text)",
        "INSERT INTO shop.parts SELECT n, 'a' FROM generate_series(1, 9) n",
        "INSERT INTO shop.parts_2 SELECT n, 'b' FROM generate_series(101, 103) n",
        "GRANT SELECT ON shop.parts TO capturer",
    )
    point, store = take(app_db, tmp_path, tables=[spec])
    parts = _manifest(point, app_db, "shop.parts")
    write(
        app_db,
        "ALTER TABLE shop.parts ATTACH PARTITION shop.parts_2 FOR VALUES FROM (100) TO (200)",
        "UPDATE shop.parts SET v = 'c' WHERE id = 5",
    )
    with _settled(app_db.capturer) as conn:
        if touched.reshaped(conn, "shop.parts", point.position):
            assert touched.by_rows(conn, parts, point.position, into=CHANGED) == 12
        else:
            touched.by_rows(conn, parts, point.position, into=CHANGED)
            assert _listed(conn, CHANGED) == [5, 101, 102, 103]
        assert touched.gone(conn, store, parts, touched=CHANGED, into=GONE) == 0


def test_a_column_that_was_altered_touches_every_row(app_db: Any, tmp_path: Path) -> None:
    build(app_db, journal=False)
    point, _ = take(app_db, tmp_path)
    orders = _manifest(point, app_db, "shop.orders")
    write(
        app_db,
        "ALTER TABLE shop.orders DROP COLUMN note",
        "ALTER TABLE shop.orders ADD COLUMN note jsonb DEFAULT '{}'",  # writes no row, and changes the value of each
    )
    with _settled(app_db.capturer) as conn:
        assert touched.reshaped(conn, "shop.orders", point.position)
        assert not touched.reshaped(conn, "shop.customers", point.position)
        assert touched.by_rows(conn, orders, point.position, into=CHANGED) == 200


def test_positions_that_mean_nothing_here_are_refused(app_db: Any, tmp_path: Path) -> None:
    build(app_db, journal=False)
    point, _ = take(app_db, tmp_path)
    orders = _manifest(point, app_db, "shop.orders")
    here = point.position
    xmin, xmax, _ = here.snapshot.split(":")
    with _settled(app_db.capturer) as conn:

        def attempt(since: Position, manifest: TableManifest = orders) -> None:
            touched.by_rows(conn, manifest, since, into=CHANGED)

        with pytest.raises(touched.NotComparable, match="belongs to server"):
            attempt(replace(here, system_id="1"))
        with pytest.raises(touched.NotComparable, match="belongs to server"):
            attempt(replace(here, timeline=here.timeline + 1))
        with pytest.raises(touched.NotComparable, match="behind it"):
            attempt(replace(here, snapshot=f"{xmin}:{int(xmax) + 10**6}:"))
        with pytest.raises(touched.NotComparable, match="which relations"):
            attempt(here, replace(orders, leaves=()))
        with pytest.raises(touched.NotComparable, match="no key"):
            attempt(here, replace(orders, key=()))


@pytest.mark.parametrize("back", [0, 1, 5, 2**31 - 2_000_001])
def test_numbers_are_compared_around_the_circle(app_db: Any, back: int) -> None:
    """The condition itself, seen from ``back`` transactions ago, across the wrap of 32 bits."""
    with psycopg.connect(app_db.capturer) as conn:

        def is_recent(number: int, start: int) -> bool:
            condition = touched.recent(sql.SQL("v.x"), f"{start}:{start}:")
            query = sql.SQL("SELECT {} FROM (SELECT {}::text::xid AS x) v")
            row = conn.execute(query.format(condition, sql.Literal(number % 2**32))).fetchone()
            return bool(row and row[0])

        row = conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
        here = (row[0] if row else 0) + 3 * 2**32
        start = here - back
        assert is_recent(start, start)
        assert is_recent(here, start)
        assert is_recent(start + back // 2, start)
        assert not is_recent(start - 1, start)
        assert not is_recent(start - 1_000_000, start)
        assert not is_recent(2, start)  # rows frozen by servers before 9.4
