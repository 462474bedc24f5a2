"""What changed since a position, as SQL over the journal's twin tables: the cost of a check follows the change.

Layout of the journal: docs/design.md. All functions need a role that reads the app's tables and schema ``reinstate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from checks.errors import DetectorBroken
from snapshots.model import Position
from snapshots.position import after


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """A journaled table. ``types`` maps the columns the journal keeps to their types."""

    table: str
    twin: str
    key: tuple[str, ...]
    types: Mapping[str, str] = field(repr=False)

    @property
    def live(self) -> sql.Identifier:
        return sql.Identifier(*self.table.split("."))

    @property
    def journal(self) -> sql.Identifier:
        return sql.Identifier("reinstate", self.twin)

    def require(self, columns: tuple[str, ...], asker: str) -> None:
        for column in columns:
            if column not in self.types:
                raise DetectorBroken(f"{asker}: table {self.table} has no journaled column {column}. "
                                     "Correct the catalogue, or run `reinstate journal install` again")  # fmt: skip


def twin(conn: psycopg.Connection[Any], table: str, asker: str) -> Twin:
    """The journal's record of ``table``. ``asker`` names who needs it in errors. Raises ``DetectorBroken``."""
    try:
        row = conn.execute(
            "SELECT twin, key, columns FROM reinstate.journal_table WHERE table_name = %s", (table,)
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege) as e:
        raise DetectorBroken(f"{asker}: the journal cannot be read ({_first(e)}). "
                             "Run `reinstate journal install`, as the roles say") from None  # fmt: skip
    if row is None:
        raise DetectorBroken(f"{asker}: table {table} is not in the journal. Run `reinstate journal install`")
    if not row[1]:
        raise DetectorBroken(f"{asker}: table {table} has no key. Name its key columns in the catalogue")
    return Twin(table=table, twin=row[0], key=tuple(row[1]), types={c["name"]: c["type"] for c in row[2]})


def changed(twin: Twin, since: Position, *, before: sql.Composable | None = None) -> sql.Composed:
    """Query of the keys changed since: the key's columns, ``rj_first`` (smallest journal number) and ``rj_began``.
    ``before`` leaves out keys whose first change is younger than that time."""
    return sql.SQL(
        "SELECT {key}, min(t.rj_seq) AS rj_first, min(t.rj_at) AS rj_began FROM {twin} AS t "
        "WHERE {after} AND t.rj_side IN ('o', 'n') GROUP BY {key}{having}"
    ).format(
        key=columns("t", twin.key),
        twin=twin.journal,
        after=after(since, sql.Identifier("t", "rj_xid")),
        having=sql.SQL("") if before is None else sql.SQL(" HAVING min(t.rj_at) <= {}").format(before),
    )


def columns(alias: str, names: tuple[str, ...]) -> sql.Composed:
    """``alias.a, alias.b``"""
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def texts(alias: str, names: tuple[str, ...]) -> sql.Composed:
    """``ARRAY[alias.a::text, alias.b::text]``"""
    parts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(alias, name)) for name in names)
    return sql.SQL("ARRAY[{}]").format(parts)


def same(left: str, names: tuple[str, ...], right: str, others: tuple[str, ...] | None = None) -> sql.Composed:
    """``left.a = right.x AND ...``"""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, a), sql.Identifier(right, b))
        for a, b in zip(names, others or names, strict=True)
    )


def given(alias: str, names: tuple[str, ...]) -> sql.Composed:
    """``alias.a IS NOT NULL AND ...``"""
    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(alias, n)) for n in names)


def trusted(text: str) -> sql.SQL:
    """SQL that the catalogue's author or the database's own catalogue wrote; never anything that came in."""
    return sql.SQL(text)


def _first(error: psycopg.Error) -> str:
    return str(error).splitlines()[0]
