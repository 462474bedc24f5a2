"""Whether a result is right: rows as the database itself prints them, summed up. No figure of a wrong result counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from psycopg import Connection, sql

from benchmarks import shop
from benchmarks.service import BenchmarkError
from snapshots.database import qualified

Sums = Mapping[str, tuple[Any, ...]]


def sums(
    conn: Connection[Any], tables: Sequence[str] = shop.NAMES, *, where: Mapping[str, LiteralString] | None = None
) -> Sums:
    """Count and two sums over every row's text, by table (any role that reads; nothing of the product is used).
    ``where`` leaves rows of a table out."""
    found = {}
    for table in tables:
        only = (where or {}).get(table, "true")
        query = sql.SQL(
            "SELECT count(*), sum(hashtextextended(t::text, 1)), sum(hashtextextended(t::text, 2)) FROM {} AS t"
            " WHERE {}"
        ).format(qualified(table), sql.SQL(only))
        found[table] = tuple(conn.execute(query).fetchone() or ())
    conn.rollback()
    return found


def same(found: Sums, wanted: Sums, *, what: str) -> None:
    """Raise :class:`BenchmarkError` naming the tables that differ."""
    wrong = [f"{t} ({found[t][0]} rows instead of {wanted[t][0]})" for t in wanted if found[t] != wanted[t]]
    if wrong:
        raise BenchmarkError(f"{what}: the result is wrong in {', '.join(wrong)}: nothing was measured")


def differ(found: Sums, wanted: Sums, *, what: str) -> None:
    """Raise when nothing differs: there would be nothing to repair."""
    if all(found[t] == wanted[t] for t in wanted):
        raise BenchmarkError(f"{what}: nothing was damaged, so nothing would be measured")


def count(conn: Connection[Any], table: str) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(qualified(table))).fetchone()
    return int(row[0]) if row else 0
