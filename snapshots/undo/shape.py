"""How an undo writes SQL about one table: its columns, keys, images and live rows, each phrased in one place.

Temporary tables of one undo are called ``rj_<what>_<index>``; their own columns begin with ``rj_``, a prefix that the
journal reserves, so that they never collide with a column of the app.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from snapshots.model import TableSpec

SELECTED = sql.Identifier("pg_temp", "rj_sel")
"""The selected transactions: ``xid``, ``tagged`` (selected for its tag), ``cancelled`` (an earlier undo's own)."""

EQUAL_IS_SAME = frozenset({"bool", "bytea", "date", "int2", "int4", "int8", "time", "timestamp", "timestamptz", "uuid"})
"""Types whose equality tells every difference. Others are compared as images: 1.0 = 1.00, but they are not the same."""

SUMMED_AS = {"int2": "numeric", "int4": "numeric", "int8": "numeric", "numeric": "numeric"} | {
    name: name for name in ("float4", "float8", "money", "interval")
}
"""Types an ``additive`` column may have, and the type its differences are summed in (small integers overflow)."""

BITS = 62
"""Bits of a row's difference mask; columns beyond share them, so a set bit may mean more than one column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """``type`` is the exact type as ``format_type`` prints it, ``base`` the catalogue's name of it."""

    name: str
    type: str
    base: str
    additive: bool
    writable: bool
    """False for ``GENERATED ALWAYS AS IDENTITY``: it can be inserted with ``OVERRIDING``, never updated."""
    kept: str = ""
    """The twin's type where it is another one (a domain's base); values are compared and kept in it."""

    def live(self, alias: str) -> sql.Composable:
        """The column of the app's own table, in the twin's type."""
        if not self.kept:
            return col(alias, self.name)
        return sql.SQL("{}::{}").format(col(alias, self.name), sql.SQL(self.kept))

    def differs(self, left: sql.Composable, right: sql.Composable) -> sql.Composed:
        """Whether two values in the twin's type are not the same to the last digit."""
        if self.base in EQUAL_IS_SAME:
            return sql.SQL("{} IS DISTINCT FROM {}").format(left, right)
        if self.base in ("text", "varchar"):
            return sql.SQL('{} COLLATE "C" IS DISTINCT FROM {} COLLATE "C"').format(left, right)
        return sql.SQL("NOT ({})").format(same_image([left], [right]))

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
    watched: tuple[str, ...] = ()
    """Columns of relations and unique values: ``rj_fin`` keeps their live values too, as ``rj_w<n>``."""
    key_indexed: bool = True
    key_unique: bool = True
    """Whether the database itself keeps the key unique, after every statement."""
    meddled: bool = False
    """Whether triggers or rules of the app stay active while the undo writes."""
    table_rows: int = 0
    """Rows of the table; an estimate for large ones."""
    where: str = ""
    """Only changes with an image for which this condition over ``r`` holds are selected; empty: all of them."""
    low: int = 0
    """The first selected image: nothing before it matters."""
    xids: tuple[int, ...] = ()
    """The selected transactions that wrote to it, where they are few; empty: too many to name."""
    one_each: bool = False
    """No row has more than one selected old and one selected new image: one statement wrote them all."""
    near: bool = False
    """Whether the selection is small beside the table, so that its rows are looked up one by one."""

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

    def bare_keys(self) -> sql.Composed:
        """The key of the table, its twin or images, without an alias."""
        return comma(sql.Identifier(name) for name in self.key)

    def own_keys(self, alias: str) -> sql.Composed:
        """The key of the table, its twin or images, under its own names."""
        return comma(col(alias, name) for name in self.key)

    def same_key(self, left: str, right: str, *, row: bool = False) -> sql.Composed:
        """Equality of keys between temporary table ``left`` and ``right``; with ``row``, ``right`` has the app's
        own column names."""
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(col(left, f"rj_k{n}"), col(right, name if row else f"rj_k{n}"))
            for n, name in enumerate(self.key)
        )

    def image(self, alias: str, left: str, column: str) -> sql.Composed:
        """``alias`` is the image that ``column`` of the temporary table ``left`` names: one number counts for all rows
        of a statement, so that only the key makes it one row's."""
        return sql.SQL("{} = {} AND {}").format(
            col(alias, "rj_id"), col(left, column), self.same_key(left, alias, row=True)
        )

    def key_texts(self, alias: str) -> sql.Composed:
        return sql.SQL("ARRAY[{}]").format(
            comma(sql.SQL("{}::text").format(col(alias, f"rj_k{n}")) for n in range(len(self.key)))
        )

    def values(self, alias: str) -> sql.Composed:
        return comma(col(alias, name) for name in self.names)

    def digest(self, alias: str) -> sql.Composed:
        """128 bits over the exact text of all columns, under the settings of ``undo_tables.fix_output``."""
        return sql.SQL('md5(ROW({})::text) COLLATE "C"').format(self.values(alias))

    def bit(self, column: str) -> int:
        """The column's bit in ``rj_diff``; 0 for one that the undo never writes."""
        return 1 << (self.names.index(column) % BITS) if column in self.names else 0

    def mask(self, left: str, right: str) -> sql.Composed:
        """Which columns differ between two rows in the twin's types, as bits; 0: none."""
        return sql.SQL("({})").format(
            sql.SQL(" | ").join(
                sql.SQL("CASE WHEN {} THEN {}::bigint ELSE 0 END").format(
                    column.differs(col(left, column.name), col(right, column.name)), sql.Literal(self.bit(column.name))
                )
                for column in self.columns
            )
        )

    def same_row(self, left: str, right: str) -> sql.Composed:
        """Whether two rows in the twin's types are the same, byte for byte."""
        return same_image([col(left, n) for n in self.names], [col(right, n) for n in self.names])

    def images(self, alias: str) -> sql.Composed:
        """``FROM`` part: images ``alias`` since the first selected one, by whomever. Followed by further conditions."""
        return sql.SQL("{twin} AS {alias} WHERE {side} IN ('o', 'n') AND {seq} >= {low}").format(
            twin=self.twin,
            alias=sql.Identifier(alias),
            side=col(alias, "rj_side"),
            seq=col(alias, "rj_seq"),
            low=sql.Literal(self.low),
        )

    def selected(self, alias: str) -> sql.Composed:
        """Whether the image ``alias`` is of a selected transaction: by their numbers where they are few, which an
        index can answer."""
        if self.xids:
            return sql.SQL("{} = ANY ({}::text[]::xid8[])").format(
                col(alias, "rj_xid"), sql.Literal([str(xid) for xid in self.xids])
            )
        return sql.SQL("{} IN (SELECT rj_s.xid FROM {} AS rj_s)").format(col(alias, "rj_xid"), SELECTED)

    def cancelled(self, alias: str) -> sql.Composed:
        """Whether the image ``alias`` is of an earlier undo's own transaction."""
        return sql.SQL("{} IN (SELECT rj_s.xid FROM {} AS rj_s WHERE rj_s.cancelled)").format(
            col(alias, "rj_xid"), SELECTED
        )

    def holds(self, alias: str) -> sql.Composable:
        """Whether the selection's condition holds for the image ``alias``."""
        if not self.where:
            return sql.SQL("true")
        return sql.SQL("EXISTS (SELECT FROM (SELECT {}) AS r WHERE ({}))").format(
            self.values(alias), sql.SQL(self.where)
        )

    def live_row(self, left: str) -> sql.Composed:
        """``LEFT JOIN`` with the live row of key ``left`` as ``t``: its columns in the twin's types, whether it is
        there (``rj_here``) and where it lies (``rj_oid``, ``rj_tid``, ``rj_xmin``)."""
        body = sql.SQL(
            "SELECT true AS rj_here, t.tableoid AS rj_oid, t.ctid AS rj_tid, t.xmin AS rj_xmin, {} FROM {} AS t"
        ).format(
            comma(sql.SQL("{} AS {}").format(column.live("t"), sql.Identifier(column.name)) for column in self.columns),
            self.relation,
        )
        same = self.same_key(left, "t", row=True)
        if self.near and self.key_indexed:
            # OFFSET keeps the planner from turning the look-ups into a scan of the table.
            return sql.SQL("LEFT JOIN LATERAL ({} WHERE {} OFFSET 0) AS t ON true").format(body, same)
        return sql.SQL("LEFT JOIN ({}) AS t ON {}").format(body, same)

    def fin_columns(self) -> sql.Composed:
        """The columns of ``rj_fin`` in their order; see :mod:`snapshots.undo.direct`."""
        own = ("first", "base", "present", "merged", "gone", "same", "conflict", "kind", "broken", "do", "want", "diff")
        names = [f"rj_k{n}" for n in range(len(self.key))] + [f"rj_{name}" for name in own]
        return comma(sql.Identifier(name) for name in (*names, *self.place_names, *self.names))

    @property
    def place_names(self) -> tuple[str, ...]:
        return ("rj_oid", "rj_tid", "rj_xmin", *(self.was(name) for name in self.watched))

    def places(self, alias: str) -> sql.Composed:
        """What ``rj_fin`` keeps of the live row: its place and its watched values."""
        parts = [sql.SQL("{} AS {}").format(col(alias, n), sql.Identifier(n)) for n in ("rj_oid", "rj_tid", "rj_xmin")]
        parts += [sql.SQL("{} AS {}").format(col(alias, n), sql.Identifier(self.was(n))) for n in self.watched]
        return comma(parts)

    def was(self, column: str) -> str:
        """The column of ``rj_fin`` with the live value of a watched column."""
        return f"rj_w{self.names.index(column)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """``child`` (``columns``) must exist in ``parent`` (``to``): a foreign key, or a declared reference."""

    child: str
    columns: tuple[str, ...]
    parent: str
    to: tuple[str, ...]
    declared: bool
    """The database does not see to it."""
    child_lookups: int = 0
    """Up to how many values are looked up one by one in the child; 0: no index serves that."""
    parent_lookups: int = 0
    child_twin: sql.Identifier | None = None
    """The child's journal, with the child's ``child_key``; ``None``: it has none."""
    child_key: tuple[str, ...] = ()
    parent_twin: sql.Identifier | None = None


def col(alias: str, name: str) -> sql.Identifier:
    return sql.Identifier(alias, name)


def comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def equal(left: str, left_columns: Sequence[str], right: str, right_columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(col(left, a), col(right, b)) for a, b in zip(left_columns, right_columns, strict=True)
    )


def same_image(left: Sequence[sql.Composable], right: Sequence[sql.Composable]) -> sql.Composed:
    """``record_image_eq``: equal byte for byte, whatever the types mean by equality; NULL is the same as NULL."""
    return sql.SQL("ROW({})::record *= ROW({})::record").format(comma(left), comma(right))
