"""Faults a drill injects beside the bad version. Each is what a careless person might do, with that person's rights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql


@contextmanager
def journal_off(connection: psycopg.Connection[Any], schema: str, table: str) -> Iterator[None]:
    """The table's owner disables the journal's triggers for a while and enables them again exactly as they were."""
    relation = sql.Identifier(schema, table)
    with connection.transaction():
        names = [
            row[0]
            for row in connection.execute(
                """SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                   JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid
                   JOIN pg_namespace f ON f.oid = p.pronamespace
                   WHERE n.nspname = %s AND c.relname = %s AND f.nspname = 'reinstate'""",
                (schema, table),
            )
        ]
        for name in names:
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(relation, sql.Identifier(name)))
    try:
        yield
    finally:
        with connection.transaction():
            for name in names:
                connection.execute(
                    sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(relation, sql.Identifier(name))
                )


def await_inserts(
    connection: psycopg.Connection[Any], schema: str, table: str, *, rows: int, timeout_s: float, poll_s: float = 0.05
) -> int:
    """Wait until others have inserted ``rows`` more rows, or ``timeout_s`` is over. How many came."""
    count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))

    def counted() -> int:
        row = connection.execute(count).fetchone()
        connection.commit()
        return int(row[0]) if row else 0

    before, deadline = counted(), time.monotonic() + timeout_s
    while (came := counted() - before) < rows and time.monotonic() < deadline:
        time.sleep(poll_s)
    return came
