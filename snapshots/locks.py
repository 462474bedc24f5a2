"""Locks that keep writers off the app's tables, and who is in the way of one.

All are taken in the order of the tables' names, so that two of ours never wait for each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from psycopg import Connection, errors, sql

from snapshots import database

MODE: Final = "SHARE ROW EXCLUSIVE"
PATIENT_MS: Final = 60
PATIENT_TRIES: Final = 8
"""Short waits for the locks before the one that lasts as long as the session's ``lock_timeout``. Autovacuum, which
gives way only after a second, is often through by then."""
NAMED: Final = 3
"""At most so many sessions are named."""
_COMPATIBLE: Final = ["AccessShareLock", "RowShareLock"]


def take(conn: Connection[Any], tables: Iterable[str], *, patient: bool = False) -> None:
    """Keep writers off ``tables`` until the transaction ends; readers go on. ``patient``: rather try again for a while
    than make the writers who come after wait behind us.

    Raises ``LockNotAvailable`` after the session's ``lock_timeout``; :func:`cause` then names who is in the way. The
    transaction goes on."""
    if not (names := sorted(tables)):
        return
    listed = sql.SQL(", ").join(map(database.qualified, names))
    statement = sql.SQL("LOCK TABLE {} IN {} MODE").format(listed, sql.SQL(MODE))
    if patient and _patiently(conn, statement):
        return
    try:
        with conn.transaction():
            conn.execute(statement)
    except errors.LockNotAvailable as error:
        with suppress(errors.Error), conn.transaction():
            for held in holders(conn, names):
                error.add_note(held)
        raise


def holders(conn: Connection[Any], tables: Iterable[str]) -> list[str]:
    """Other sessions whose locks keep us off ``tables`` (any role): process, role, table."""
    rows = conn.execute(
        "SELECT DISTINCT l.pid, coalesce(a.usename::text, a.backend_type, '?'), n.nspname || '.' || c.relname"
        " FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
        " WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.mode <> ALL (%s)"
        "   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        "   AND n.nspname || '.' || c.relname = ANY (%s) ORDER BY 1, 3 LIMIT %s",
        (_COMPATIBLE, list(tables), NAMED),
    ).fetchall()
    return [
        f"{'a prepared transaction' if pid is None else f'process {pid} of {role}'} on {table}"
        for pid, role, table in rows
    ]


def cause(error: errors.Error) -> str:
    """PostgreSQL's words for a lock that was not free, and who held it where that is known."""
    held = ", ".join(getattr(error, "__notes__", ()))
    return f"{error.diag.message_primary}; held by {held}" if held else str(error.diag.message_primary)


def _patiently(conn: Connection[Any], statement: sql.Composed) -> bool:
    usual = conn.execute("SELECT current_setting('lock_timeout')").fetchone()
    for _ in range(PATIENT_TRIES):
        try:
            with conn.transaction():
                conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{PATIENT_MS}ms",))
                conn.execute(statement)
                conn.execute("SELECT set_config('lock_timeout', %s, true)", usual)
        except errors.LockNotAvailable:
            time.sleep(PATIENT_MS / 1000)
        else:
            return True
    return False
