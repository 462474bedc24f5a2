"""A restore beside foreign keys that act on their own: they erase, blank and carry on nothing that was not planned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from point_desk import CUSTOMERS, ORDERS, build, image, take, write

from snapshots import database
from snapshots.capture import shape
from snapshots.journal import journal
from snapshots.model import Applied, Position, RecoveryPoint, TableSpec
from snapshots.points import chunks
from snapshots.points.errors import WouldBreak
from snapshots.restore import checks, restore
from snapshots.store.store import Store

pytestmark = pytest.mark.postgres
WIDE = restore.Caps(max_deleted_share=1.0)
LETTERS = TableSpec(name="shop.letters", key=("id",))
LINES = TableSpec(name="shop.lines", key=("id",))


@pytest.fixture
def app(app_db: Any) -> Any:
    build(app_db)
    return app_db


def _restore(
    app: Any,
    target: RecoveryPoint | Position,
    store: Store | None,
    tables: Sequence[TableSpec],
    *,
    step: str = "restore",
    settings: Sequence[str] = (),
    **options: Any,
) -> Applied:
    with database.connect(app.recoverer, purpose="test", lock_timeout_s=0.5) as conn:
        for setting in settings:
            conn.execute(setting.encode())
        conn.commit()
        return restore.apply(
            conn, target, store, tables, recovery_id="r1", step=step, plan_hash="h", caps=WIDE, **options
        )


def _granted(app: Any, *names: str) -> None:
    write(
        app,
        f"GRANT ALL ON {', '.join(names)} TO recoverer",
        f"GRANT SELECT ON {', '.join(names)} TO capturer",
    )


def _before_the_lock(app: Any, monkeypatch: pytest.MonkeyPatch, *statements: str) -> None:
    """Somebody writes after the look of a restore and before its lock."""
    lock = checks.lock

    def late(*arguments: Any) -> None:
        write(app, *statements)
        lock(*arguments)

    monkeypatch.setattr(checks, "lock", late)


@pytest.mark.parametrize("action", ["SET NULL", "SET DEFAULT", "CASCADE"])
def test_a_value_that_goes_back_takes_no_row_of_another_table_along(app: Any, tmp_path: Path, action: str) -> None:
    write(
        app,
        "CREATE TABLE shop.letters (id int PRIMARY KEY,"
        f" email text REFERENCES shop.customers (email) ON UPDATE {action})",
        "GRANT SELECT ON shop.letters TO recoverer",
    )
    point, store = take(app, tmp_path)
    write(
        app,
        "UPDATE shop.customers SET email = 'n' || id WHERE id <= 3",
        "INSERT INTO shop.letters VALUES (1, 'n1'), (2, 'n1'), (3, 'n3'), (4, 'c9@example.com'), (5, NULL)",
    )
    names = ("shop.customers", "shop.letters")
    damaged = image(app, *names)
    with pytest.raises(
        WouldBreak, match=r"shop\.customers would also change 3 rows of shop\.letters; restore shop\.letters too"
    ):
        _restore(app, point, store, (CUSTOMERS,))
    assert image(app, *names) == damaged
    write(app, "DELETE FROM shop.letters WHERE id <= 3")
    _restore(app, point, store, (CUSTOMERS,))
    assert image(app, "shop.letters")["shop.letters"] == [("(4,c9@example.com)",), ("(5,)",)]


@pytest.mark.parametrize("source", ["journal", "scan"])
@pytest.mark.parametrize("action", ["SET NULL", "CASCADE"])
def test_a_value_goes_back_together_with_the_rows_that_name_it(
    app: Any, tmp_path: Path, action: str, source: Any
) -> None:
    write(
        app,
        "CREATE TABLE shop.letters (id int PRIMARY KEY,"
        f" email text REFERENCES shop.customers (email) ON UPDATE {action})",
        "INSERT INTO shop.letters SELECT n, 'c' || n || '@example.com' FROM generate_series(1, 9) n",
    )
    _granted(app, "shop.letters")
    with database.connect(app.installer, purpose="test") as conn:
        journal.install(conn, [CUSTOMERS, ORDERS, LETTERS], capturer="capturer", recoverer="recoverer")
    tables, names = (CUSTOMERS, LETTERS), ("shop.customers", "shop.letters")
    before = image(app, *names)
    point, store = take(app, tmp_path, tables=tables)
    write(
        app, "UPDATE shop.customers SET email = 'n' || id WHERE id <= 5", "INSERT INTO shop.letters VALUES (10, 'n1')"
    )
    _restore(app, point, store, tables, source=source)
    assert image(app, *names) == before


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
def test_a_row_that_comes_late_is_not_erased_with_its_parent(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    write(
        app,
        f"CREATE TABLE shop.lines (id int PRIMARY KEY, order_id int REFERENCES shop.orders ON DELETE {action})",
        "INSERT INTO shop.lines VALUES (1, 1)",
    )
    _granted(app, "shop.lines")
    tables = (CUSTOMERS, ORDERS, LINES)
    point, store = take(app, tmp_path, tables=tables)
    write(app, "INSERT INTO shop.orders (customer_id, total) VALUES (1, 1)", "INSERT INTO shop.lines VALUES (2, 201)")
    with monkeypatch.context() as patch:
        _before_the_lock(app, patch, "INSERT INTO shop.lines VALUES (3, 201)")
        with pytest.raises(WouldBreak, match=r"erase 1 rows of shop\.lines; .*plan again"):
            _restore(app, point, store, tables, source="scan")
    assert image(app, "shop.lines")["shop.lines"] == [("(1,1)",), ("(2,201)",), ("(3,201)",)]
    _restore(app, point, store, tables, source="scan")
    assert image(app, "shop.lines")["shop.lines"] == [("(1,1)",)]


@pytest.mark.parametrize("source", ["journal", "scan"])
def test_a_parent_made_again_does_not_erase_what_names_it(app: Any, tmp_path: Path, source: Any) -> None:
    """The same value under another number: the child is as it was, and nothing is planned for it."""
    write(
        app,
        "CREATE TABLE shop.letters (id int PRIMARY KEY,"
        " email text REFERENCES shop.customers (email) ON DELETE CASCADE)",
        "INSERT INTO shop.customers (email) VALUES ('r@example.com')",
        "INSERT INTO shop.letters VALUES (1, 'r@example.com')",
    )
    _granted(app, "shop.letters")
    with database.connect(app.installer, purpose="test") as conn:
        journal.install(conn, [CUSTOMERS, ORDERS, LETTERS], capturer="capturer", recoverer="recoverer")
    tables = (CUSTOMERS, LETTERS)
    point, store = take(app, tmp_path, tables=tables)
    write(app, "DELETE FROM shop.customers WHERE id = 21")
    write(app, "INSERT INTO shop.customers (email) VALUES ('r@example.com')")
    write(app, "INSERT INTO shop.letters VALUES (1, 'r@example.com')")
    with pytest.raises(WouldBreak, match=r"1 rows of shop\.letters"):
        _restore(app, point, store, tables, source=source)
    assert image(app, "shop.letters")["shop.letters"] == [("(1,r@example.com)",)]


def test_a_database_with_other_defaults_is_read_after_the_lock(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.connect(app.recoverer, purpose="test") as conn:
        then = journal.tick(conn)
    before = image(app, "shop.orders")
    write(app, "ALTER TABLE shop.orders DISABLE TRIGGER orders_touch", "UPDATE shop.orders SET total = 0 WHERE id = 1")
    _before_the_lock(app, monkeypatch, "UPDATE shop.orders SET total = 7 WHERE id = 9")
    settings = ("SET default_transaction_isolation = 'repeatable read'", "SET default_transaction_read_only = on")
    _restore(app, then, None, (ORDERS,), settings=settings)
    assert image(app, "shop.orders") == before


def test_exchanged_values_of_rows_that_nobody_names_come_back(app: Any, tmp_path: Path) -> None:
    """A reference that refuses stands only before rows that are named."""
    spec = TableSpec(name="shop.products", key=("id",))
    write(
        app,
        "CREATE TABLE shop.products (id int PRIMARY KEY, sku text UNIQUE)",
        "CREATE TABLE shop.lines (id int PRIMARY KEY, product int REFERENCES shop.products ON DELETE RESTRICT)",
        "INSERT INTO shop.products VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "INSERT INTO shop.lines VALUES (1, 3)",
    )
    _granted(app, "shop.products", "shop.lines")
    before = image(app, "shop.products")
    point, store = take(app, tmp_path, tables=(spec,))
    exchange = (
        "UPDATE shop.products SET sku = 'x' WHERE id = 1",
        "UPDATE shop.products SET sku = 'a' WHERE id = 2",
        "UPDATE shop.products SET sku = 'b' WHERE id = 1",
    )
    write(app, *exchange)
    _restore(app, point, store, (spec,))
    assert image(app, "shop.products") == before
    write(app, *exchange, "INSERT INTO shop.lines VALUES (2, 1)")
    exchanged = image(app, "shop.products", "shop.lines")
    with pytest.raises(WouldBreak, match=r"lines_product_fkey"):
        _restore(app, point, store, (spec,), step="again")
    assert image(app, "shop.products", "shop.lines") == exchanged


@pytest.mark.parametrize("key", ["id", "n"])
def test_generated_keys_and_references_to_them(app: Any, tmp_path: Path, key: str) -> None:
    codes = TableSpec(name="shop.codes", key=(key,))
    write(
        app,
        "CREATE TABLE shop.codes"
        f" (raw text, n int, id text GENERATED ALWAYS AS (upper(raw)) STORED UNIQUE, PRIMARY KEY ({key}))",
        "CREATE TABLE shop.lines (id int PRIMARY KEY, code text REFERENCES shop.codes (id))",
        "INSERT INTO shop.codes SELECT 'r' || n, n FROM generate_series(1, 9) n",
        "INSERT INTO shop.lines SELECT n, 'R' || n FROM generate_series(1, 5) n",
    )
    _granted(app, "shop.codes", "shop.lines")
    names = ("shop.codes", "shop.lines")
    before = image(app, *names)
    point, store = take(app, tmp_path, tables=(codes, LINES))
    write(
        app,
        "UPDATE shop.lines SET code = 'R1'",
        "DELETE FROM shop.codes WHERE n IN (5, 9)",
        "UPDATE shop.codes SET raw = 'new' WHERE n = 4",
        "INSERT INTO shop.codes VALUES ('late', 10)",
    )
    _restore(app, point, store, (codes, LINES))
    assert image(app, *names) == before
    write(app, "UPDATE shop.lines SET code = 'R2'", "DELETE FROM shop.codes WHERE n = 5")
    with pytest.raises(WouldBreak, match=r"lines"):
        _restore(app, point, store, (LINES,), step="alone")


def test_a_reference_to_one_partition_counts_as_one_to_its_table(app: Any, tmp_path: Path) -> None:
    parts = TableSpec(name="shop.parts", key=("id",))
    write(
        app,
        "CREATE TABLE shop.parts (id int PRIMARY KEY, owner int) PARTITION BY RANGE (id)",
        "CREATE TABLE shop.parts_low PARTITION OF shop.parts FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE shop.parts_high PARTITION OF shop.parts FOR VALUES FROM (100) TO (200)",
        "ALTER TABLE shop.parts_high ADD FOREIGN KEY (owner) REFERENCES shop.customers (id)",
        "INSERT INTO shop.parts VALUES (8, 999)",
        "CREATE TABLE shop.lines (id int PRIMARY KEY, part int REFERENCES shop.parts_high (id) ON DELETE CASCADE)",
        "CREATE TABLE shop.letters (id int PRIMARY KEY, part int REFERENCES shop.parts (id) ON DELETE CASCADE)",
    )
    _granted(app, "shop.parts", "shop.lines", "shop.letters")
    point, store = take(app, tmp_path, tables=(parts,))
    write(
        app,
        "UPDATE shop.parts SET owner = 998",
        "INSERT INTO shop.parts VALUES (107, 1)",
        "INSERT INTO shop.lines VALUES (1, 107)",
    )
    with pytest.raises(WouldBreak, match=r"rows of shop\.parts would also erase 1 rows of shop\.lines"):
        _restore(app, point, store, (parts,))
    assert image(app, "shop.lines")["shop.lines"] == [("(1,107)",)]
    write(app, "DELETE FROM shop.lines")
    _restore(app, point, store, (parts,))
    assert image(app, "shop.parts")["shop.parts"] == [("(8,999)",)]
    with database.connect(app.capturer, purpose="test") as conn, conn.transaction():
        chunks.settle(conn)
        found = {(r.child, r.parent, r.on_delete, r.on_update) for r in shape.foreign_keys(conn, ["shop.parts"])}
    assert found == {(f"shop.{n}", "shop.parts", "erase", "nothing") for n in ("lines", "letters")}
