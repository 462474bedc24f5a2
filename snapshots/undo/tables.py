"""What an undo reads from the database's own catalogue about each table, before it computes anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from snapshots.database import qualified
from snapshots.journal.shape import stored
from snapshots.model import TableSpec
from snapshots.undo.shape import SUMMED_AS, Column, Relation, Shape

EXACT_COUNT_BELOW = 100_000
"""Rows by the planner's density, from which on that estimate is used for the share of deleted rows."""

NEAR_SHARE = 4
"""Fewer rows than a table's divided by this are looked up one by one; for more, the table is read once."""

FEW = 1_000
"""So many rows are always looked up one by one where an index allows it."""

WORK_MEM = "128MB"
"""For sorts and hashes of one undo; the server's other memory is not touched."""


def fix_output(conn: psycopg.Connection[Any]) -> None:
    """Make text forms exact and the same for old, new and live rows, for the current transaction only."""
    settings = {
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "jit": "off",
        # Handing wide rows from process to process costs more than reading them.
        "max_parallel_workers_per_gather": "0",
        "default_statistics_target": "10",
        "work_mem": WORK_MEM,
    }
    conn.execute(
        "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s(name, value)",
        (list(settings), list(settings.values())),
    )


_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname, a.attgenerated <> '', a.attidentity = 'a',
  CASE WHEN k.atttypid <> a.atttypid THEN format_type(k.atttypid, -1) ELSE '' END
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attribute k ON k.attrelid = to_regclass(%s)::oid AND k.attname = a.attname AND k.attnum > 0
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_STATE = """
WITH leaf AS (SELECT %(oid)s::oid AS relid UNION SELECT relid::oid FROM pg_partition_tree(%(oid)s::oid::regclass))
SELECT EXISTS (SELECT FROM leaf JOIN pg_trigger t ON t.tgrelid = leaf.relid JOIN pg_proc p ON p.oid = t.tgfoid
    JOIN pg_namespace n ON n.oid = p.pronamespace WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
      AND n.nspname <> 'reinstate' AND t.tgname <> ALL (%(suppress)s::text[]))
  OR EXISTS (SELECT FROM leaf JOIN pg_class c ON c.oid = leaf.relid WHERE c.relhasrules),
  (SELECT CASE WHEN bool_and(c.reltuples >= 0) THEN sum(c.reltuples / greatest(c.relpages, 1)
     * pg_relation_size(c.oid) / current_setting('block_size')::int) END
   FROM leaf JOIN pg_class c ON c.oid = leaf.relid AND c.relkind = 'r')
"""
_UNIQUE_KEY = """
SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = %s AND i.indisunique AND i.indimmediate AND i.indisvalid
    AND i.indpred IS NULL AND i.indexprs IS NULL
    AND (SELECT array_agg(a.attname::text) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, pos)
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num WHERE k.pos <= i.indnkeyatts)
      <@ %s::text[])
"""
_INDEXED = """
SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
    AND i.indnkeyatts >= cardinality(%(columns)s::text[])
    AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C")
         FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, pos)
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
         WHERE k.pos <= cardinality(%(columns)s::text[]))
      = (SELECT array_agg(x ORDER BY x COLLATE "C") FROM unnest(%(columns)s::text[]) AS x)), c.reltuples
FROM pg_class c WHERE c.oid = to_regclass(%(table)s)
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
   JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum),
  coalesce(to_jsonb(f) ->> 'conenforced' = 'false', false)
FROM pg_constraint f
JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE f.contype = 'f' AND f.conparentid = 0
  AND (format('%%s.%%s', cn.nspname, c.relname) = ANY(%s) OR format('%%s.%%s', pn.nspname, p.relname) = ANY(%s))
ORDER BY 1, 2, 3
"""


def read_shapes(
    conn: psycopg.Connection[Any], tables: Sequence[TableSpec], relations: Sequence[Relation] = ()
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
            shape = _shape(conn, len(shapes), spec, (row[0], *journaled[spec.name]), relations)
            shapes.append(shape)
            problems.extend(_shape_problems(shape))
    return tuple(shapes), tuple(problems)


def _shape(
    conn: psycopg.Connection[Any],
    index: int,
    spec: TableSpec,
    journaled: tuple[int, str, Sequence[str]],
    relations: Sequence[Relation],
) -> Shape:
    oid, twin, kept = journaled[0], sql.Identifier("reinstate", journaled[1]), journaled[2]
    columns: list[Column] = []
    missing = set(kept)
    for name, kind, base, generated, always, other in conn.execute(_COLUMNS, (twin.as_string(None), oid)):
        missing ^= {name}
        if generated:
            missing.discard(name)
        elif name in kept:
            columns.append(
                Column(name=name, type=kind, base=base, additive=name in spec.additive, writable=not always, kept=other)
            )
    names = {column.name for column in columns}
    unique = tuple(tuple(row[0]) for row in conn.execute(_UNIQUE, (oid,)) if names.issuperset(row[0]))
    watched = {name for group in unique for name in group}
    for relation in relations:
        watched.update(relation.columns if relation.child == spec.name else ())
        watched.update(relation.to if relation.parent == spec.name else ())
    state = conn.execute(_STATE, {"oid": oid, "suppress": list(spec.suppress)}).fetchone()
    meddled, estimate = state or (True, 0)
    unique_key = conn.execute(_UNIQUE_KEY, (oid, list(spec.key))).fetchone()
    return Shape(
        key_unique=bool(unique_key and unique_key[0]),
        index=index,
        spec=spec,
        relation=qualified(spec.name),
        twin=twin,
        columns=tuple(columns),
        unique=unique,
        missing=tuple(sorted(missing)),
        watched=tuple(sorted(watched & names)),
        key_indexed=_lookups(conn, spec.name, spec.key) > 0,
        meddled=meddled,
        table_rows=_rows(conn, spec.name, estimate),
    )


def _rows(conn: psycopg.Connection[Any], table: str, estimate: float | None) -> int:
    """Counted where that is cheap or nothing else is known; else estimated from pages and rows per page."""
    if estimate is not None and estimate >= EXACT_COUNT_BELOW:
        return int(estimate)
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(qualified(table))).fetchone()
    return int(row[0]) if row else 0


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
    """Foreign keys from or to ``tables``, then the declared references of ``tables``. A foreign key that the database
    does not enforce counts as declared."""
    names = [table.name for table in tables]
    found = [
        (child, tuple(columns), parent, tuple(to), declared)
        for child, parent, columns, to, declared in conn.execute(_FOREIGN_KEYS, (names, names))
    ]
    known = {relation[:4] for relation in found}
    for table in tables:
        for columns, parent, to in table.references:
            if (table.name, columns, parent, to) not in known:
                found.append((table.name, columns, parent, to, True))
    twins = stored(conn)
    return tuple(
        Relation(
            child_twin=sql.Identifier("reinstate", twins[child].twin) if child in twins else None,
            child_key=twins[child].key if child in twins else (),
            parent_twin=sql.Identifier("reinstate", twins[parent].twin) if parent in twins else None,
            child=child,
            columns=columns,
            parent=parent,
            to=to,
            declared=declared,
            child_lookups=_lookups(conn, child, columns),
            parent_lookups=_lookups(conn, parent, to),
        )
        for child, columns, parent, to, declared in found
    )


def _lookups(conn: psycopg.Connection[Any], table: str, columns: Sequence[str]) -> int:
    """Up to how many rows are faster found one by one, by an index on ``columns``, than by reading the table."""
    row = conn.execute(_INDEXED, {"table": qualified(table).as_string(None), "columns": list(columns)}).fetchone()
    if row is None or not row[0]:
        return 0
    return max(int(row[1]) // NEAR_SHARE, FEW)


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
