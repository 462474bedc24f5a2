"""Before a wreck, the truth is the app as it is: the oracle is made to hold exactly that.

The oracle begins as a copy of the app's first day and hears only of a driver's own events. What came in otherwise (an
earlier wreck that nobody judged, a visitor's order) makes the two differ although nothing is wrong.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import psycopg
from psycopg import sql

from drills import dumps
from drills.dumps import SCHEMA
from drills.judge import compare


def begin(app_dsn: str, oracle_dsn: str, work: Path) -> int:
    """Make the oracle equal to the app, which must be in order and at rest. Returns how many rows had differed.

    ``app_dsn`` reads the app, ``oracle_dsn`` writes the oracle; both as the judge's role. Raises ``psycopg.Error``.
    """
    differing = len(compare(dumps.take(app_dsn, work / "app"), dumps.take(oracle_dsn, work / "oracle")).wrong)
    if differing:
        copy(app_dsn, oracle_dsn)
    return differing


def copy(app_dsn: str, oracle_dsn: str) -> None:
    """Replace all rows of the oracle by those of the app as of one moment, in one transaction."""
    with psycopg.connect(app_dsn) as app, psycopg.connect(oracle_dsn) as oracle:
        app.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        app.read_only = True
        tables = _parents_first(app)
        names = [sql.Identifier(SCHEMA, table) for table in tables]
        oracle.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names)))
        for table, name in zip(tables, names, strict=True):
            columns = sql.SQL(", ").join(map(sql.Identifier, _columns(app, table)))
            reading = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(columns, name)
            writing = sql.SQL("COPY {} ({}) FROM STDIN").format(name, columns)
            with app.cursor().copy(reading) as source, oracle.cursor().copy(writing) as target:
                for block in source:
                    target.write(block)


def _columns(connection: psycopg.Connection, table: str) -> list[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = format('%%I.%%I', %s::text, %s::text)::regclass"
        " AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        [SCHEMA, table],
    )
    return [row[0] for row in rows]


def _parents_first(connection: psycopg.Connection) -> list[str]:
    """The app's tables in an order that satisfies their foreign keys."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    rows = connection.execute(
        """
        SELECT c.relname, p.relname
        FROM pg_class AS c
        LEFT JOIN pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid <> c.oid
        LEFT JOIN pg_class AS p ON p.oid = k.confrelid
        WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r' ORDER BY 1, 2
        """,
        [SCHEMA],
    )
    for table, parent in rows:
        sorter.add(table, *([parent] if parent else []))
    return list(sorter.static_order())
