"""Dumps of the app's tables as text, one file per table, for comparing databases field by field.

A dump is a folder: ``tables.json`` with columns and key of every table, and ``<schema>.<table>.tsv`` in the text form
of COPY, where a tab or a line break inside a value is always escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from drills.errors import DrillError

SCHEMA = "desk"
FIXED = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET extra_float_digits = 1; SET IntervalStyle = 'postgres'"

Row = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TableDump:
    """One table: ``lines`` maps a row's key to its line. Values are in COPY's text form; ``\\N`` is null."""

    columns: Row
    key: Row
    lines: dict[Row, bytes] = field(repr=False)

    def row(self, key: Row) -> dict[str, str] | None:
        """A row as column -> text, or ``None``."""
        line = self.lines.get(key)
        return None if line is None else dict(zip(self.columns, line.decode().split("\t"), strict=True))


Dump = dict[str, TableDump]
"""Tables by ``schema.table``."""


def take(dsn: str, folder: Path) -> Dump:
    """Write all tables of the app as of one moment to ``folder`` and return them. Raises ``psycopg.Error``."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    described: dict[str, dict[str, list[str]]] = {}
    with psycopg.connect(dsn) as connection:
        connection.execute(FIXED)
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        for table, columns, key in _tables(connection):
            name = f"{SCHEMA}.{table}"
            described[name] = {"columns": columns, "key": key}
            query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.Identifier(SCHEMA, table),
                sql.SQL(", ").join(map(sql.Identifier, key)),
            )
            with connection.cursor().copy(query) as copy, (folder / f"{name}.tsv").open("wb") as file:
                for block in copy:
                    file.write(block)
    (folder / "tables.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    return read(folder)


def read(folder: Path) -> Dump:
    """A dump from its folder. Raises ``DrillError`` when a file is missing or a key occurs twice."""
    try:
        described = json.loads((folder / "tables.json").read_text(encoding="utf-8"))
        return {name: _table(folder / f"{name}.tsv", **parts) for name, parts in described.items()}
    except FileNotFoundError as error:
        raise DrillError(f"dump {folder}: {error.filename} is missing; take the dump again") from error


def _table(file: Path, columns: list[str], key: list[str]) -> TableDump:
    places = [columns.index(c) for c in key]
    lines: dict[Row, bytes] = {}
    for line in file.read_bytes().splitlines():
        values = line.split(b"\t")
        row_key = tuple(values[p].decode() for p in places)
        if row_key in lines:
            raise DrillError(f"dump {file}: key {', '.join(row_key)} occurs twice; take the dump again")
        lines[row_key] = line
    return TableDump(columns=tuple(columns), key=tuple(key), lines=lines)


def _tables(connection: psycopg.Connection) -> Iterator[tuple[str, list[str], list[str]]]:
    rows = connection.execute(
        """
        SELECT c.relname,
               array_agg(a.attname::text ORDER BY a.attnum),
               (SELECT array_agg(k.attname::text ORDER BY array_position(i.indkey::int2[], k.attnum))
                FROM pg_index AS i JOIN pg_attribute AS k ON k.attrelid = c.oid AND k.attnum = ANY(i.indkey)
                WHERE i.indrelid = c.oid AND i.indisprimary)
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r'
        GROUP BY c.oid, c.relname ORDER BY c.relname
        """,
        [SCHEMA],
    ).fetchall()
    for name, columns, key in rows:
        if not key:
            raise DrillError(f"dump: table {SCHEMA}.{name} has no primary key; rows cannot be compared")
        yield name, columns, key
