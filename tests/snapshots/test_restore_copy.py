"""A point is proven by loading it into an empty copy of the app's schema."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from point_desk import SCHEMA, build, image, take, write

from snapshots import database
from snapshots.points.errors import Damaged, NotEmpty, ShapeChanged, WouldBreak
from snapshots.restore import definition, diff, whole

pytestmark = pytest.mark.postgres
NAMES = ("shop.customers", "shop.orders", "shop.log")


@pytest.fixture
def app(app_db: Any) -> Any:
    build(app_db, journal=False)
    return app_db


@pytest.fixture
def empty(app: Any) -> Iterator[Any]:
    """The same schema, empty, in a database of its own; a connection of its owner."""
    app.server.create_database("copy", owner="installer")
    made = SimpleNamespace(installer=app.server.dsn("copy", "installer"))
    write(made, SCHEMA)
    with database.connect(made.installer, purpose="test") as conn:
        yield SimpleNamespace(installer=made.installer, conn=conn)
    app.server.drop_database("copy")


def test_a_copy_is_the_point(app: Any, empty: Any, tmp_path: Path) -> None:
    """Also after the original database is gone for good; triggers and sequences of the copy are ready for use."""
    before = image(app, *NAMES)
    point, store = take(app, tmp_path)
    write(app, "DROP SCHEMA shop CASCADE")
    loaded = whole.into_empty(empty.conn, point, store)
    assert loaded == {"shop.customers": 20, "shop.orders": 200, "shop.log": 12}
    assert image(empty, *NAMES) == before
    assert [t.rows for t in diff.diff(empty.conn, point, store)] == [0, 0, 0]
    write(empty, "INSERT INTO shop.orders (customer_id, total) VALUES (1, 1)")
    with psycopg.connect(empty.installer) as conn:
        row = conn.execute("SELECT max(id), max(touched) > now() - interval '1 minute' FROM shop.orders").fetchone()
    assert row == (201, True)


def test_it_loads_all_or_nothing(app: Any, empty: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    last = point.tables[-1].chunks[-1].sha256
    path = tmp_path / "chunks" / last[:2] / f"{last}.parquet"
    kept = path.read_bytes()
    path.write_bytes(kept[:-1])
    with pytest.raises(Damaged, match=last):
        whole.into_empty(empty.conn, point, store)
    assert all(rows == [] for rows in image(empty, *NAMES).values())
    path.write_bytes(kept)
    with pytest.raises(WouldBreak, match="together"):
        whole.into_empty(empty.conn, point, store, ["shop.orders"])
    whole.into_empty(empty.conn, point, store)
    with pytest.raises(NotEmpty, match="fresh copy"):
        whole.into_empty(empty.conn, point, store)


def test_another_schema_is_refused(app: Any, empty: Any, tmp_path: Path) -> None:
    point, store = take(app, tmp_path)
    write(empty, "ALTER TABLE shop.orders DROP note, ADD hint text")
    with pytest.raises(ShapeChanged, match="column hint is new; column note is gone"):
        whole.into_empty(empty.conn, point, store)


def test_a_database_with_nothing_in_it_is_filled_in_parallel(app: Any, tmp_path: Path) -> None:
    """Tables, keys, foreign keys, triggers, sequences: what the app needs to go on there."""
    before = image(app, *NAMES)
    point, store = take(app, tmp_path)
    app.server.create_database("bare", owner="installer")
    try:
        bare = SimpleNamespace(installer=app.server.dsn("bare", "installer"))
        write(bare, "CREATE SCHEMA shop", SCHEMA[SCHEMA.index("CREATE FUNCTION") : SCHEMA.index("CREATE TRIGGER")])
        assert whole.into_empty(bare.installer, point, store, workers=3) == {
            "shop.customers": 20,
            "shop.orders": 200,
            "shop.log": 12,
        }
        assert image(bare, *NAMES) == before
        with database.connect(bare.installer, purpose="test") as conn:
            assert [t.rows for t in diff.diff(conn, point, store)] == [0, 0, 0]
            described = [definition.read(conn, t) for t in NAMES]
        with database.connect(app.installer, purpose="test") as conn:
            assert described == [definition.read(conn, t) for t in NAMES]
        write(bare, "INSERT INTO shop.orders (customer_id, total) VALUES (1, 1)")
        with pytest.raises(NotEmpty, match="fresh copy"):
            whole.into_empty(bare.installer, point, store)
        write(bare, "DROP TABLE shop.orders, shop.customers, shop.log")
        with pytest.raises(WouldBreak, match=r"shop\.orders references shop\.customers"):
            whole.into_empty(bare.installer, point, store, ["shop.orders"])
    finally:
        app.server.drop_database("bare")
