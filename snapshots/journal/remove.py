"""Taking the journal off an app's database, with everything it recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from psycopg import Connection, sql

from snapshots.errors import Refused
from snapshots.journal.change import patiently, require_idle, run
from snapshots.journal.shape import exists


def remove(conn: Connection[Any], *, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """Take the journal off every table and drop schema ``reinstate`` with all history (role: installer).
    Returns what was removed. Raises :class:`Refused` while a role is fenced: nobody could give its grants back."""
    require_idle(conn)
    try:
        if not conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'reinstate'").fetchone():
            return []
        if exists(conn):
            fenced = conn.execute("SELECT role::text FROM reinstate.fenced WHERE restored_at IS NULL").fetchone()
            if fenced:
                raise Refused(f"role {fenced[0]} is still fenced: lower the fence first")
        relations = conn.execute(
            """SELECT n.nspname, c.relname, array_agg(t.tgname::text ORDER BY t.tgname) FROM pg_trigger t
               JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_proc p ON p.oid = t.tgfoid
               WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'reinstate')
                 AND NOT t.tgisinternal GROUP BY 1, 2 ORDER BY 1, 2"""
        ).fetchall()
        objects = [
            r[0]
            for r in conn.execute(
                """SELECT CASE c.relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END || 'reinstate.' || c.relname
                   FROM pg_class c WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'reinstate')
                     AND c.relkind IN ('r', 'S')
                   UNION ALL SELECT 'function reinstate.' || p.proname FROM pg_proc p
                   WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'reinstate') ORDER BY 1"""
            ).fetchall()
        ]
    finally:
        conn.rollback()
    removed: list[str] = []
    for schema, name, names in relations:
        drops = [
            sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(t), sql.Identifier(schema, name)) for t in names
        ]

        def off(drops: Sequence[sql.Composable] = drops) -> list[str]:
            return run(conn, drops)

        patiently(conn, f"table {schema}.{name}", off, sleep)
        removed += [f"trigger {t} on {schema}.{name}" for t in names]

    def drop() -> list[str]:
        return run(conn, [sql.SQL("DROP SCHEMA reinstate CASCADE")])

    patiently(conn, "schema reinstate", drop, sleep)
    return [*removed, *objects, "schema reinstate"]
