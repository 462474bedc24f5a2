"""The row changes that bring tables back to a point, and what must hold around them; all inside one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import Connection, errors, sql

from . import database, staging
from .point_errors import WouldBreak
from .shape import Relation

Staged = Mapping[str, staging.Staged]


def bring_back(conn: Connection[Any], staged: Staged, order: Sequence[str], relations: Sequence[Relation]) -> None:
    """Delete, update and insert until the tables equal the point. ``order`` names parents before children.

    Deleting first frees unique values that a row of the point needs; deleting last frees parents that a child names
    until it is updated; replacing rows instead of updating them lets rows exchange unique values. Each way is tried
    in a savepoint and judged by comparing again. Raises :class:`WouldBreak` when none leads to the point.
    """
    causes: list[str] = []
    erasing = {r.parent for r in relations if r.erases}
    for steps in ((_delete, _update, _insert), (_insert, _update, _delete), (_delete, _replace, _insert)):
        try:
            with conn.transaction():
                conn.execute("SET CONSTRAINTS ALL DEFERRED")
                for step in steps:
                    for table in reversed(order) if step is _delete else order:
                        # Replacing a row would erase what hangs on it where a foreign key says so.
                        (_update if step is _replace and table in erasing else step)(conn, staged[table])
                conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
                _prove(conn, staged)
                return
        except errors.IntegrityError as error:
            causes.append(error.diag.message_primary or type(error).__name__)
        except WouldBreak as error:
            causes.append(str(error))
    raise WouldBreak(
        f"The point's rows do not fit the database ({'; another way: '.join(dict.fromkeys(causes))}); "
        "restore the related tables together, or restore into a copy."
    )


def refuse_erasing(conn: Connection[Any], staged: Staged, relations: Sequence[Relation]) -> None:
    """Refuse to delete rows when a foreign key would delete or blank rows of a table that is not being restored."""
    for relation in relations:
        parent = staged.get(relation.parent)
        if parent is None or relation.child in staged or not relation.erases:
            continue
        row = conn.execute(
            sql.SQL(
                "SELECT count(*) FROM {child} c JOIN {live} l ON {same} JOIN {changes} d"
                " ON d.kind = 'added' AND d.live_row = l.ctid AND d.live_table = l.tableoid"
            ).format(
                child=database.qualified(relation.child),
                live=parent.live,
                same=_matching(relation),
                changes=parent.changes,
            )
        ).fetchone()
        if row and row[0]:
            raise WouldBreak(
                f"Deleting later rows of {relation.parent} would also erase {row[0]} rows of {relation.child}; "
                f"restore {relation.child} too."
            )


def orphans(conn: Connection[Any], relation: Relation) -> int:
    """Rows of the child whose parent does not exist (rows with a null in the reference have none to miss)."""
    present = sql.SQL(" AND ").join(sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(c)) for c in relation.columns)
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} l WHERE {})").format(
            database.qualified(relation.child), present, database.qualified(relation.parent), _matching(relation)
        )
    ).fetchone()
    return int(row[0]) if row else 0


def _delete(conn: Connection[Any], staged: staging.Staged) -> None:
    conn.execute(
        sql.SQL(
            "DELETE FROM {} l USING {} d WHERE d.kind = 'added' AND d.live_row = l.ctid AND d.live_table = l.tableoid"
        ).format(staged.live, staged.changes)
    )


def _update(conn: Connection[Any], staged: staging.Staged) -> None:
    columns = [c for c in staged.columns if c.identity != "a"]
    if not staged.key or not columns:
        return
    assignments = sql.SQL(", ").join(sql.SQL("{0} = p.{0}").format(sql.Identifier(c.name)) for c in columns)
    conn.execute(
        sql.SQL(
            "UPDATE {} l SET {} FROM {} d JOIN {} p ON p.ctid = d.point_row"
            " WHERE d.kind = 'changed' AND d.live_row = l.ctid AND d.live_table = l.tableoid"
        ).format(staged.live, assignments, staged.changes, staged.rows)
    )


def _replace(conn: Connection[Any], staged: staging.Staged) -> None:
    """Delete and insert changed rows in one statement, so that foreign keys are checked when all are back. The count
    makes PostgreSQL finish the deletion before it inserts."""
    conn.execute(
        sql.SQL(
            "WITH gone AS (DELETE FROM {live} l USING {changes} d WHERE d.kind = 'changed' AND d.live_row = l.ctid"
            " AND d.live_table = l.tableoid RETURNING 1) INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE"
            " SELECT {values} FROM {changes} d JOIN {rows} p ON p.ctid = d.point_row"
            " WHERE d.kind = 'changed' AND (SELECT count(*) FROM gone) > 0"
        ).format(
            live=staged.live,
            changes=staged.changes,
            table=database.qualified(staged.manifest.name),
            columns=staging.names(staged.columns),
            values=staging.names(staged.columns, "p"),
            rows=staged.rows,
        )
    )


def _insert(conn: Connection[Any], staged: staging.Staged) -> None:
    conn.execute(
        sql.SQL(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} d JOIN {} p ON p.ctid = d.point_row"
            " WHERE d.kind = 'deleted'"
        ).format(
            database.qualified(staged.manifest.name),
            staging.names(staged.columns),
            staging.names(staged.columns, "p"),
            staged.changes,
            staged.rows,
        )
    )


def _prove(conn: Connection[Any], staged: Staged) -> None:
    for name, table in staged.items():
        left = sum(staging.compare(conn, table).values())
        if left:
            raise WouldBreak(f"{left} rows of {name} still differ; a trigger of the app may have to be suppressed")


def _matching(relation: Relation) -> sql.Composable:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier("l", parent), sql.Identifier("c", child))
        for parent, child in zip(relation.to, relation.columns, strict=True)
    )
