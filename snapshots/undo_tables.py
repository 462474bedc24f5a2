"""Shapes: what an undo reads from the database's own catalogue about each table, before it computes anything.

Temporary tables of one undo are called ``rj_<what>_<index>``; their own columns begin with ``rj_``, a prefix that the
journal reserves, so that they never collide with a column of the app.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from snapshots.database import qualified
from snapshots.journal_shape import stored
from snapshots.model import TableSpec

EXACT_AS_TEXT = frozenset(
    {
        *("bool", "bytea", "date", "float4", "float8", "int2", "int4", "int8", "interval", "json", "jsonb", "numeric"),
        *("text", "time", "timestamp", "timestamptz", "timetz", "uuid", "varchar"),
    }
)
"""Types whose cast to text is their output function, hence exact. Others go through a row, which always uses it."""

SUMMED_AS = {"int2": "numeric", "int4": "numeric", "int8": "numeric", "numeric": "numeric"} | {
    name: name for name in ("float4", "float8", "money", "interval")
}
"""Types an ``additive`` column may have, and the type its differences are summed in (small integers overflow)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """``type`` is the exact type as ``format_type`` prints it, ``base`` the catalogue's name of it."""

    name: str
    type: str
    base: str
    additive: bool
    writable: bool
    """False for ``GENERATED ALWAYS AS IDENTITY``: it can be inserted with ``OVERRIDING``, never updated."""

    def text(self, alias: str) -> sql.Composable:
        """An exact text form of the column's value; NULL and any value differ."""
        value = col(alias, self.name)
        if self.base in EXACT_AS_TEXT:
            return sql.SQL("{}::text").format(value)
        return sql.SQL("ROW({})::text").format(value)

    @property
    def summed(self) -> sql.SQL:
        """The type that differences of an additive column are added in."""
        return sql.SQL(SUMMED_AS.get(self.base, "numeric"))

    @property
    def cast(self) -> sql.SQL:
        """The column's own type, as the database prints it (hence quoted where it must be)."""
        return sql.SQL(self.type)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One journaled table: its twin, the columns both have (generated ones left out), key and unique columns."""

    index: int
    spec: TableSpec
    relation: sql.Identifier
    twin: sql.Identifier
    columns: tuple[Column, ...]
    unique: tuple[tuple[str, ...], ...]
    missing: tuple[str, ...]
    """Columns that only one of table and twin has."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def key(self) -> tuple[str, ...]:
        return self.spec.key

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def temp(self, what: str) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"rj_{what}_{self.index}")

    def keys(self, alias: str) -> sql.Composed:
        """The key of a temporary table: ``alias.rj_k0, alias.rj_k1``."""
        return comma(col(alias, f"rj_k{n}") for n in range(len(self.key)))

    def keys_from(self, alias: str) -> sql.Composed:
        """The key of the table, its twin or images, under the temporary tables' names."""
        return comma(
            sql.SQL("{} AS {}").format(col(alias, name), sql.Identifier(f"rj_k{n}")) for n, name in enumerate(self.key)
        )

    def same_key(self, left: str, right: str, *, row: bool = False) -> sql.Composed:
        """Equality of keys between temporary table ``left`` and ``right``; with ``row``, ``right`` has the app's
        own column names."""
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(col(left, f"rj_k{n}"), col(right, name if row else f"rj_k{n}"))
            for n, name in enumerate(self.key)
        )

    def key_texts(self, alias: str) -> sql.Composed:
        return sql.SQL("ARRAY[{}]").format(
            comma(sql.SQL("{}::text").format(col(alias, f"rj_k{n}")) for n in range(len(self.key)))
        )

    def values(self, alias: str) -> sql.Composed:
        return comma(col(alias, name) for name in self.names)

    def digest(self, alias: str) -> sql.Composed:
        """128 bits over the exact text of all columns, under the settings of :func:`fix_output`."""
        return sql.SQL('md5(ROW({})::text) COLLATE "C"').format(self.values(alias))


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """``child`` (``columns``) must exist in ``parent`` (``to``): a foreign key, or a declared reference."""

    child: str
    columns: tuple[str, ...]
    parent: str
    to: tuple[str, ...]
    declared: bool


def col(alias: str, name: str) -> sql.Identifier:
    return sql.Identifier(alias, name)


def comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def equal(left: str, left_columns: Sequence[str], right: str, right_columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(col(left, a), col(right, b)) for a, b in zip(left_columns, right_columns, strict=True)
    )


def fix_output(conn: psycopg.Connection[Any]) -> None:
    """Make text forms exact and the same for old, new and live rows, for the current transaction only."""
    settings = {
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "jit": "off",
        "work_mem": "64MB",
    }
    conn.execute(
        "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s(name, value)",
        (list(settings), list(settings.values())),
    )


_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname, a.attgenerated <> '', a.attidentity = 'a'
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_UNIQUE = """
SELECT (SELECT array_agg(a.attname::text ORDER BY k.n)
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts)
FROM pg_index i WHERE i.indrelid = %s AND i.indisunique AND NOT i.indisprimary
  AND i.indpred IS NULL AND i.indexprs IS NULL ORDER BY i.indexrelid
"""
_FOREIGN_KEYS = """
SELECT format('%%s.%%s', cn.nspname, c.relname), format('%%s.%%s', pn.nspname, p.relname),
  (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(f.conkey) WITH ORDINALITY k(attnum, n)
   JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum),
  (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(f.confkey) WITH ORDINALITY k(attnum, n)
   JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum)
FROM pg_constraint f
JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE f.contype = 'f' AND f.conparentid = 0
  AND (format('%%s.%%s', cn.nspname, c.relname) = ANY(%s) OR format('%%s.%%s', pn.nspname, p.relname) = ANY(%s))
ORDER BY 1, 2, 3
"""


def read_shapes(
    conn: psycopg.Connection[Any], tables: Sequence[TableSpec]
) -> tuple[tuple[Shape, ...], tuple[str, ...]]:
    """Shapes of those ``tables`` that are journaled, and the problems that the others are."""
    journaled = {table.name: (table.twin, [c.name for c in table.columns]) for table in stored(conn).values()}
    shapes: list[Shape] = []
    problems: list[str] = []
    for spec in sorted(tables, key=lambda table: table.name):
        row = conn.execute("SELECT to_regclass(%s)::oid", (qualified(spec.name).as_string(None),)).fetchone()
        if row is None or row[0] is None:
            problems.append(f"table {spec.name} does not exist: correct the catalogue")
        elif spec.name not in journaled:
            problems.append(f"table {spec.name} is not journaled: install the journal, or use a recovery point")
        elif not spec.key:
            problems.append(f"table {spec.name} has no primary key: its rows cannot be undone one by one")
        else:
            shape = _shape(conn, len(shapes), spec, row[0], journaled[spec.name])
            shapes.append(shape)
            problems.extend(_shape_problems(shape))
    return tuple(shapes), tuple(problems)


def _shape(
    conn: psycopg.Connection[Any], index: int, spec: TableSpec, oid: int, journaled: tuple[str, Sequence[str]]
) -> Shape:
    twin, kept = journaled
    columns: list[Column] = []
    missing = set(kept)
    for name, kind, base, generated, always in conn.execute(_COLUMNS, (oid,)):
        missing ^= {name}
        if generated:
            missing.discard(name)
        elif name in kept:
            columns.append(Column(name=name, type=kind, base=base, additive=name in spec.additive, writable=not always))
    return Shape(
        index=index,
        spec=spec,
        relation=qualified(spec.name),
        twin=sql.Identifier("reinstate", twin),
        columns=tuple(columns),
        unique=tuple(tuple(row[0]) for row in conn.execute(_UNIQUE, (oid,))),
        missing=tuple(sorted(missing)),
    )


def _shape_problems(shape: Shape) -> Iterable[str]:
    if shape.missing:
        yield (
            f"table {shape.name} and its journal differ in columns {', '.join(shape.missing)}: "
            "bring the journal up to date, or compare with a recovery point"
        )
    for column in shape.columns:
        if column.additive and column.base not in SUMMED_AS:
            yield f"column {shape.name}.{column.name} of type {column.type} cannot be additive: correct the catalogue"


def read_relations(conn: psycopg.Connection[Any], tables: Sequence[TableSpec]) -> tuple[Relation, ...]:
    """Foreign keys from or to ``tables``, then the declared references of ``tables``."""
    names = [table.name for table in tables]
    found = [
        Relation(child=child, columns=tuple(columns), parent=parent, to=tuple(to), declared=False)
        for child, parent, columns, to in conn.execute(_FOREIGN_KEYS, (names, names))
    ]
    known = {(r.child, r.columns, r.parent, r.to) for r in found}
    for table in tables:
        for columns, parent, to in table.references:
            if (table.name, columns, parent, to) not in known:
                found.append(Relation(child=table.name, columns=columns, parent=parent, to=to, declared=True))
    return tuple(found)


def parents_first(shapes: Sequence[Shape], relations: Sequence[Relation]) -> tuple[Shape, ...]:
    """Tables so that a parent comes before its children; within a cycle, by name (its constraints must be
    deferrable, or the database refuses)."""
    parents: dict[str, set[str]] = {shape.name: set() for shape in shapes}
    for relation in relations:
        if relation.child in parents and relation.parent in parents and relation.child != relation.parent:
            parents[relation.child].add(relation.parent)
    order: list[str] = []
    while len(order) < len(shapes):
        left = [name for name in sorted(parents) if name not in order]
        order.append(next((name for name in left if parents[name] <= set(order)), left[0]))
    by_name = {shape.name: shape for shape in shapes}
    return tuple(by_name[name] for name in order)
