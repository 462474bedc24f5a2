"""Full copies fanned out over a Dask cluster of two processes give the point that threads give, row for row."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from flows import capture_dask
from snapshots import roles as product_roles
from snapshots.capture import capture, pieces
from snapshots.capture.pieces import Piece
from snapshots.errors import Refused
from snapshots.model import Chunk, RecoveryPoint, TableSpec
from snapshots.points import points, reading
from snapshots.store.store import Store
from tests.snapshots.point_desk import Told

pytestmark = [pytest.mark.postgres, pytest.mark.live]

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "examples" / "order-desk" / "catalog.yaml"
APP = "order-desk"
TABLES = (TableSpec(name="desk.wide", key=("id",)), TableSpec(name="desk.log", key=()))


@pytest.fixture(scope="module")
def prefect_here() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.fixture
def desk(app_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with psycopg.connect(app_db.installer) as conn:
        conn.execute("CREATE SCHEMA desk")
        conn.execute("CREATE TABLE desk.wide (id int PRIMARY KEY, total numeric, at timestamptz, body bytea)")
        conn.execute(
            "INSERT INTO desk.wide SELECT n, n * 1.10, '2026-01-01'::timestamptz + n * interval '1 s',"
            " decode(md5(n::text), 'hex') FROM generate_series(1, 30000) n"
        )
        conn.execute("CREATE TABLE desk.log AS SELECT 'line ' || n % 7 AS line FROM generate_series(1, 5000) n")
    with psycopg.connect(app_db.superuser) as conn:
        conn.execute(product_roles.sql(database=app_db.name, tables=[t.name for t in TABLES]).encode())
    monkeypatch.setenv("REINSTATE_HOME", str(tmp_path))
    monkeypatch.setenv("ORDER_DESK_N8N_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ORDER_DESK_N8N_KEY", "test-key")
    for name in ("INSTALLER", "CAPTURER", "RECOVERER"):
        monkeypatch.setenv(f"ORDER_DESK_DB_{name}", app_db.dsn(name.lower()))
    return app_db


@flow(name="test-dask", persist_result=False)
def fan_out(url: str, broken: bool) -> str:
    """As the flow does it, with writes between the snapshot and its readers."""
    stage = capture_dask.runner(str(CATALOG), APP, workers=2)

    def staged(snapshot: str, parts: Sequence[Piece]) -> list[tuple[Chunk, ...]]:
        assert len(parts) > 2
        with psycopg.connect(os.environ["ORDER_DESK_DB_INSTALLER"]) as conn:  # after the snapshot: in no piece
            conn.execute("DELETE FROM desk.wide WHERE id % 3 = 0")
            conn.execute("UPDATE desk.log SET line = 'later'")
        first = replace(parts[0], query=parts[0].query.replace("desk", "secret")) if broken else parts[0]
        return stage(snapshot, [first, *parts[1:]])

    capturer = os.environ["ORDER_DESK_DB_CAPTURER"]
    return capture.capture(capturer, TABLES, {}, Told(), Store(url), app=APP, run=staged).id


def _rows(store: Store, point: RecoveryPoint) -> dict[str, list[str]]:
    found = {}
    for table in point.tables:
        batches = list(reading.batches(store, table))
        found[table.name] = sorted(repr(r) for b in batches for r in zip(*(c.to_pylist() for c in b), strict=True))
    return found


def test_two_workers_stage_what_one_session_publishes(
    desk: Any, prefect_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_PAGES", 64)
    store = Store(str(tmp_path / "store"))
    with_threads = capture.capture(desk.capturer, TABLES, {}, Told(), store, app=APP)
    on_dask = points.load(store, APP, fan_out(store.name, broken=False))
    assert points.audit(store, on_dask) == ()
    assert _rows(store, on_dask) == _rows(store, with_threads)
    assert [len(t.chunks) for t in on_dask.tables] == [len(t.chunks) for t in with_threads.tables]


def test_a_piece_that_cannot_be_read_publishes_nothing(
    desk: Any, prefect_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_PAGES", 64)
    store = Store(str(tmp_path / "store"))
    with pytest.raises(Refused, match="could not be read"):
        fan_out(store.name, broken=True)
    assert store.point_ids(APP) == []
