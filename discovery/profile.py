"""A look at the rows of a table: how many, what is never empty, what is unique, between what bounds. Role: capturer.

The cost is bounded: a large table is sampled by pages, each question has a time limit, and a table that does not answer
in time is described by its shape alone. Values of a column leave the database only where a small set of them repeats,
or as the smallest and largest number or time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import errors, sql

from discovery.facts import ColumnFact, ForeignKey, TableFact
from snapshots import database

WHOLE_ROWS = 200_000
"""Tables up to this many rows are read in full."""
SAMPLE_ROWS = 50_000
SMALL_SET = 12
TIME_LIMIT_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnProfile:
    """One column over the rows that were looked at. ``values`` are those of a small set, as text."""

    nulls: int
    distinct: int | None = None
    minimum: Any = None
    maximum: Any = None
    emails: float = 0.0
    values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TableProfile:
    """``rows`` of the table (an estimate where ``sampled``), ``looked`` of them were read."""

    rows: int
    looked: int
    sampled: bool
    columns: Mapping[str, ColumnProfile] = field(default_factory=dict)
    problem: str | None = None
    """Why the rows could not be read."""

    def column(self, name: str) -> ColumnProfile | None:
        return self.columns.get(name)


def profile(
    conn: psycopg.Connection[Any], tables: Sequence[TableFact], say: Callable[[str], None] = lambda _: None
) -> dict[str, TableProfile]:
    """Profiles by table, all from one snapshot when the caller has begun one."""
    found = {}
    for table in tables:
        say(f"looking at {table.name}")
        try:
            with conn.transaction():
                conn.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(f"{TIME_LIMIT_S}s")))
                found[table.name] = _profile(conn, table)
        except (errors.QueryCanceled, errors.LockNotAvailable, errors.InsufficientPrivilege) as error:
            why = "no right to read it" if isinstance(error, errors.InsufficientPrivilege) else "it took too long"
            found[table.name] = TableProfile(rows=table.rows, looked=0, sampled=True, problem=why)
    return found


def holds(conn: psycopg.Connection[Any], child: TableFact, reference: ForeignKey) -> bool | None:
    """Whether every row of ``child`` (a sample of a large one) has its parent; ``None``: too dear to tell, or no row
    has a value at all."""
    matched = sql.SQL(" AND ").join(
        sql.SQL("p.{} = c.{}").format(sql.Identifier(to), sql.Identifier(own))
        for own, to in zip(reference.columns, reference.to, strict=True)
    )
    given = sql.SQL(" AND ").join(sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(c)) for c in reference.columns)
    query = sql.SQL(
        "SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (SELECT FROM {parent} AS p WHERE {matched}))"
        " FROM {child} AS c WHERE {given}"
    ).format(
        parent=database.qualified(reference.table), matched=matched, child=_rows(child, child.rows)[0], given=given
    )
    try:
        with conn.transaction():
            conn.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(f"{TIME_LIMIT_S}s")))
            row = conn.execute(query).fetchone()
    except psycopg.Error:
        return None
    return None if row is None or row[0] == 0 else row[1] == 0


def _rows(table: TableFact, estimate: int) -> tuple[sql.Composed, bool]:
    """The rows to look at, as something to select from, and whether they are a sample."""
    name = database.qualified(table.name)
    if estimate <= WHOLE_ROWS:
        return sql.SQL("(SELECT * FROM {} LIMIT {})").format(name, sql.Literal(WHOLE_ROWS)), False
    percent = min(100.0, 100.0 * SAMPLE_ROWS / estimate)
    sample = sql.SQL("(SELECT * FROM {} TABLESAMPLE SYSTEM ({}) REPEATABLE (1) LIMIT {})")
    return sample.format(name, sql.Literal(percent), sql.Literal(2 * SAMPLE_ROWS)), True


def _profile(conn: psycopg.Connection[Any], table: TableFact) -> TableProfile:
    estimate = table.rows
    if estimate <= WHOLE_ROWS:
        counted = conn.execute(
            sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS s").format(
                database.qualified(table.name), sql.Literal(WHOLE_ROWS + 1)
            )
        ).fetchone()
        estimate = counted[0] if counted else estimate
    source, sampled = _rows(table, estimate)
    parts: list[sql.Composable] = [sql.SQL("count(*)")]
    for column in table.columns:
        parts += _questions(column)
    row = conn.execute(sql.SQL("SELECT {} FROM {} AS s").format(sql.SQL(", ").join(parts), source)).fetchone()
    answers = iter(row or ())
    looked = next(answers, 0)
    columns = {}
    for column in table.columns:
        nulls, distinct, low, high, emails = (next(answers) for _ in range(5))
        filled = looked - nulls
        columns[column.name] = ColumnProfile(
            nulls=nulls, distinct=distinct, minimum=_plain(low), maximum=_plain(high),
            emails=emails / filled if filled else 0.0,
            values=_values(conn, column, source) if _repeats(column, distinct, filled) else (),
        )  # fmt: skip
    return TableProfile(rows=estimate, looked=looked, sampled=sampled, columns=columns)


def _questions(column: ColumnFact) -> list[sql.Composable]:
    """Nulls, distinct values, smallest, largest, and how many look like an address."""
    name = {"c": sql.Identifier("s", column.name)}
    nothing = sql.SQL("NULL")
    ordered = column.category in "ND" and not column.type.startswith(("interval", "time ", "money", "oid"))
    return [
        sql.SQL("count(*) FILTER (WHERE {c} IS NULL)").format(**name),
        sql.SQL("count(DISTINCT {c})").format(**name) if column.comparable else nothing,
        sql.SQL("min({c})::text").format(**name) if ordered else nothing,
        sql.SQL("max({c})::text").format(**name) if ordered else nothing,
        sql.SQL("count(*) FILTER (WHERE {c}::text ~ '^[^@ ]+@[^@ ]+[.][^@ ]+$')").format(**name)
        if column.category == "S"
        else sql.SQL("0"),
    ]


def _repeats(column: ColumnFact, distinct: int | None, filled: int) -> bool:
    return column.category == "S" and distinct is not None and 0 < distinct <= SMALL_SET and filled >= 8 * distinct


def _values(conn: psycopg.Connection[Any], column: ColumnFact, source: sql.Composed) -> tuple[str, ...]:
    rows = conn.execute(
        sql.SQL("SELECT DISTINCT s.{c}::text FROM {} AS s WHERE s.{c} IS NOT NULL ORDER BY 1").format(
            source, c=sql.Identifier(column.name)
        )
    ).fetchall()
    return tuple(r[0] for r in rows)


def _plain(value: str | None) -> Any:
    """A number where the text is one; times stay text."""
    if value is None:
        return None
    try:
        number = Decimal(value)
    except ArithmeticError:
        return value
    return number if number.is_finite() else None
