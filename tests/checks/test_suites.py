"""Suites say what is wrong with the data, on exactly the snapshot they are given, or say that they cannot."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from checks import suites
from checks.errors import SuiteBroken
from tests.conftest import AppDb

pytestmark = pytest.mark.postgres

POSITIVE = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "total", "min_value": 0}}
KNOWN = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "ref"}}
NO_DOUBLES = {
    "type": "unexpected_rows_expectation",
    "kwargs": {"unexpected_rows_query": "SELECT max(id) AS id FROM {batch} GROUP BY ref HAVING count(*) > 1"},
}
ITEMS_ADD_UP = {
    "type": "unexpected_rows_expectation",
    "kwargs": {
        "unexpected_rows_query": "SELECT o.id FROM {batch} AS o LEFT JOIN shop.items i ON i.order_id = o.id "
        "GROUP BY o.id, o.total HAVING o.total IS DISTINCT FROM sum(i.qty * i.price)"
    },
}
LINES = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "qty", "min_value": 1}}


@pytest.fixture
def folder(suite_folder: Callable[..., Path]) -> Path:
    return suite_folder(
        orders=("shop.orders", [POSITIVE, KNOWN, NO_DOUBLES, ITEMS_ADD_UP]), items=("shop.items", [LINES])
    )


def test_clean_data_passes_with_the_reading_role(shop: AppDb, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = suites.run(shop.capturer, folder)
    assert report.passed
    assert report.ran == 5
    assert report.failed == ()
    assert report.snapshot is None
    assert capfd.readouterr().err == ""  # no progress bars


@pytest.mark.parametrize("gate_first", [True, False])
def test_damage_is_named_with_its_keys(shop: AppDb, folder: Path, intake: psycopg.Connection, gate_first: bool) -> None:
    intake.execute("UPDATE shop.orders SET total = -1 WHERE id IN (7, 9)")
    intake.execute("INSERT INTO shop.orders (id, ref, customer, total) VALUES (2001, 'ref-5', 'c', 0)")
    intake.execute("UPDATE shop.items SET qty = 0 WHERE order_id = 9")
    report = suites.run(shop.capturer, folder, gate_first=gate_first)
    assert not report.passed
    by_name = {(f.suite, f.expectation, i): f for i, f in enumerate(report.failed)}
    found = {(suite, kind): (f.unexpected, set(f.keys)) for (suite, kind, _), f in by_name.items()}
    assert found["orders", POSITIVE["type"]] == (2, {("7",), ("9",)})
    assert found["items", LINES["type"]] == (1, {("9", "1")})
    queries = [f for f in report.failed if f.expectation == "unexpected_rows_expectation"]
    assert {f.keys for f in queries if f.unexpected == 1} == {(("2001",),)}
    assert {frozenset(f.keys) for f in queries if f.unexpected == 3} == {frozenset({("7",), ("9",), ("2001",)})}
    details = {f.detail for f in report.failed}
    assert "shop.orders: expect_column_values_to_be_between(total) broken by 2 rows" in details


def test_keys_are_bounded(shop: AppDb, folder: Path, intake: psycopg.Connection) -> None:
    intake.execute("UPDATE shop.orders SET total = -1")
    failed = suites.run(shop.capturer, folder, tables=["shop.orders"]).failed
    assert next(f for f in failed if f.expectation == POSITIVE["type"]).unexpected == 1000
    assert max(len(f.keys) for f in failed) == suites.KEYS_PER_EXPECTATION


def test_only_the_named_tables_are_checked(shop: AppDb, folder: Path) -> None:
    assert suites.run(shop.capturer, folder, tables=["shop.items"]).ran == 1


def test_suites_see_the_exported_snapshot_and_not_live(shop: AppDb, folder: Path, intake: psycopg.Connection) -> None:
    with psycopg.connect(shop.capturer) as exporter:
        exporter.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        row = exporter.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        intake.execute("UPDATE shop.orders SET total = -1")
        intake.execute("DELETE FROM shop.items")
        on_snapshot = suites.run(shop.capturer, folder, snapshot=row[0])
        on_live = suites.run(shop.capturer, folder)
    assert on_snapshot.passed
    assert on_snapshot.snapshot == row[0]
    assert len(on_live.failed) == 2


def test_suites_agree_among_themselves_while_others_write(shop: AppDb, folder: Path) -> None:
    """Totals and items change together all the time; a run over several moments would see them apart."""
    stop = threading.Event()

    def traffic() -> None:
        with psycopg.connect(shop.dsn("wf_intake")) as connection:
            while not stop.is_set():
                connection.execute("UPDATE shop.orders SET total = total + 1")
                connection.execute("UPDATE shop.items SET price = price + 1")
                connection.commit()

    writer = threading.Thread(target=traffic)
    writer.start()
    try:
        reports = [suites.run(shop.capturer, folder) for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    assert all(r.passed for r in reports)


def test_an_expired_snapshot_is_refused(shop: AppDb, folder: Path) -> None:
    with pytest.raises(SuiteBroken, match="snapshot"):
        suites.run(shop.capturer, folder, snapshot="00000003-0000001B-1")


def test_suites_cannot_write(shop: AppDb, suite_folder: Callable[..., Path]) -> None:
    query = "SELECT id FROM {batch} WHERE nextval('shop.counter') < 0"
    with psycopg.connect(shop.installer) as connection:
        connection.execute("CREATE SEQUENCE shop.counter; GRANT ALL ON SEQUENCE shop.counter TO recoverer")
    folder = suite_folder(
        bad=("shop.orders", [{"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": query}}])
    )
    with pytest.raises(SuiteBroken, match="read-only"):
        suites.run(shop.recoverer, folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "broken.json:1: not valid JSON"),
        ('{"name": "a",\n "table": "shop.orders",\n "expectations": [,]}', "broken.json:3: not valid JSON"),
        ('{"name": "a", "name": "b"}', "given twice"),
        ("[]", "not a JSON object"),
        ('{"table": "shop.orders", "expectations": []}', "`name` is missing"),
        ('{"name": "a", "table": "orders", "expectations": []}', "`table` must be schema.table"),
        ('{"name": "a", "table": "shop.orders", "expectations": []}', "proves nothing"),
        ('{"name": "a", "table": "shop.orders", "expectations": [{"type": "x"}]}', "needs `type` and `kwargs`"),
        (json.dumps({"name": "a", "table": "shop.orders", "expectations": [{"type": "expect_peace", "kwargs": {}}]}),
         "expect_peace"),
        (json.dumps({"name": "a", "table": "shop.orders", "expectations": [{**KNOWN, "kwargs": {}}]}), "column"),
        (json.dumps({"name": "a", "table": "shop.orders", "expectations": [{**KNOWN, "kwargs": {"column": "gone"}}]}),
         'The column "gone"'),
        (json.dumps({"name": "a", "table": "shop.orders", "expectations": [
            {"type": "unexpected_rows_expectation",
             "kwargs": {"unexpected_rows_query": "SELECT gone FROM {batch}"}}]}), 'column "gone" does not exist'),
        (json.dumps({"name": "a", "table": "shop.gone", "expectations": [KNOWN]}), "table shop.gone"),
        (json.dumps({"name": "a", "table": "gone.orders", "expectations": [KNOWN]}), "table gone.orders"),
    ],
)  # fmt: skip
def test_a_suite_that_cannot_run_is_one_line_and_no_pass(shop: AppDb, folder: Path, content: str, says: str) -> None:
    (folder / "broken.json").write_text(content)
    with pytest.raises(SuiteBroken) as caught:
        suites.run(shop.capturer, folder)
    assert says in str(caught.value)
    assert "broken.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "test-capturer" not in str(caught.value)


def test_no_suites_is_no_pass(shop: AppDb, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SuiteBroken, match="holds them"):
        suites.run(shop.capturer, tmp_path / "nowhere")
    with pytest.raises(SuiteBroken, match="nothing was checked"):
        suites.run(shop.capturer, folder, tables=["shop.stock"])


def test_a_role_without_the_right_to_read_is_told(shop: AppDb, folder: Path) -> None:
    with psycopg.connect(shop.installer) as connection:
        connection.execute("REVOKE SELECT ON shop.items FROM capturer")
    with pytest.raises(SuiteBroken, match="grant the reading role"):
        suites.run(shop.capturer, folder)


def test_an_unreachable_database_is_not_a_broken_suite(folder: Path) -> None:
    with pytest.raises(psycopg.OperationalError):
        suites.run("host=127.0.0.1 port=1 dbname=none user=none", folder)


def test_importing_the_room_does_not_import_the_library() -> None:
    code = "import sys, checks.suites; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert suites.warm().name == "warm-great-expectations"


def test_runs_on_threads_keep_to_their_own_snapshot(shop: AppDb, folder: Path, intake: psycopg.Connection[Any]) -> None:
    """Great Expectations has global state; a run must never look through another run's connection."""
    suites.run(shop.capturer, folder)  # import once, outside of the threads
    with psycopg.connect(shop.capturer) as exporter:
        exporter.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        row = exporter.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        intake.execute("UPDATE shop.orders SET total = -1")
        with ThreadPoolExecutor(4) as pool:
            chosen = [row[0] if i % 2 else None for i in range(12)]
            reports = list(pool.map(lambda s: suites.run(shop.capturer, folder, snapshot=s), chosen))
    assert [r.passed for r in reports] == [bool(s) for s in chosen]
