"""What an erasure must know of each table, and the questions it asks of the live database and of the journal's twins.

Values go to the server as parameters, never in the text of a statement. All functions run as the installer, who owns
the twins: nobody else may ever delete from a journal, so no grant and no function stays behind for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import Connection, errors, sql

from snapshots import database
from snapshots.errors import Refused
from snapshots.journal import shape
from snapshots.model import ColumnInfo, TableSpec

if TYPE_CHECKING:
    import pyarrow as pa

Value = tuple[str, ...]
"""The canonical texts of some columns of a row, none of them null."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A reference of a table. ``needed``: a row cannot do without its parent (not null, or deleted with it), so it is
    about whom the parent is about; else its ``clears`` columns can be nulled."""

    columns: tuple[str, ...]
    parent: str
    to: tuple[str, ...]
    needed: bool
    clears: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """One table: ``subject`` is the column that names the person, if one does; ``twin`` its journal, if it has one."""

    name: str
    key: tuple[str, ...]
    columns: tuple[ColumnInfo, ...]
    subject: str | None
    links: tuple[Link, ...]
    twin: str | None

    def types(self, names: Sequence[str]) -> tuple[str, ...]:
        known = {c.name: c.type for c in self.columns}
        return tuple(known[n] for n in names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """Rows whose ``columns`` have one of ``values``."""

    columns: tuple[str, ...]
    values: frozenset[Value]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """So many images of one transaction and run are not in the journal any more."""

    table: str
    xid: int
    actor: str
    run: str | None
    images: int


def scopes(
    conn: Connection[Any], specs: Sequence[TableSpec], subjects: Mapping[str, str], also: Collection[str]
) -> tuple[Scope, ...]:
    """The tables, with every reference judged. ``also`` names tables whose rows go with what they reference although
    they could do without. Raises :class:`Refused` for a subject that does not exist."""
    twins = {name: t.twin for name, t in shape.stored(conn).items()}
    cascading = _cascading(conn)
    made = []
    for spec in specs:
        columns = database.columns(conn, spec.name)
        subject = subjects.get(spec.name)
        if subject is not None and subject not in {c.name for c in columns if not c.generated}:
            raise Refused(f"table {spec.name} has no stored column {subject}: correct the catalogue, or --where")
        optional = {c.name for c in columns if not c.not_null} - set(spec.key)
        links = tuple(
            Link(
                columns=child,
                parent=parent,
                to=to,
                needed=not optional & set(child) or (spec.name, child) in cascading or spec.name in also,
                clears=tuple(c for c in child if c in optional),
            )
            for child, parent, to in spec.references
        )
        made.append(
            Scope(
                name=spec.name,
                key=spec.key,
                columns=columns,
                subject=subject,
                links=links,
                twin=twins.get(spec.name),
            )
        )
    if unknown := (set(subjects) | set(also)) - {s.name for s in made}:
        raise Refused(f"table {min(unknown)} is not in the catalogue: declare it, or correct the name")
    return tuple(made)


def subject_value(conn: Connection[Any], scope: Scope, value: str) -> Value | None:
    """The person as the table's subject column would hold them; ``None`` when it cannot hold the value. Raises
    :class:`Refused` for a column whose type has no equality. The value is in no error."""
    from snapshots.erasure import rules
    from snapshots.points import chunks

    column = next(c for c in scope.columns if c.name == scope.subject)
    query = sql.SQL("SELECT {} FROM (SELECT %s::text::{} AS {name}) t WHERE t.{name} = t.{name}").format(
        chunks.select_list([column], "t"), sql.SQL(_plain_type(column.type)), name=sql.Identifier(column.name)
    )
    try:
        with conn.transaction():
            rows = conn.execute(query, (value,)).fetchall()
    except errors.DataError:
        return None
    except errors.UndefinedFunction:
        raise Refused(f"{scope.name}.{column.name} of type {column.type} cannot be compared: name another") from None
    made = chunks.from_rows(rows, [column])
    return (rules.texts(made, (column.name,), (column.type,)).to_pylist()[0],)


def live_rows(conn: Connection[Any], scope: Scope, conditions: Iterable[Condition]) -> pa.Table:
    """Rows of the live table that meet one of the conditions, all stored columns."""
    return _rows(conn, scope, database.qualified(scope.name), conditions)


def twin_rows(conn: Connection[Any], scope: Scope, conditions: Iterable[Condition]) -> pa.Table:
    """Row images of the journal that meet one of the conditions."""
    return _rows(conn, scope, _twin(scope), conditions)


def drop_images(conn: Connection[Any], scope: Scope, conditions: Sequence[Condition]) -> list[Dropped]:
    """Delete the images from the twin; how many of which transaction."""
    where, values = _where(scope, conditions)
    query = sql.SQL(
        "WITH dropped AS (DELETE FROM {} t WHERE {} RETURNING rj_xid, rj_actor, rj_run)"
        " SELECT rj_xid::text::bigint, rj_actor::text, rj_run, count(*) FROM dropped GROUP BY 1, 2, 3"
    ).format(_twin(scope), where)
    return [
        Dropped(table=scope.name, xid=r[0], actor=r[1], run=r[2], images=r[3])
        for r in conn.execute(query, values).fetchall()
    ]


def clear_links(conn: Connection[Any], scope: Scope, columns: Sequence[str], condition: Condition) -> int:
    """Null the ``columns`` of the images that meet the condition; how many."""
    where, values = _where(scope, [condition])
    cleared = sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(c)) for c in columns)
    query = sql.SQL("UPDATE {} t SET {} WHERE {}").format(_twin(scope), cleared, where)
    return conn.execute(query, values).rowcount


def count_images(conn: Connection[Any], scope: Scope, conditions: Sequence[Condition]) -> int:
    """How many images of the journal meet one of the conditions."""
    if scope.twin is None or not any(c.values for c in conditions):
        return 0
    where, values = _where(scope, conditions)
    row = conn.execute(sql.SQL("SELECT count(*) FROM {} t WHERE {}").format(_twin(scope), where), values).fetchone()
    return int(row[0]) if row else 0


def mentions(
    conn: Connection[Any], scope: Scope, value: str, besides: Sequence[Condition], *, twin: bool
) -> dict[str, int]:
    """Rows (of the live table, or images of the twin) whose text contains ``value``, by column, apart from those that
    meet a condition."""
    texts = [c for c in scope.columns if _may_mention(c) and not c.generated]
    if not texts:
        return {}
    counts = sql.SQL(", ").join(
        sql.SQL("count(*) FILTER (WHERE strpos(t.{}::text, %s) > 0)").format(sql.Identifier(c.name)) for c in texts
    )
    source = _twin(scope) if twin else database.qualified(scope.name)
    query = sql.SQL("SELECT {} FROM {} t").format(counts, source)
    values: list[Any] = [value] * len(texts)
    if any(c.values for c in besides):
        where, more = _where(scope, besides)
        query += sql.SQL(" WHERE {} IS NOT TRUE").format(where)
        values += more
    row = conn.execute(query, values).fetchone()
    return {c.name: n for c, n in zip(texts, row or (), strict=True) if n}


def _may_mention(column: ColumnInfo) -> bool:
    kind = column.type.partition("(")[0]
    numbers = {
        "smallint",
        "integer",
        "bigint",
        "boolean",
        "real",
        "double precision",
        "numeric",
        "date",
        "bytea",
        "uuid",
    }
    return kind not in numbers and not kind.startswith(("timestamp", "time ", "interval"))


def _rows(conn: Connection[Any], scope: Scope, source: sql.Composable, conditions: Iterable[Condition]) -> pa.Table:
    from snapshots.points import chunks

    stored = chunks.stored(scope.columns)
    listed = [c for c in conditions if c.values]
    if not listed:
        return chunks.schema(stored).empty_table()
    where, values = _where(scope, listed)
    chosen = chunks.select_list(stored, "t")
    rows = conn.execute(sql.SQL("SELECT {} FROM {} t WHERE {}").format(chosen, source, where), values).fetchall()
    return chunks.from_rows(rows, stored)


def _where(scope: Scope, conditions: Iterable[Condition]) -> tuple[sql.Composable, list[Any]]:
    """The conditions as SQL over ``t``, by the types' own equality, so that indexes can answer."""
    parts: list[sql.Composable] = []
    values: list[Any] = []
    for condition in conditions:
        if not condition.values:
            continue
        ordered = sorted(condition.values)
        arrays = []
        for place, kind in enumerate(scope.types(condition.columns)):
            arrays.append(sql.SQL("%s::text[]::{}[]").format(sql.SQL(_plain_type(kind))))
            values.append([_input(value[place], kind) for value in ordered])
        names = sql.SQL(", ").join(sql.Identifier("t", c) for c in condition.columns)
        parts.append(sql.SQL("({}) IN (SELECT * FROM unnest({}))").format(names, sql.SQL(", ").join(arrays)))
    return sql.SQL("(") + sql.SQL(" OR ").join(parts) + sql.SQL(")"), values


def _plain_type(kind: str) -> str:
    """Without a length, which an explicit cast would cut to. ``format_type`` printed it, so it is quoted already."""
    head, bracket, tail = kind.partition("(")
    return "bpchar" if head == "character" else head + tail.partition(")")[2] if bracket else kind


def _input(text: str, kind: str) -> str:
    return "\\x" + text if kind == "bytea" else text


def _twin(scope: Scope) -> sql.Identifier:
    assert scope.twin is not None  # noqa: S101 - asked only of journaled tables
    return sql.Identifier("reinstate", scope.twin)


def _cascading(conn: Connection[Any]) -> frozenset[tuple[str, tuple[str, ...]]]:
    """Foreign keys that delete with their parent, as (table, columns)."""
    rows = conn.execute(
        """SELECT n.nspname || '.' || c.relname, array_agg(a.attname::text ORDER BY k.pos)
           FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           CROSS JOIN LATERAL unnest(f.conkey) WITH ORDINALITY AS k(child, pos)
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.child
           WHERE f.contype = 'f' AND f.confdeltype = 'c' GROUP BY f.oid, n.nspname, c.relname"""
    ).fetchall()
    return frozenset((r[0], tuple(r[1])) for r in rows)
