"""Whatever became of the app, a wreck begins with an oracle that holds exactly it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from drills import dumps, truth
from drills.events import look
from drills.judge import compare
from drills.oracle import Oracle
from drills.order_desk import DATABASE, ORACLE, TEMPLATE, OrderDesk
from estate import secrets
from tests.conftest import PgServer

pytestmark = pytest.mark.postgres


@pytest.fixture
def known(pg: PgServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    desk = OrderDesk(superuser_dsn=pg.superuser_dsn, n8n_url="http://127.0.0.1:1", n8n_key="unused", home=tmp_path)
    desk.prepare()
    desk.reset_databases()
    yield secrets.read(desk.driver_file)
    for database in (DATABASE, ORACLE, TEMPLATE):
        pg.drop_database(database)


def test_the_oracle_follows_an_app_that_went_on_without_it(known: dict[str, str], tmp_path: Path) -> None:
    app, oracle = known["DRIVER_DB_JUDGE"], known["DRIVER_DB_ORACLE"]
    assert truth.begin(app, oracle, tmp_path) == 0  # the first day: nothing to copy
    with psycopg.connect(known["DRIVER_DB_STAFF"]) as staff:
        staff.execute("UPDATE desk.orders SET note = E'called\\ttwice\\n' WHERE region = 'north'")
        staff.execute(
            "INSERT INTO desk.deliveries (id, sku, quantity, arrived_at)"
            " VALUES (gen_random_uuid(), 'SKU-0007', 5, now())"
        )
    world = look(app, 3)
    with Oracle(oracle) as other:  # an earlier wreck that nobody recovered: its events are no truth any more
        other.apply([world.tidy_up(), world.order()])
    assert truth.begin(app, oracle, tmp_path) > 6_000
    assert compare(dumps.take(app, tmp_path / "a"), dumps.take(oracle, tmp_path / "o")).wrong == {}
    assert truth.begin(app, oracle, tmp_path) == 0
