"""Connections with fixed settings, and what a data operation must know about the app's tables.

Output settings are fixed so that the text form of a value is the same on every connection: fingerprints, manifests
and key lists rest on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg import Connection, sql

from snapshots.errors import Refused, Unreachable
from snapshots.model import ColumnInfo, TableSpec

CONNECT_TIMEOUT_S = 10
_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
}
_PERMANENT = ("28", "3D", "42")
"""SQLSTATE classes that no waiting cures: wrong credentials, unknown database, missing privilege."""


class DeclaredReference(Protocol):
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def table(self) -> str: ...
    @property
    def to(self) -> tuple[str, ...]: ...


class DeclaredTable(Protocol):
    """What this room reads of a catalogue table."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def additive(self) -> tuple[str, ...]: ...
    @property
    def public(self) -> tuple[str, ...]: ...
    @property
    def references(self) -> Sequence[DeclaredReference]: ...
    @property
    def triggers(self) -> Mapping[str, str]: ...
    @property
    def derives(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class UserTrigger:
    """A trigger of the app (never one of ours) on ``table``, which is the table asked for or one of its partitions.
    ``state``: O origin, D disabled, R replica, A always."""

    name: str
    state: str
    table: str


def connect(dsn: str, *, purpose: str, lock_timeout_s: float = 5) -> Connection[Any]:
    """Open a connection (autocommit off) with the settings of this room. ``purpose`` shows in ``pg_stat_activity``.

    Raises :class:`Unreachable` with one line that never holds the password.
    """
    try:
        given = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq quotes parts of a malformed string, which may be the password.
        message = "database: the connection string is malformed: check its reference"
        raise Unreachable(message, retryable=False) from None
    where = f"{given.get('dbname', '?')} at {given.get('host', 'localhost')}:{given.get('port', 5432)}"
    who = str(given.get("user", "?"))
    given.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    given["application_name"] = f"reinstate {purpose}"
    try:
        conn: Connection[Any] = psycopg.connect(**given)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        state = error.sqlstate or ""
        cause = (str(error).strip().splitlines() or ["no answer"])[-1].strip()
        if given.get("password"):
            cause = cause.replace(str(given["password"]), "***")
        permanent = state.startswith(_PERMANENT) or any(
            text in cause for text in ("authentication failed", "does not exist", "no password", "not permitted")
        )
        step = "check name, password and role" if permanent else "check that it runs, then try again"
        raise Unreachable(f"database {where} as {who}: {cause}: {step}", retryable=not permanent) from None
    settings = sql.SQL("; ").join(
        sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in {**_SETTINGS, "lock_timeout": f"{int(lock_timeout_s * 1000)}ms"}.items()
    )
    conn.execute(settings)
    conn.commit()
    return conn


def qualified(name: str) -> sql.Identifier:
    """``schema.table`` as quoted identifiers."""
    schema, _, table = name.partition(".")
    if not table:
        raise Refused(f"table {name!r}: write it as schema.table")
    return sql.Identifier(schema, table)


def columns(conn: Connection[Any], table: str) -> tuple[ColumnInfo, ...]:
    """Columns of ``table`` in their order (any role). Raises :class:`Refused` for an unknown table."""
    rows = conn.execute(
        """SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> '', a.attidentity
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname || '.' || c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum""",
        (table,),
    ).fetchall()
    if not rows:
        raise Refused(f"table {table} does not exist in database {conn.info.dbname}: check the catalogue")
    return tuple(
        ColumnInfo(name=r[0], type=r[1], not_null=r[2], generated=r[3], identity=_identity(r[4])) for r in rows
    )


def _identity(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def triggers(conn: Connection[Any], table: str) -> tuple[UserTrigger, ...]:
    """The app's own triggers on ``table``, by name, then those that a partition has of its own and that fire for rows
    written through the table (any role)."""
    rows = conn.execute(
        """SELECT t.tgname, t.tgenabled::text, tn.nspname || '.' || tc.relname
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_trigger t ON t.tgrelid = c.oid OR t.tgparentid = 0 AND t.tgtype & 1 = 1
               AND t.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid))
           JOIN pg_class tc ON tc.oid = t.tgrelid JOIN pg_namespace tn ON tn.oid = tc.relnamespace
           JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
           WHERE n.nspname || '.' || c.relname = %s AND NOT t.tgisinternal AND f.nspname <> 'reinstate'
           ORDER BY t.tgrelid <> c.oid, t.tgname, 3""",
        (table,),
    ).fetchall()
    return tuple(UserTrigger(name=r[0], state=r[1], table=r[2]) for r in rows)


def primary_key(conn: Connection[Any], table: str) -> tuple[str, ...]:
    rows = conn.execute(
        """SELECT a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace
           CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, pos)
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num
           WHERE n.nspname || '.' || c.relname = %s AND i.indisprimary ORDER BY k.pos""",
        (table,),
    ).fetchall()
    return tuple(r[0] for r in rows)


Reference = tuple[tuple[str, ...], str, tuple[str, ...]]


def foreign_keys(conn: Connection[Any], table: str) -> tuple[Reference, ...]:
    """The database's own foreign keys of ``table``: (columns, parent table, parent columns), by constraint name."""
    rows = conn.execute(
        """SELECT array_agg(a.attname::text ORDER BY k.pos), pn.nspname || '.' || p.relname,
                  array_agg(b.attname::text ORDER BY k.pos)
           FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
           CROSS JOIN LATERAL unnest(f.conkey, f.confkey) WITH ORDINALITY AS k(child, parent, pos)
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.child
           JOIN pg_attribute b ON b.attrelid = p.oid AND b.attnum = k.parent
           WHERE f.contype = 'f' AND f.conparentid = 0 AND n.nspname || '.' || c.relname = %s
           GROUP BY f.oid, f.conname, pn.nspname, p.relname ORDER BY f.conname""",
        (table,),
    ).fetchall()
    return tuple((tuple(r[0]), r[1], tuple(r[2])) for r in rows)


def tables(conn: Connection[Any], declared: Iterable[DeclaredTable]) -> tuple[TableSpec, ...]:
    """Complete what the catalogue declares with what the database knows (any role): primary keys, foreign keys and
    triggers. ``suppress`` holds the triggers declared ``suppress`` or ``derived`` (what they wrote is in the journal
    and is reverted with the rest). Raises :class:`Refused` naming table and column on any mismatch."""
    wanted = tuple(declared)
    names = {t.name for t in wanted}
    specs = []
    for table in wanted:
        present = {c.name for c in columns(conn, table.name)}
        key = tuple(table.key) or primary_key(conn, table.name)
        for column in (*key, *table.additive, *table.public):
            if column not in present:
                raise Refused(f"table {table.name} has no column {column}: correct the catalogue")
        mine = triggers(conn, table.name)
        for trigger, how in table.triggers.items():
            if trigger not in {t.name for t in mine}:
                raise Refused(f"table {table.name} has no trigger {trigger}: correct the catalogue")
            where = sorted(t.table for t in mine if t.name == trigger and t.table != table.name)
            if where and how != "fire":
                raise Refused(
                    f"trigger {trigger} of {where[0]}, a partition of {table.name}, cannot be switched off: declare it"
                    " as fire, or create it on the table itself"
                )
        for other in table.derives:
            if other not in names:
                raise Refused(f"table {other}, maintained by a trigger of {table.name}, is not declared: declare it")
        stated = tuple((tuple(r.columns), r.table, tuple(r.to)) for r in table.references)
        real = foreign_keys(conn, table.name)
        specs.append(
            TableSpec(
                name=table.name,
                key=key,
                additive=tuple(table.additive),
                public=tuple(table.public),
                suppress=tuple(sorted(n for n, how in table.triggers.items() if how in ("suppress", "derived"))),
                references=(*real, *(r for r in stated if r not in real)),
                undeclared_triggers=tuple(
                    sorted({_called(t, table.name) for t in mine if t.name not in table.triggers})
                ),
            )
        )
    return tuple(specs)


def _called(trigger: UserTrigger, table: str) -> str:
    return trigger.name if trigger.table == table else f"{trigger.name} (on {trigger.table})"


def set_triggers(conn: Connection[Any], specs: Iterable[TableSpec], *, enabled: bool) -> None:
    """Switch the triggers that the catalogue declares as suppressed, in the caller's transaction and through the
    owner's function (role: recoverer)."""
    for spec in specs:
        if spec.suppress:
            conn.execute("SELECT reinstate.set_triggers(%s, %s::text[], %s)", (spec.name, list(spec.suppress), enabled))
