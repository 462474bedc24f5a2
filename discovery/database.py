"""Reading a database's tables, triggers, functions, roles and rights. Any role that may connect can; what its rights
do not show stays unseen. Reads the catalogue only, no rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import psycopg

from discovery.facts import (
    ColumnFact,
    DatabaseFacts,
    ForeignKey,
    FunctionFact,
    Right,
    RoleFact,
    TableFact,
    TriggerFact,
)
from snapshots import database

_OTHERS = "n.nspname <> 'reinstate' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'"
_BEFORE, _ROW = 2, 1


def facts(conn: psycopg.Connection[Any]) -> DatabaseFacts:
    """Everything outside the system's and Reinstate's own schemas. Raises ``psycopg.Error``."""
    tables = _tables(conn)
    row = conn.execute("SELECT current_database(), current_schemas(false)::text[]").fetchone()
    name, path = row or ("", [])
    return DatabaseFacts(
        name=name,
        tables=tables,
        views=_views(conn),
        functions=_functions(conn),
        roles=_roles(conn),
        rights=_rights(conn, sorted(tables)),
        search_path=tuple(path) or ("public",),
    )


def _tables(conn: psycopg.Connection[Any]) -> dict[str, TableFact]:
    columns: dict[str, list[ColumnFact]] = defaultdict(list)
    for table, name, shown, category, not_null, default, generated in conn.execute(
        f"""SELECT n.nspname || '.' || c.relname, a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory::text,
                   a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attgenerated <> '' OR a.attidentity <> ''
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
            WHERE {_OTHERS} AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0
              AND NOT a.attisdropped
            ORDER BY 1, a.attnum"""  # noqa: S608 - a constant of this module
    ).fetchall():
        columns[table].append(
            ColumnFact(
                name=name, type=shown, category=category, not_null=not_null, default=default, generated=generated
            )
        )
    unique: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for table, names in conn.execute(
        f"""SELECT n.nspname || '.' || c.relname, array_agg(a.attname::text ORDER BY k.pos)
            FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, pos)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num
            WHERE {_OTHERS} AND i.indisunique AND NOT i.indisprimary AND i.indpred IS NULL AND i.indexprs IS NULL
              AND i.indisvalid AND k.pos <= i.indnkeyatts
            GROUP BY i.indexrelid, 1 ORDER BY 1, 2"""  # noqa: S608 - a constant of this module
    ).fetchall():
        unique[table].append(tuple(names))
    triggers = _triggers(conn)
    found = {}
    for table, owner, rows in conn.execute(
        f"""SELECT n.nspname || '.' || c.relname, pg_get_userbyid(c.relowner),
                   greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE {_OTHERS} AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1"""  # noqa: S608 - as above
    ).fetchall():
        found[table] = TableFact(
            name=table,
            owner=owner,
            rows=rows,
            columns=tuple(columns[table]),
            key=database.primary_key(conn, table),
            unique=tuple(unique[table]),
            foreign_keys=tuple(
                ForeignKey(columns=c, table=parent, to=to) for c, parent, to in database.foreign_keys(conn, table)
            ),
            triggers=tuple(triggers[table]),
        )
    return found


def _triggers(conn: psycopg.Connection[Any]) -> dict[str, list[TriggerFact]]:
    found: dict[str, list[TriggerFact]] = defaultdict(list)
    for table, name, kind, enabled, function, body in conn.execute(
        f"""SELECT n.nspname || '.' || c.relname, t.tgname, t.tgtype, t.tgenabled <> 'D', f.nspname || '.' || p.proname,
                   p.prosrc
            FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
            WHERE {_OTHERS} AND NOT t.tgisinternal AND f.nspname <> 'reinstate' ORDER BY 1, 2"""  # noqa: S608 - as above
    ).fetchall():
        found[table].append(
            TriggerFact(
                name=name,
                function=function,
                before=bool(kind & _BEFORE),
                row=bool(kind & _ROW),
                enabled=enabled,
                body=body,
            )
        )
    return found


def _views(conn: psycopg.Connection[Any]) -> dict[str, tuple[str, ...]]:
    """The tables behind each view, through views of views."""
    direct: dict[str, set[str]] = defaultdict(set)
    for view, behind in conn.execute(
        f"""SELECT DISTINCT n.nspname || '.' || c.relname, bn.nspname || '.' || b.relname
            FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass
                            AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
            JOIN pg_class b ON b.oid = d.refobjid JOIN pg_namespace bn ON bn.oid = b.relnamespace
            WHERE {_OTHERS} AND c.relkind IN ('v', 'm')"""  # noqa: S608 - a constant of this module
    ).fetchall():
        direct[view].add(behind)

    def tables(name: str, seen: frozenset[str]) -> set[str]:
        if name not in direct:
            return {name}
        return {t for b in direct[name] if b not in seen for t in tables(b, seen | {name})}

    return {view: tuple(sorted(tables(view, frozenset()))) for view in direct}


def _functions(conn: psycopg.Connection[Any]) -> dict[str, FunctionFact]:
    """The app's functions but those of triggers and of extensions."""
    rows = conn.execute(
        f"""SELECT n.nspname || '.' || p.proname, l.lanname, p.provolatile = 'i', p.prosrc
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
            WHERE {_OTHERS} AND p.prorettype <> 'trigger'::regtype AND p.prokind IN ('f', 'p')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass
                              AND d.deptype = 'e')
            ORDER BY 1"""  # noqa: S608 - a constant of this module
    ).fetchall()
    return {r[0]: FunctionFact(name=r[0], language=r[1], pure=r[2], body=r[3]) for r in rows}


def _roles(conn: psycopg.Connection[Any]) -> tuple[RoleFact, ...]:
    rows = conn.execute(
        "SELECT rolname, rolsuper, rolcanlogin FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' ORDER BY 1"
    ).fetchall()
    return tuple(RoleFact(name=r[0], superuser=r[1], login=r[2]) for r in rows)


def _rights(conn: psycopg.Connection[Any], tables: Sequence[str]) -> tuple[Right, ...]:
    """What each login role may do, its memberships included; superusers, who may do all, are not listed."""
    rows = conn.execute(
        """SELECT r.rolname, t.name, has_table_privilege(r.oid, t.oid, 'SELECT'),
                  has_table_privilege(r.oid, t.oid, 'INSERT'), has_table_privilege(r.oid, t.oid, 'UPDATE'),
                  has_table_privilege(r.oid, t.oid, 'DELETE') OR has_table_privilege(r.oid, t.oid, 'TRUNCATE'),
                  ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0
                        AND NOT a.attisdropped AND has_column_privilege(r.oid, t.oid, a.attnum, 'INSERT')),
                  ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0
                        AND NOT a.attisdropped AND has_column_privilege(r.oid, t.oid, a.attnum, 'UPDATE'))
           FROM pg_roles r CROSS JOIN (
               SELECT n.nspname || '.' || c.relname AS name, c.oid FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname || '.' || c.relname = ANY(%s) AND c.relkind IN ('r', 'p')) AS t
           WHERE r.rolcanlogin AND NOT r.rolsuper
             AND has_any_column_privilege(r.oid, t.oid, 'SELECT, INSERT, UPDATE') OR (r.rolcanlogin
                 AND NOT r.rolsuper AND has_table_privilege(r.oid, t.oid, 'DELETE, TRUNCATE'))
           ORDER BY 1, 2""",
        (list(tables),),
    ).fetchall()
    return tuple(
        Right(
            role=role,
            table=table,
            select=select,
            insert=None if insert else frozenset(inserted),
            update=None if update else frozenset(updated),
            delete=delete,
        )
        for role, table, select, insert, update, delete, inserted, updated in rows
    )


def owned(conn: psycopg.Connection[Any], tables: Sequence[str]) -> dict[str, bool]:
    """For each table that exists, whether the connected role owns it or belongs to its owner."""
    rows = conn.execute(
        """SELECT n.nspname || '.' || c.relname, pg_has_role(c.relowner, 'MEMBER')
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname || '.' || c.relname = ANY(%s) AND c.relkind IN ('r', 'p')""",
        (list(tables),),
    ).fetchall()
    return {r[0]: r[1] for r in rows}


def fenced(conn: psycopg.Connection[Any]) -> frozenset[str]:
    """Roles that a fence keeps from writing now. None where there is no journal, or no right to see it."""
    try:
        with conn.transaction():
            rows = conn.execute("SELECT DISTINCT role::text FROM reinstate.fenced WHERE restored_at IS NULL").fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege):
        return frozenset()
    return frozenset(r[0] for r in rows)
