"""A diff is exact, by key or as a bag of rows, and says whose later work a restore would take back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from point_desk import ORDERS, build, take, write

from snapshots import database
from snapshots.errors import Refused
from snapshots.journal import journal
from snapshots.model import TableSpec
from snapshots.points.errors import Damaged, ShapeChanged, TableMissing
from snapshots.restore import by_scan, diff
from snapshots.restore.model import ActorLoss

pytestmark = pytest.mark.postgres


@pytest.fixture
def app(app_db: Any) -> Any:
    build(app_db)
    return app_db


def test_an_unchanged_database_differs_in_nothing(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    for dsn in (app.capturer, app.recoverer):
        with database.connect(dsn, purpose="test") as conn:
            assert [(t.table, t.rows, t.point_rows) for t in diff.diff(conn, point, store)] == [
                ("shop.customers", 0, 20),
                ("shop.orders", 0, 200),
                ("shop.log", 0, 12),
            ]
            assert "nothing" in diff.would_lose(conn, point, store).sentence()


def test_each_kind_of_change_is_counted_and_named(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(
        app,
        "UPDATE shop.orders SET total = total + 1 WHERE id IN (5, 6, 7)",
        "DELETE FROM shop.orders WHERE id = 9",
        "INSERT INTO shop.orders (customer_id, total) VALUES (1, 1), (2, 2)",
    )
    with database.connect(app.capturer, purpose="test") as conn:
        (found,) = diff.diff(conn, point, store, ["shop.orders"], keys=2)
    assert (found.added, found.changed, found.deleted) == (2, 3, 1)
    assert found.added_keys == (("201",), ("202",))
    assert found.changed_keys == (("5",), ("6",))
    assert found.deleted_keys == (("9",),)
    assert (found.point_rows, found.live_rows) == (200, 201)


def test_equal_is_not_enough_the_image_counts(app: Any, tmp_path: Path) -> None:
    write(app, "CREATE TABLE shop.exact (id int PRIMARY KEY, n numeric, f float8, j json)")
    write(
        app,
        "INSERT INTO shop.exact VALUES (1, 1.1, 0, '{\"a\":1}'), (2, 1, 1, '1')",
        "GRANT SELECT ON shop.exact TO capturer",
    )
    spec = type(ORDERS)(name="shop.exact", key=("id",))
    point, store = take(app, tmp_path, tables=[spec])
    write(app, "UPDATE shop.exact SET n = 1.10, f = '-0', j = '{\"a\": 1}' WHERE id = 1")
    with database.connect(app.capturer, purpose="test") as conn:
        (found,) = diff.diff(conn, point, store)
    assert found.changed_keys == (("1",),)


def test_a_table_without_key_is_a_bag(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(
        app,
        "DELETE FROM shop.log WHERE ctid = (SELECT min(ctid) FROM shop.log WHERE line = 'line 1')",
        "INSERT INTO shop.log VALUES (NULL, ''), (NULL, NULL)",
    )
    with database.connect(app.capturer, purpose="test") as conn:
        (found,) = diff.diff(conn, point, store, ["shop.log"])
    assert (found.added, found.changed, found.deleted) == (2, 0, 1)


def test_would_lose_names_rows_tables_and_writers(app: Any, tmp_path: Path) -> None:
    intake = app.role("wf_intake")
    write(app, "GRANT USAGE ON SCHEMA shop TO wf_intake", "GRANT SELECT, UPDATE ON shop.orders TO wf_intake")
    point, store = take(app, tmp_path)
    with database.connect(intake, purpose="test") as conn:
        for order in (1, 2):
            conn.execute("UPDATE shop.orders SET total = 0 WHERE id = %s", (order,))
            conn.commit()
    write(app, "UPDATE shop.orders SET total = 7 WHERE id = 3")
    with database.connect(app.recoverer, purpose="test") as conn:
        loss = diff.would_lose(conn, point, store, ["shop.orders"])
    assert (loss.rows, loss.journaled, loss.gaps) == (3, True, ())
    assert [(a.actor, a.transactions, a.tables) for a in loss.actors] == [
        ("installer", 1, ("shop.orders",)),
        ("wf_intake", 2, ("shop.orders",)),
    ]
    assert "wf_intake (2 transactions)" in loss.sentence()
    assert "3 edited" in loss.sentence()


def test_the_work_of_each_actor_is_what_counting_one_by_one_gives(app: Any, tmp_path: Path) -> None:
    """Runs, tables and open transactions do not make two of one, and what one of them wrote to another table is not
    asked for."""
    clerk = app.role("wf_intake")
    write(app, "GRANT USAGE ON SCHEMA shop TO wf_intake", "GRANT ALL ON ALL TABLES IN SCHEMA shop TO wf_intake")
    with psycopg.connect(clerk) as across:
        across.execute("UPDATE shop.orders SET total = 1 WHERE id = 50")
        point, store = take(app, tmp_path)
        across.execute("SELECT set_config('reinstate.run', 'r1', true)")
        across.execute("UPDATE shop.customers SET email = email || '.' WHERE id < 4")
        across.execute("SELECT set_config('reinstate.run', 'r2', true)")
        across.execute("DELETE FROM shop.orders WHERE id = 60")
    write(
        app,
        "UPDATE shop.orders SET total = 7 WHERE id < 9",
        "INSERT INTO shop.orders (customer_id, total) VALUES (1, 1)",
    )
    write(app, "UPDATE shop.customers SET email = 'x' || email WHERE id = 9")
    for tables in (["shop.orders"], ["shop.customers", "shop.orders"], ["shop.log"]):
        with database.connect(app.recoverer, purpose="test") as conn:
            loss = diff.would_lose(conn, point, store, tables)
            seen = journal.transactions(conn, since=point.position, tables=tables)
        by_actor = [
            ActorLoss(
                actor=actor,
                transactions=len({t.xid for t in seen if t.actor == actor}),
                images=sum(t.rows for t in seen if t.actor == actor),
                tables=tuple(sorted({name for t in seen if t.actor == actor for name in t.tables})),
            )
            for actor in sorted({t.actor for t in seen})
        ]
        assert list(loss.actors) == by_actor
        assert loss.journaled
        assert len(by_actor) == (0 if tables == ["shop.log"] else 2)


def test_would_lose_without_journal_says_that_nobody_knows(app_db: Any, tmp_path: Path) -> None:
    build(app_db, journal=False)
    point, store = take(app_db, tmp_path)
    write(app_db, "UPDATE shop.orders SET total = 7 WHERE id = 3")
    with database.connect(app_db.capturer, purpose="test") as conn:
        loss = diff.would_lose(conn, point, store)
    assert (loss.rows, loss.journaled, loss.actors) == (1, False, ())
    assert "not known" in loss.sentence()


def test_a_gap_since_the_point_is_told(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(app, "ALTER TABLE shop.orders DISABLE TRIGGER rj_update", "UPDATE shop.orders SET total = 7 WHERE id = 3")
    with database.connect(app.recoverer, purpose="test") as conn:
        loss = diff.would_lose(conn, point, store, ["shop.orders"])
    assert loss.rows == 1
    assert loss.gaps
    assert "gaps" in loss.sentence()


def test_what_cannot_be_compared_is_refused(app: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    with database.connect(app.capturer, purpose="test") as conn:
        with pytest.raises(TableMissing, match=r"shop\.nothing"):
            diff.diff(conn, point, store, ["shop.nothing"])
        conn.execute("SELECT 1")
        with pytest.raises(Refused, match="inside a transaction"):
            diff.diff(conn, point, store)
        conn.rollback()
        chunk = next(t for t in point.tables if t.name == "shop.log").chunks[0].sha256
        (tmp_path / "chunks" / chunk[:2] / f"{chunk}.parquet").write_bytes(b"")
        with pytest.raises(Damaged, match=chunk):
            diff.diff(conn, point, store)
    write(app, "ALTER TABLE shop.orders ALTER total TYPE numeric(14,3), ADD extra int")
    with (
        database.connect(app.capturer, purpose="test") as conn,
        pytest.raises(ShapeChanged, match=r"extra is new; column total was numeric\(12,2\) and is numeric\(14,3\)"),
    ):
        diff.diff(conn, point, store)


ODD = ("plain", "a,b", 'say "x"', "two\nlines", "", "  ", "\\N", "ä🚒", "'")


@pytest.mark.parametrize("limit", [by_scan.AT_ONCE, 0])
def test_rows_are_found_by_their_own_numbers_whatever_the_key(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Keys that look like CSV, numbers with a scale, blanks at the end; in our memory or in the database."""
    monkeypatch.setattr(by_scan, "AT_ONCE", limit)
    monkeypatch.setattr(by_scan, "MANY", 10)
    with psycopg.connect(app.installer) as conn:
        conn.execute("CREATE TABLE shop.odd (t text, n numeric, c char(4), v int, PRIMARY KEY (t, n, c))")
        for number, text in enumerate(ODD):
            conn.execute("INSERT INTO shop.odd VALUES (%s, 1.10, 'x', %s)", (text, number))
        conn.execute("GRANT SELECT ON shop.odd TO capturer")
    point, store = take(app, tmp_path, tables=[TableSpec(name="shop.odd", key=("t", "n", "c"))])
    write(
        app,
        "UPDATE shop.odd SET v = 100 WHERE v IN (1, 3)",
        "DELETE FROM shop.odd WHERE v IN (2, 5, 6)",
        "INSERT INTO shop.odd VALUES ('two', 1, 'y', 1), ('a', 2, 'b', 3)",
        "UPDATE shop.odd SET n = 1.1 WHERE v = 8",
    )
    with database.connect(app.capturer, purpose="test") as conn:
        (found,) = diff.diff(conn, point, store)
        assert (found.how, found.added, found.changed, found.deleted) == ("scan", 2, 3, 3)
        assert {k[0] for k in found.deleted_keys} == {ODD[2], ODD[5], ODD[6]}
        monkeypatch.setattr(by_scan, "MANY", 0)
        (whole,) = diff.diff(conn, point, store)
    assert replace(whole, how="scan") == found
    assert whole.how == "compare"
