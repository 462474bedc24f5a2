"""Load a point into an empty copy of the app: to prove the point, to move, or to look at what was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import Connection, errors, sql

from snapshots import database
from snapshots.capture import shape
from snapshots.model import RecoveryPoint, TableManifest
from snapshots.points.errors import WouldBreak, translated
from snapshots.restore import ddl, lost_table, staging
from snapshots.restore.frame import manifests
from snapshots.store.store import Store

_ENABLE = {"O": "ENABLE TRIGGER {}", "R": "ENABLE REPLICA TRIGGER {}", "A": "ENABLE ALWAYS TRIGGER {}"}


def into_empty(
    target: str | Connection[Any],
    point: RecoveryPoint,
    store: Store,
    tables: Sequence[str] | None = None,
    *,
    workers: int = lost_table.WORKERS,
) -> dict[str, int]:
    """Load ``tables`` (default: all) of the point and return the rows loaded by table; all or nothing.

    ``target`` is the connection string, or an idle connection, of the role that owns the copy. Tables that exist must
    have the point's columns and be empty: they are loaded in one transaction, the app's triggers off meanwhile;
    constraints hold. Given a connection string, tables that do not exist are made from the point's definitions, loaded
    by ``workers`` COPYs at a time and indexed side by side; types and functions they use must exist. Compare with
    :func:`snapshots.restore.diff.diff` to prove the copy. Raises :class:`NotEmpty`, :class:`ShapeChanged`,
    :class:`TableMissing`, :class:`WouldBreak` and the errors of the store.
    """
    chosen = manifests(point, tables)
    if isinstance(target, Connection):
        return _filled(target, point, chosen, store)
    conn = database.connect(target, purpose="restore copy")
    try:
        lost = lost_table.missing(conn, chosen)
        conn.rollback()
        for manifest in lost:
            parents = ddl.parents(manifest.definition) if manifest.definition else frozenset()
            for parent in sorted(parents - {m.name for m in chosen}):
                if lost_table.absent(conn, parent):
                    raise WouldBreak(f"{manifest.name} references {parent}, which is not there; restore both together.")
        conn.rollback()
        there = tuple(m for m in chosen if m not in lost)
        loaded = _filled(conn, point, there, store) if there else {}
    finally:
        conn.close()
    if lost:
        made = lost_table.restore(target, point, store, [m.name for m in lost], workers=workers)
        if made.unvalidated:
            child, name = made.unvalidated[0]
            raise WouldBreak(f"The point's rows do not satisfy {name} of {child}; restore all its tables together.")
        loaded |= made.rows
    return {m.name: loaded[m.name] for m in chosen}


def _filled(
    conn: Connection[Any], point: RecoveryPoint, chosen: Sequence[TableManifest], store: Store
) -> dict[str, int]:
    by_name = {m.name: m for m in chosen}
    loaded = {}
    with translated(), staging.transaction(conn):
        for manifest in chosen:
            lost_table.require_empty(conn, manifest)
        conn.execute("SET CONSTRAINTS ALL DEFERRED")
        try:
            with triggers_off(conn, *by_name):
                for name in shape.parents_first(by_name, shape.foreign_keys(conn, by_name)):
                    loaded[name] = staging.load(conn, database.qualified(name), by_name[name], store, app=point.app)
                conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except errors.IntegrityError as error:
            raise WouldBreak(
                f"The point's rows do not fit the copy ({error.diag.message_primary}); restore all its tables together."
            ) from error
        lost_table.forward(conn, point.sequences, list(by_name))
    return {m.name: loaded[m.name] for m in chosen}


@contextmanager
def triggers_off(conn: Connection[Any], *tables: str) -> Iterator[None]:
    """The app's triggers of the tables are off inside the block, and as they were after it (role: their owner)."""
    found = [t for name in tables for t in database.triggers(conn, name) if t.state in _ENABLE]
    for trigger in found:
        _alter(conn, trigger.table, "DISABLE TRIGGER {}", trigger.name)
    yield
    conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for trigger in found:
        _alter(conn, trigger.table, _ENABLE[trigger.state], trigger.name)


def _alter(conn: Connection[Any], table: str, change: str, trigger: str) -> None:
    statement = sql.SQL("ALTER TABLE {} {}").format(
        database.qualified(table),
        sql.SQL(change).format(sql.Identifier(trigger)),
    )
    conn.execute(statement)
