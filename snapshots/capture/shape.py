"""What the database says about the tables of a point: columns with exact types, keys, sequences, foreign keys.

Every function takes a connection whose transaction went through :func:`chunks.settle`, so that type names print the
same everywhere; any role that may read the catalogue will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection, sql

from snapshots import database
from snapshots.errors import Refused
from snapshots.model import ColumnInfo, TableManifest
from snapshots.points.errors import TableMissing

Action = Literal["nothing", "restrict", "erase"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """Rows of ``child`` name rows of ``parent``. ``on_delete`` says what deleting the parent does to them: nothing,
    unless they name it still when the statement ends; restrict: it is refused; erase: they are deleted or changed.
    ``on_update`` says the same of giving the parent other values."""

    child: str
    columns: tuple[str, ...]
    parent: str
    to: tuple[str, ...]
    on_delete: Action = "nothing"
    on_update: Action = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Counter:
    """A sequence: its last value, ``None`` before its first use."""

    value: int | None
    increment: int

    def behind(self, recorded: int) -> bool:
        """Whether the sequence may still give out numbers that were in use when ``recorded`` was read."""
        if self.value is None:
            return True
        return self.value < recorded if self.increment > 0 else self.value > recorded


def source(conn: Connection[Any], table: str) -> sql.Composable:
    """What to read so that a table gives its own rows: all leaves of a partitioned one, no heirs of a plain one."""
    row = conn.execute("SELECT relkind::text FROM pg_class WHERE oid = %s", (_oid(conn, table),)).fetchone()
    partitioned = row is not None and row[0] == "p"
    return database.qualified(table) if partitioned else sql.SQL("ONLY {}").format(database.qualified(table))


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A relation that holds rows of a table: the table itself, or a partition without partitions."""

    oid: int
    name: str
    """``schema.name``."""
    pages: int
    """Of 8 KB, now; a reader may find more, or rows of a later page only."""
    heap: bool
    """An ordinary table: rows have a place (``ctid``) and a transaction number (``xmin``) of their own."""


def leaves(conn: Connection[Any], table: str) -> tuple[Leaf, ...]:
    """The relations that hold the table's rows, by name; none for a partitioned table without partitions."""
    rows = conn.execute(
        "SELECT c.oid, n.nspname || '.' || c.relname, (coalesce(pg_relation_size(c.oid), 0)"
        "  / current_setting('block_size')::int)::bigint, c.relkind = 'r' AND coalesce(a.amname = 'heap', false)"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am a ON a.oid = c.relam"
        " WHERE c.oid = %(oid)s AND c.relkind <> 'p' OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s)"
        "  WHERE isleaf AND relid <> %(oid)s) ORDER BY 2",
        {"oid": _oid(conn, table)},
    ).fetchall()
    return tuple(Leaf(oid=int(oid), name=name, pages=pages, heap=heap) for oid, name, pages, heap in rows)


def columns(conn: Connection[Any], table: str) -> tuple[ColumnInfo, ...]:
    """The table's columns in their order; types outside ``pg_catalog`` with their schema, whoever asks."""
    _oid(conn, table)
    row = conn.execute("SELECT current_setting('search_path')").fetchone()
    conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")
    found = database.columns(conn, table)
    conn.execute("SELECT set_config('search_path', %s, true)", row)
    return found


def usable_key(conn: Connection[Any], table: str, key: Sequence[str]) -> tuple[str, ...]:
    """``key`` if the database guarantees that it names one row: unique, whole, valid and never null. Else empty: the
    table is then compared as a bag of rows."""
    rows = conn.execute(
        "SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(n, o)"
        "  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n WHERE o <= i.indnkeyatts),"
        " (SELECT bool_and(a.attnotnull) FROM pg_attribute a"
        "  WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey))"
        " FROM pg_index i WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate"
        " AND i.indpred IS NULL AND i.indexprs IS NULL",
        (_oid(conn, table),),
    ).fetchall()
    wanted = set(key)
    return tuple(key) if any(never_null and set(names) == wanted for names, never_null in rows) else ()


def differences(conn: Connection[Any], manifest: TableManifest) -> tuple[str, ...]:
    """How the live table's columns differ from the point's, in words; empty when rows of one fit the other."""
    live = {c.name: c for c in columns(conn, manifest.name)}
    then = {c.name: c for c in manifest.columns}
    found = [f"column {n} is gone" for n in then.keys() - live.keys()]
    found += [f"column {n} is new" for n in live.keys() - then.keys()]
    for name in then.keys() & live.keys():
        old, new = then[name], live[name]
        if old.type != new.type:
            found.append(f"column {name} was {old.type} and is {new.type}")
        if old.generated != new.generated:
            found.append(f"column {name} {'became' if new.generated else 'is no longer'} generated")
    return tuple(sorted(found))


def sequences(conn: Connection[Any], tables: Iterable[str]) -> dict[str, Counter]:
    """The sequences that the tables own or take defaults from, by ``schema.name``.

    Sequences stand outside snapshots: read after the snapshot was taken, they are never behind its rows. Raises
    :class:`Refused` when the role may not read one: PostgreSQL would silently call it unused.
    """
    rows = conn.execute(
        "SELECT DISTINCT n.nspname || '.' || s.relname, pg_sequence_last_value(s.oid), q.seqincrement,"
        " has_sequence_privilege(s.oid, 'SELECT') OR has_sequence_privilege(s.oid, 'USAGE')"
        " FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace JOIN pg_sequence q ON q.seqrelid = s.oid"
        " WHERE EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid"
        "  AND d.deptype IN ('a', 'i') AND d.refobjid = ANY(%(oids)s))"
        " OR EXISTS (SELECT FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid"
        "  WHERE d.classid = 'pg_attrdef'::regclass AND d.refobjid = s.oid AND f.adrelid = ANY(%(oids)s)) ORDER BY 1",
        {"oids": [_oid(conn, t) for t in tables]},
    ).fetchall()
    for name, _, _, readable in rows:
        if not readable:
            raise Refused(f"Sequence {name} is not readable for {conn.info.user}; grant SELECT (`reinstate roles`).")
    return {name: Counter(value=value, increment=step) for name, value, step, _ in rows}


def foreign_keys(conn: Connection[Any], tables: Iterable[str]) -> tuple[Relation, ...]:
    """Foreign keys with at least one end in ``tables``. One to a partition counts as one to its table; what only one
    partition must name is left to the database to check."""
    rows = conn.execute(
        "WITH own AS (SELECT oid AS root, oid FROM unnest(%(oids)s::oid[]) t(oid) UNION"
        "  SELECT t.oid, p.relid FROM unnest(%(oids)s::oid[]) t(oid), pg_partition_tree(t.oid) p)"
        " SELECT n.nspname || '.' || r.relname,"
        " ARRAY(SELECT attname::text FROM unnest(c.conkey) WITH ORDINALITY k(n, o)"
        "  JOIN pg_attribute ON attrelid = c.conrelid AND attnum = k.n ORDER BY o),"
        " pn.nspname || '.' || p.relname,"
        " ARRAY(SELECT attname::text FROM unnest(c.confkey) WITH ORDINALITY k(n, o)"
        "  JOIN pg_attribute ON attrelid = c.confrelid AND attnum = k.n ORDER BY o),"
        " CASE c.confdeltype WHEN 'a' THEN 'nothing' WHEN 'r' THEN 'restrict' ELSE 'erase' END,"
        " CASE c.confupdtype WHEN 'a' THEN 'nothing' WHEN 'r' THEN 'restrict' ELSE 'erase' END"
        " FROM pg_constraint c LEFT JOIN own child ON child.oid = c.conrelid LEFT JOIN own parent"
        "  ON parent.oid = c.confrelid"
        " JOIN pg_class r ON r.oid = coalesce(child.root, c.conrelid) JOIN pg_namespace n ON n.oid = r.relnamespace"
        " JOIN pg_class p ON p.oid = coalesce(parent.root, c.confrelid) JOIN pg_namespace pn ON pn.oid = p.relnamespace"
        " WHERE c.contype = 'f' AND c.conparentid = 0 AND (c.conrelid = ANY(%(oids)s) OR parent.root IS NOT NULL)"
        " ORDER BY c.conname",
        {"oids": [_oid(conn, t) for t in tables]},
    ).fetchall()
    return tuple(
        Relation(child=child, columns=tuple(own), parent=parent, to=tuple(to), on_delete=gone, on_update=changed)
        for child, own, parent, to, gone, changed in rows
    )


def parents_first(tables: Iterable[str], relations: Iterable[Relation]) -> tuple[str, ...]:
    """Order tables so that parents come before children; inside a cycle by name. Pure."""
    left = sorted(set(tables))
    above = {t: {r.parent for r in relations if r.child == t and r.parent != t} & set(left) for t in left}
    ordered: list[str] = []
    while left:
        ready = [t for t in left if not above[t] & set(left)] or left[:1]
        ordered += ready
        left = [t for t in left if t not in ready]
    return tuple(ordered)


def _oid(conn: Connection[Any], table: str) -> int:
    schema, _, name = table.partition(".")
    row = conn.execute(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
        (schema, name),
    ).fetchone()
    if row is None:
        raise TableMissing(f"Table {table} does not exist; correct its name in the catalogue or create it.")
    return int(row[0])
