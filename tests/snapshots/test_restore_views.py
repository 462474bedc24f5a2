"""Materialised views after a restore: refreshed, or named as stale; never a failure of what is committed."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from point_desk import CUSTOMERS, ORDERS, build, write

from snapshots import database
from snapshots.journal import journal
from snapshots.model import Applied, Position
from snapshots.restore import checks, restore

pytestmark = pytest.mark.postgres

WRECK = "UPDATE shop.orders SET total = 0"
SUMS = "CREATE MATERIALIZED VIEW shop.sums AS SELECT sum(total) AS s FROM shop.orders"
FRESH = "SELECT s > 0 FROM shop.sums"


class Killed(BaseException):
    """The process is gone at this point."""


@pytest.fixture
def app(app_db: Any) -> Iterator[Any]:
    """The recoverer may refresh the installer's views."""
    build(app_db)
    with psycopg.connect(app_db.superuser) as conn:
        conn.execute("GRANT installer TO recoverer")
    yield app_db
    with psycopg.connect(app_db.superuser) as conn:
        conn.execute("REVOKE installer FROM recoverer")


def _tick(app: Any) -> Position:
    with database.connect(app.recoverer, purpose="test") as conn:
        return journal.tick(conn)


def _back(app: Any, target: Position) -> Applied:
    with database.connect(app.recoverer, purpose="test") as conn:
        return restore.apply(
            conn, target, None, (CUSTOMERS, ORDERS), recovery_id="r", step="s", plan_hash="h", source="journal"
        )


def _rows(app: Any, query: str) -> list[Any]:
    with psycopg.connect(app.superuser) as conn:
        return conn.execute(query.encode()).fetchall()


def test_a_time_limit_of_the_role_does_not_keep_a_view_stale(app: Any) -> None:
    then = _tick(app)
    write(app, "CREATE MATERIALIZED VIEW shop.sums AS SELECT sum(total) AS s, pg_sleep(1.2)::text FROM shop.orders")
    write(app, WRECK, "REFRESH MATERIALIZED VIEW shop.sums")
    with psycopg.connect(app.superuser) as conn:
        conn.execute(f"ALTER ROLE recoverer IN DATABASE {app.name} SET statement_timeout = '1s'")
    done = _back(app, then)
    assert "stale" not in done.detail
    assert _rows(app, FRESH) == [(True,)]


def test_a_view_that_fails_is_named_and_the_others_follow(app: Any) -> None:
    then = _tick(app)
    write(
        app,
        "CREATE MATERIALIZED VIEW shop.broken AS SELECT 1 / (sum(total) - sum(total)) FROM shop.orders WITH NO DATA",
        SUMS,
        WRECK,
        "REFRESH MATERIALIZED VIEW shop.sums",
    )
    done = _back(app, then)
    assert done.detail["stale"] == ["shop.broken"]
    assert _rows(app, FRESH) == [(True,)]


def test_a_run_that_died_before_the_views_is_finished_by_the_next(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    then = _tick(app)
    write(app, SUMS, WRECK, "REFRESH MATERIALIZED VIEW shop.sums")
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise Killed

        patch.setattr(checks, "refresh", die)
        with pytest.raises(Killed):
            _back(app, then)
    assert _rows(app, FRESH) == [(False,)]
    assert "stale" not in _back(app, then).detail
    assert _rows(app, FRESH) == [(True,)]


def test_a_view_that_is_gone_is_not_stale(app: Any) -> None:
    with database.connect(app.recoverer, purpose="test") as conn:
        assert checks.refresh(conn, ["shop.gone"]) == ()


def test_a_broken_connection_leaves_the_views_stale(app: Any) -> None:
    write(app, SUMS)
    conn = database.connect(app.recoverer, purpose="test")
    conn.close()
    assert checks.refresh(conn, ["shop.sums"]) == ("shop.sums",)
