"""Connections that all see one exported snapshot, read-only, for tools that open their own transactions.

Great Expectations runs each metric in a transaction of its own, over an SQLAlchemy engine. Every such transaction is
begun here as ``REPEATABLE READ READ ONLY`` and set to the same snapshot, so that all queries of all suites agree with
each other and with the recovery point they verify.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from sqlalchemy import Engine

APPLICATION = "reinstate suites"


@contextmanager
def snapshot_of(dsn: str, snapshot: str | None) -> Iterator[str]:
    """The snapshot to run on: the given one, which its exporter keeps open, or a fresh one kept open here."""
    if snapshot is not None:
        yield snapshot
        return
    with psycopg.connect(dsn, application_name=APPLICATION) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        yield str(row[0]) if row else ""


@contextmanager
def opener(dsn: str, timeout_s: float) -> Iterator[Callable[[], psycopg.Connection]]:
    """A factory of read-only connections for ``creator=``, so that the connection string stays out of every repr.

    All of them are closed in the end, whatever pool they are in. ``timeout_s`` bounds each statement.
    """
    opened: list[psycopg.Connection] = []

    def connect() -> psycopg.Connection:
        connection = psycopg.connect(dsn, application_name=APPLICATION, autocommit=True)
        opened.append(connection)
        connection.execute("SELECT set_config('statement_timeout', %s, false)", (f"{int(timeout_s * 1000)}ms",))
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET jit = off")
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.autocommit = False
        return connection

    try:
        yield connect
    finally:
        for connection in opened:
            connection.close()


def pin(engine: Engine, snapshot: str) -> None:
    """Let every transaction of ``engine`` begin on ``snapshot``."""
    from sqlalchemy import event

    statement = sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot))

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        with connection.connection.cursor() as cursor:
            cursor.execute(statement)
