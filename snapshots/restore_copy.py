"""Load a point into an existing, empty copy of the app's schema: to prove the point, or to look at what was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection, errors, sql

from . import database, shape, staging
from .diff import manifests
from .model import RecoveryPoint
from .point_errors import NotEmpty, ShapeChanged, WouldBreak, translated
from .restore import forward
from .store import Store

_ENABLE = {"O": "ENABLE TRIGGER {}", "R": "ENABLE REPLICA TRIGGER {}", "A": "ENABLE ALWAYS TRIGGER {}"}


def into_empty(
    conn: Connection[Any], point: RecoveryPoint, store: Store, tables: Sequence[str] | None = None
) -> dict[str, int]:
    """Load ``tables`` (default: all) of the point and return the rows loaded by table; all or nothing.

    ``conn`` is idle; its role owns the copy's tables, which must exist with the point's columns and be empty. The
    app's triggers are off meanwhile; constraints hold. Compare with :func:`snapshots.diff.diff` to prove the copy.
    Raises :class:`NotEmpty`, :class:`ShapeChanged`, :class:`WouldBreak` and the errors of the store.
    """
    chosen = {m.name: m for m in manifests(point, tables)}
    with translated(), staging.transaction(conn):
        for manifest in chosen.values():
            changed = shape.differences(conn, manifest)
            if changed:
                raise ShapeChanged(
                    f"Table {manifest.name} does not fit the point: {'; '.join(changed)}; migrate the copy."
                )
            row = conn.execute(
                sql.SQL("SELECT EXISTS (SELECT FROM {})").format(database.qualified(manifest.name))
            ).fetchone()
            if row and row[0]:
                raise NotEmpty(f"Table {manifest.name} is not empty; restore into a fresh copy of the schema.")
        conn.execute("SET CONSTRAINTS ALL DEFERRED")
        triggers = {name: [t for t in database.triggers(conn, name) if t.state in _ENABLE] for name in chosen}
        for name, found in triggers.items():
            for trigger in found:
                _alter(conn, name, "DISABLE TRIGGER {}", trigger.name)
        try:
            for name in shape.parents_first(chosen, shape.foreign_keys(conn, chosen)):
                staging.load(conn, database.qualified(name), chosen[name], store)
            conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except errors.IntegrityError as error:
            raise WouldBreak(
                f"The point's rows do not fit the copy ({error.diag.message_primary}); restore all its tables together."
            ) from error
        for name, found in triggers.items():
            for trigger in found:
                _alter(conn, name, _ENABLE[trigger.state], trigger.name)
        forward(conn, point.sequences, list(chosen))
    return {name: manifest.rows for name, manifest in chosen.items()}


def _alter(conn: Connection[Any], table: str, change: str, trigger: str) -> None:
    statement = sql.SQL("ALTER TABLE {} {}").format(
        database.qualified(table),
        sql.SQL(change).format(sql.Identifier(trigger)),
    )
    conn.execute(statement)
