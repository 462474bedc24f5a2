"""A lost table comes back with all that hung on it: the database describes it as it did before."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from point_desk import CUSTOMERS, LOG, ORDERS, TABLES, build, image, take, write

from snapshots import database
from snapshots.errors import Refused
from snapshots.journal import journal
from snapshots.model import TableSpec
from snapshots.points.errors import Damaged, NotEmpty, StepApplied, TableMissing
from snapshots.restore import definition, lost_table

pytestmark = pytest.mark.postgres
NAMES = ("shop.customers", "shop.orders", "shop.log")
VISITS = TableSpec(name="shop.visits", key=("id", "at"))

RICH = (
    "CREATE TABLE shop.files (id int PRIMARY KEY, order_id int CONSTRAINT of_order REFERENCES shop.orders ON DELETE"
    " CASCADE)",
    "INSERT INTO shop.files SELECT n, n FROM generate_series(1, 20) n",
    "ALTER TABLE shop.orders ADD CONSTRAINT positive CHECK (total > 0), ALTER note SET STORAGE EXTERNAL,"
    " ALTER customer_id SET STATISTICS 50, ADD parent int REFERENCES shop.orders, SET (fillfactor = 90)",
    "CREATE INDEX on_note ON shop.orders ((note ->> 'n'), id DESC) WHERE total > 5",
    "CREATE UNIQUE INDEX odd ON shop.orders (id, total) INCLUDE (note)",
    "ALTER TABLE shop.orders ADD CONSTRAINT late UNIQUE (id, customer_id) DEFERRABLE INITIALLY DEFERRED",
    "COMMENT ON TABLE shop.orders IS 'what they bought'",
    "COMMENT ON COLUMN shop.orders.note IS 'it''s theirs'",
    "COMMENT ON INDEX shop.on_note IS 'for search'",
    "CREATE STATISTICS shop.both ON customer_id, total FROM shop.orders",
    "CREATE POLICY mine ON shop.orders FOR SELECT TO PUBLIC USING (total >= 0)",
    "ALTER TABLE shop.orders DISABLE TRIGGER orders_touch",
    "GRANT SELECT (id, total) ON shop.orders TO wf_intake",
    "GRANT INSERT ON shop.orders TO wf_intake WITH GRANT OPTION",
    "GRANT USAGE ON SEQUENCE shop.orders_id_seq TO wf_intake",
)
PARTS = (
    'CREATE TABLE shop.visits (id int, at date NOT NULL, who text COLLATE "C", PRIMARY KEY (id, at))'
    " PARTITION BY RANGE (at)",
    "CREATE TABLE shop.visits_old PARTITION OF shop.visits FOR VALUES FROM (MINVALUE) TO ('2026-01-01')"
    " PARTITION BY HASH (id)",
    "CREATE TABLE shop.visits_old_a PARTITION OF shop.visits_old FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    "CREATE TABLE shop.visits_rest PARTITION OF shop.visits DEFAULT",
    "CREATE INDEX visits_who ON shop.visits (who)",
    "CREATE INDEX only_here ON shop.visits_rest (id) WHERE who IS NULL",
    "INSERT INTO shop.visits SELECT n, '2025-12-01'::date + n, CASE WHEN n <= 31 THEN 'a' END"
    " FROM generate_series(1, 60) n",
    "GRANT SELECT ON shop.visits, shop.visits_old, shop.visits_old_a, shop.visits_rest TO capturer",
    "GRANT ALL ON shop.visits TO recoverer",
    "CREATE TABLE shop.bills (id int PRIMARY KEY, visit int, at date, CONSTRAINT of_visit FOREIGN KEY (visit, at)"
    " REFERENCES shop.visits)",
    "INSERT INTO shop.bills SELECT id, id, at FROM shop.visits",
    "ALTER TABLE shop.visits ADD customer bigint DEFAULT 1 CONSTRAINT of_customer REFERENCES shop.customers,"
    " ADD before int, ADD before_at date, ADD CONSTRAINT of_before FOREIGN KEY (before, before_at)"
    " REFERENCES shop.visits",
)
KEYS = (
    "SELECT conrelid::regclass::text, conname::text, convalidated FROM pg_constraint"
    " WHERE contype = 'f' AND conparentid = 0 ORDER BY 1, 2"
)


@pytest.fixture
def app(app_db: Any) -> Any:
    app_db.role("wf_intake")
    build(app_db)
    return app_db


def _definitions(app: Any, *tables: str) -> list[Any]:
    with database.connect(app.capturer, purpose="test") as conn:
        return [definition.read(conn, t) for t in tables]


def _rows(app: Any, query: str) -> list[Any]:
    with psycopg.connect(app.superuser) as conn:
        return conn.execute(query.encode()).fetchall()


def test_a_dropped_table_is_what_it_was(app: Any, tmp_path: Path) -> None:
    write(app, *RICH)
    before, described = image(app, *NAMES), _definitions(app, "shop.orders", "shop.files")
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")
    done = lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
    assert image(app, *NAMES) == before
    assert _definitions(app, "shop.orders", "shop.files") == described
    assert (done.rows, done.unvalidated, done.journaled) == ({"shop.orders": 200}, (), ("shop.orders",))
    write(app, "INSERT INTO shop.orders (customer_id, total) VALUES (1, 1)")
    assert _rows(app, "SELECT max(id) FROM shop.orders") == [(201,)], "the sequence goes on"
    assert _rows(app, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'reinstate_lost%'") == []


def test_the_journal_is_on_it_again_and_the_gap_is_on_record(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")
    lost_table.restore(app.installer, point, store, [ORDERS])
    with database.connect(app.recoverer, purpose="test") as conn:
        since = journal.tick(conn)
        found = journal.gaps(conn, since=point.position, tables=["shop.orders"])
        assert {g.kind for g in found} & {"table-missing", "trigger-missing", "not-yet-journaled"}
        write(app, "UPDATE shop.orders SET total = 7 WHERE id = 3")
        assert journal.gaps(conn, since=since, tables=["shop.orders"]) == []
        assert [t.rows for t in journal.transactions(conn, since=since)] == [2]


def test_it_is_done_once(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")
    first = lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
    write(app, "DROP TABLE shop.orders CASCADE")
    again = lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="h")
    assert again.applied == first.applied
    assert _rows(app, "SELECT to_regclass('shop.orders')::text") == [(None,)]
    with pytest.raises(StepApplied, match="another plan"):
        lost_table.restore(app.installer, point, store, [ORDERS], recovery_id="r", plan_hash="other")


def test_partitions_come_back_as_they_were(app: Any, tmp_path: Path) -> None:
    write(app, *PARTS)
    described, before = _definitions(app, "shop.visits"), image(app, "shop.visits", "shop.visits_old_a")
    point, store = take(app, tmp_path, tables=[VISITS])
    keys = _rows(app, KEYS)
    write(app, "DROP TABLE shop.visits CASCADE")
    done = lost_table.restore(app.installer, point, store, [VISITS], workers=3)
    assert (done.unvalidated, _rows(app, KEYS)) == ((), keys)
    assert image(app, "shop.visits", "shop.visits_old_a") == before
    now = _definitions(app, "shop.visits")
    names = [[i.pop("name") for r in d[0]["relations"] for i in r["indexes"]] for d in (now, described)]
    assert len(names[0]) == len(names[1])
    assert [r["name"] for r in now[0]["relations"]] == [r["name"] for r in described[0]["relations"]]
    assert now[0]["relations"][0]["columns"] == described[0]["relations"][0]["columns"]


def test_a_reference_that_does_not_hold_is_named_and_stays_unproven(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.customers CASCADE", "UPDATE shop.orders SET customer_id = 999 WHERE id = 1")
    done = lost_table.restore(app.installer, point, store, [CUSTOMERS])
    assert done.unvalidated == (("shop.orders", "orders_customer_id_fkey"),)
    assert _rows(app, "SELECT convalidated FROM pg_constraint WHERE conname = 'orders_customer_id_fkey'") == [(False,)]


def test_a_partitioned_table_whose_reference_does_not_hold_comes_back(app: Any, tmp_path: Path) -> None:
    write(app, *PARTS)
    point, store = take(app, tmp_path, tables=[VISITS])
    write(
        app,
        "DROP TABLE shop.visits CASCADE",
        "DELETE FROM shop.orders WHERE customer_id = 1",
        "DELETE FROM shop.customers WHERE id = 1",
    )
    done = lost_table.restore(app.installer, point, store, [VISITS])
    assert done.rows == {"shop.visits": 60}
    assert done.unvalidated == (("shop.visits", "of_customer"),)


def test_an_emptied_table_is_filled(app: Any, tmp_path: Path) -> None:
    before = image(app, *NAMES)
    point, store = take(app, tmp_path)
    write(app, "TRUNCATE shop.orders RESTART IDENTITY", "DELETE FROM shop.log")
    done = lost_table.restore(app.installer, point, store, [ORDERS, LOG])
    assert image(app, *NAMES) == before
    assert done.rows == {"shop.orders": 200, "shop.log": 12}
    with pytest.raises(NotEmpty, match=r"shop\.orders is not empty"):
        lost_table.restore(app.installer, point, store, [ORDERS])


def test_all_tables_at_once(app: Any, tmp_path: Path) -> None:
    before, described = image(app, *NAMES), _definitions(app, *NAMES)
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders, shop.customers, shop.log")
    lost_table.restore(app.installer, point, store, TABLES)
    assert image(app, *NAMES) == before
    assert _definitions(app, *NAMES) == described


def test_what_goes_wrong_leaves_nothing_behind(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, "DROP TABLE shop.orders CASCADE")
    chunk = next(t for t in point.tables if t.name == "shop.orders").chunks[-1].sha256
    path = tmp_path / "chunks" / chunk[:2] / f"{chunk}.parquet"
    kept = path.read_bytes()
    path.write_bytes(kept[:-1])
    with pytest.raises(Damaged, match=chunk):
        lost_table.restore(app.installer, point, store, [ORDERS])
    assert _rows(app, "SELECT to_regclass('shop.orders')::text") == [(None,)]
    assert _rows(app, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'reinstate_lost%'") == []
    path.write_bytes(kept)
    # A run that died before left its scratch schema.
    write(app, "CREATE SCHEMA reinstate_lost_0", "CREATE TABLE reinstate_lost_0.orders (id int)")
    with psycopg.connect(app.installer) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('reinstate.lost', 0))")
        with pytest.raises(Refused, match="wait"):
            lost_table.restore(app.installer, point, store, [ORDERS])
    lost_table.restore(app.installer, point, store, [ORDERS])


def test_a_point_without_definitions_says_so(app: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    point, store = take(app, tmp_path)
    old = replace(point, tables=tuple(replace(t, definition={}) for t in point.tables))
    write(app, "DROP TABLE shop.orders CASCADE")
    with pytest.raises(TableMissing, match="older version"):
        lost_table.restore(app.installer, old, store, [ORDERS])
