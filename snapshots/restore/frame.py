"""The tables of a diff or restore: how each is read, where its differences come from, and what stands in the way.

Temporary tables are named ``reinstate_<what>_<number>``; their own columns begin with ``rj_``, which the journal
reserves, so that they never collide with a column of the app. They outlive the transaction that fills them, because a
restore computes before it locks; :func:`drop` removes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, sql

from snapshots.capture import shape
from snapshots.errors import Refused
from snapshots.journal import journal
from snapshots.journal import shape as journal_shape
from snapshots.model import ColumnInfo, Gap, Position, RecoveryPoint, TableManifest, TableSpec
from snapshots.points import chunks
from snapshots.points.errors import ShapeChanged, TableMissing
from snapshots.restore.model import How, Source

EXACT_COUNT_PAGES = 400
"""Tables up to so many pages are counted; larger ones are estimated, so that the cost does not grow with them."""

_SETTINGS = {
    "jit": "off",
    "work_mem": "128MB",
    # Pages of what was just written are in memory; the default would read whole tables for a few thousand rows.
    "random_page_cost": "1.1",
    "from_collapse_limit": "12",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One table. ``key`` is empty when nothing names a row: it is then compared as a bag of rows."""

    number: int
    name: str
    oid: int
    columns: tuple[ColumnInfo, ...]
    """All but generated ones."""
    key: tuple[str, ...]
    live: sql.Composable
    how: How
    twin: sql.Identifier | None
    casts: tuple[str, ...]
    """Columns whose declared type is a domain: the journal keeps the base type."""
    manifest: TableManifest | None

    def temp(self, what: str) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"reinstate_{what}_{self.number}")

    def values(self, alias: str | None = None) -> sql.Composed:
        return names((c.name for c in self.columns), alias)

    def image(self, alias: str) -> sql.Composed:
        """The row as a record, for ``record_image_eq`` and its like."""
        return sql.SQL("ROW({})").format(self.values(alias))

    def keys(self, alias: str | None = None) -> sql.Composed:
        return names(self.key, alias)

    def ours(self, live: str, want: str) -> sql.Composed:
        """The live row that ``want`` is about: by key, or by place where there is none."""
        if self.key:
            return self.same_key(live, want)
        return sql.SQL("{} = {} AND {} = {}").format(
            sql.Identifier(live, "ctid"),
            sql.Identifier(want, "rj_tid"),
            sql.Identifier(live, "tableoid"),
            sql.Identifier(want, "rj_rel"),
        )

    def same_key(self, left: str, right: str) -> sql.Composed:
        return matching(left, self.key, right, self.key)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where tables shall be brought: a point, or a position that only the journal reaches."""

    point: RecoveryPoint | None
    position: Position

    @property
    def title(self) -> str:
        return self.point.id if self.point else f"{self.position.at:%Y-%m-%d %H:%M:%S.%f} UTC"


def target_of(target: RecoveryPoint | Position) -> Target:
    if isinstance(target, Position):
        return Target(point=None, position=target)
    return Target(point=target, position=target.position)


def manifests(point: RecoveryPoint, tables: Iterable[str] | None) -> tuple[TableManifest, ...]:
    """The point's tables of those names, in the point's order. Raises :class:`TableMissing`."""
    if tables is None:
        return point.tables
    wanted = set(tables)
    absent = wanted - {t.name for t in point.tables}
    if absent:
        raise TableMissing(f"Point {point.id} does not hold {', '.join(sorted(absent))}; choose another point.")
    return tuple(t for t in point.tables if t.name in wanted)


def names(columns: Iterable[str], alias: str | None = None) -> sql.Composed:
    """``a, b`` or ``t.a, t.b``."""
    prefix = (alias,) if alias else ()
    return sql.SQL(", ").join(sql.Identifier(*prefix, c) for c in columns)


def matching(left: str, left_columns: Sequence[str], right: str, right_columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, a), sql.Identifier(right, b))
        for a, b in zip(left_columns, right_columns, strict=True)
    )


def settle(conn: Connection[Any]) -> None:
    """Settings of one transaction: exact values, and plans that suit small changes in large tables."""
    chunks.settle(conn)
    conn.execute(
        "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s(name, value)",
        (list(_SETTINGS), list(_SETTINGS.values())),
    )


def frames(
    conn: Connection[Any], target: Target, tables: Sequence[TableSpec | str] | None, source: Source
) -> tuple[tuple[Frame, ...], tuple[Gap, ...]]:
    """The tables (default: all of the point, or all journaled ones), with the gaps that keep the journal out.

    Raises :class:`TableMissing`, :class:`ShapeChanged` and :class:`Refused` with what cannot be done.
    """
    journaled = journal_shape.stored(conn)
    known = {m.name: m for m in target.point.tables} if target.point else {}
    wanted: dict[str, TableSpec | None] = (
        {t if isinstance(t, str) else t.name: None if isinstance(t, str) else t for t in tables}
        if tables is not None
        else dict.fromkeys(known or journaled)
    )
    if target.point and (absent := wanted.keys() - known.keys()):
        raise TableMissing(f"Point {target.point.id} does not hold {', '.join(sorted(absent))}; choose another point.")
    gaps: tuple[Gap, ...] = ()
    usable: set[str] = set()
    why = "no journal is installed"
    if journaled and source != "scan":
        try:
            gaps = tuple(journal.gaps(conn, since=target.position, tables=sorted(wanted)))
            broken = {g.table for g in gaps}
            usable = set() if "*" in broken else wanted.keys() & journaled.keys() - broken
        except Refused as error:
            why = str(error)
    made = []
    for number, name in enumerate(n for n in known or wanted if n in wanted):
        spec = wanted[name]
        twin = journaled.get(name)
        manifest = known.get(name)
        key = spec.key if spec else manifest.key if manifest else twin.key if twin else ()
        through = name in usable and twin is not None
        if not through and (source == "journal" or manifest is None):
            raise Refused(_unreached(name, target, [g for g in gaps if g.table in (name, "*")], why))
        frame = _frame(conn, name, number=number, key=key, manifest=manifest, twin=twin if through else None)
        if frame.how == "compare" and manifest is None:
            raise Refused(f"Table {name} has no usable key: the journal cannot bring it back; restore it from a point.")
        made.append(frame)
    return tuple(made), gaps


def _unreached(name: str, target: Target, gaps: Sequence[Gap], why: str) -> str:
    cause = f"{gaps[0].kind}: {gaps[0].detail}" if gaps else why
    return (
        f"The journal of {name} does not reach back to {target.position.at:%Y-%m-%d %H:%M:%S} UTC ({cause}); "
        "restore from a recovery point."
    )


def _frame(
    conn: Connection[Any],
    name: str,
    *,
    number: int,
    key: tuple[str, ...],
    manifest: TableManifest | None,
    twin: journal_shape.Stored | None,
) -> Frame:
    if manifest and (changed := shape.differences(conn, manifest)):
        raise ShapeChanged(f"Table {name} no longer fits the point: {'; '.join(changed)}; migrate it back first.")
    columns = chunks.stored(shape.columns(conn, name))
    if taken := [c.name for c in columns if c.name.startswith("rj_")]:
        raise Refused(f"Table {name} has a column {taken[0]}: names starting with rj_ are reserved; rename it.")
    if twin and {c.name for c in twin.columns} != {c.name for c in columns}:
        raise ShapeChanged(f"Table {name} and its journal differ in columns; run `reinstate journal install` again.")
    kept = {c.name for c in columns}
    usable = shape.usable_key(conn, name, key) if key and set(key) <= kept else ()
    oid, domains = _look(conn, name)
    return Frame(
        number=number,
        name=name,
        oid=oid,
        columns=columns,
        key=usable,
        live=shape.source(conn, name),
        how="journal" if twin and usable else "compare",
        twin=sql.Identifier("reinstate", twin.twin) if twin else None,
        casts=tuple(c.name for c in columns if c.name in domains),
        manifest=manifest,
    )


def _look(conn: Connection[Any], name: str) -> tuple[int, frozenset[str]]:
    schema, _, table = name.partition(".")
    row = conn.execute(
        "SELECT c.oid, ARRAY(SELECT a.attname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        "  WHERE a.attrelid = c.oid AND a.attnum > 0 AND t.typtype = 'd')"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (schema, table),
    ).fetchone()
    if row is None:
        raise TableMissing(f"Table {name} does not exist; restore it with `reinstate restore --table {name}`.")
    return int(row[0]), frozenset(row[1])


def rows(conn: Connection[Any], frame: Frame) -> int:
    """Live rows: counted in a small table, estimated in a large one from its density and its size now."""
    row = conn.execute(
        "SELECT bool_and(c.reltuples >= 0), coalesce(sum(pg_relation_size(c.oid)) / 8192, 0)::bigint,"
        " coalesce(sum(CASE WHEN c.relpages > 0 THEN c.reltuples / c.relpages * (pg_relation_size(c.oid) / 8192)"
        "  ELSE 0 END), 0)::bigint FROM pg_class c WHERE c.oid = %(oid)s AND c.relkind = 'r'"
        " OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s::regclass) WHERE isleaf)",
        {"oid": frame.oid},
    ).fetchone()
    known, pages, estimate = row or (False, 0, 0)
    if known and pages > EXACT_COUNT_PAGES and estimate:
        return int(estimate)
    counted = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(frame.live)).fetchone()
    return int(counted[0]) if counted else 0


def want(conn: Connection[Any], frame: Frame) -> None:
    """The empty table of what is wanted: ``rj_do`` (D, U, I; X for a broken chain), the live row it is about, and the
    row as it shall be (of a row to be deleted, as it is). The journal names the live row by the image ``rj_after``."""
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(frame.temp("want")))
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {} AS SELECT 'D'::\"char\" AS rj_do, t.tableoid AS rj_rel, t.ctid AS rj_tid,"
            " t.xmin AS rj_xmin, t.ctid AS rj_after, {} FROM {} t WITH NO DATA"
        ).format(frame.temp("want"), frame.values("t"), frame.live)
    )


def measure(conn: Connection[Any], frame: Frame) -> None:
    """Statistics of ``want`` that plans need: what to do, and that a key is there once."""
    columns = names(dict.fromkeys(("rj_do", *frame.key)))
    conn.execute(sql.SQL("ANALYZE {} ({})").format(frame.temp("want"), columns))


def counts(conn: Connection[Any], frame: Frame) -> dict[str, int]:
    """How many rows to delete (D), update (U) and insert (I); X counts broken ones."""
    found = conn.execute(sql.SQL("SELECT rj_do::text, count(*) FROM {} GROUP BY 1").format(frame.temp("want")))
    return {"D": 0, "U": 0, "I": 0, "X": 0} | {str(kind): int(count) for kind, count in found}


PARTS = ("want", "img", "key", "point", "moved", "gone")


def drop(conn: Connection[Any], made: Sequence[Frame]) -> None:
    """Remove the temporary tables; commits where no transaction is open. Never raises: a session that broke has none
    left."""
    if not made or conn.closed:
        return
    statement = sql.SQL("DROP TABLE IF EXISTS {}").format(
        sql.SQL(", ").join(frame.temp(part) for frame in made for part in PARTS)
    )
    with suppress(psycopg.Error), conn.transaction():
        conn.execute("SET LOCAL client_min_messages = 'error'")
        conn.execute(statement)
