"""Write what was computed: switch the app's triggers off, delete, update, insert, check, switch them on again.

Runs in the caller's transaction as the recoverer, under table locks. Every write is one statement per table and kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from snapshots.database import qualified
from snapshots.undo_errors import UndoRefused
from snapshots.undo_plan import Computed
from snapshots.undo_tables import Relation, Shape, col, comma, equal, parents_first


def lock(conn: psycopg.Connection[Any], tables: Sequence[str], relations: Sequence[Relation]) -> None:
    """Keep writers off ``tables`` and off what references them or is referenced by declaration, in one fixed order."""
    names = set(tables)
    for relation in relations:
        if relation.parent in tables:
            names.add(relation.child)
        if relation.declared and relation.child in tables:
            names.add(relation.parent)
    for name in sorted(names):
        conn.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(qualified(name)))


def set_triggers(conn: psycopg.Connection[Any], shapes: Sequence[Shape], *, enabled: bool) -> None:
    """Switch the triggers that the catalogue declares as suppressed, through the owner's function."""
    for shape in shapes:
        if shape.spec.suppress:
            conn.execute(
                "SELECT reinstate.set_triggers(%s, %s::text[], %s)", (shape.name, list(shape.spec.suppress), enabled)
            )


def write(conn: psycopg.Connection[Any], computed: Computed) -> None:
    """Bring the rows into the wanted state. Raises :class:`UndoRefused` when the database does not end up as
    computed (a trigger, a rule or row security in between); the caller's transaction must then be rolled back."""
    order = parents_first(computed.shapes, computed.relations)
    late = _deletes_last(conn, computed)
    conn.execute("SET CONSTRAINTS ALL DEFERRED")
    set_triggers(conn, order, enabled=False)
    if not late:
        _delete_all(conn, order)
    for shape in order:
        _expect(shape, "updated", _update(conn, shape), _wanted(conn, shape, "U"))
        _expect(shape, "inserted", _insert(conn, shape), _wanted(conn, shape, "I"))
    if late:
        _delete_all(conn, order)
    conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for shape in order:
        _check_rows(conn, shape)
    for relation in computed.relations:
        _check_relation(conn, computed, relation)
    set_triggers(conn, order, enabled=True)


def _deletes_last(conn: psycopg.Connection[Any], computed: Computed) -> bool:
    """Whether a row to be deleted is referenced, as long as nothing is written, by a row to be updated."""
    for relation in computed.relations:
        child, parent = computed.shape(relation.child), computed.shape(relation.parent)
        if child is None or parent is None:
            continue
        row = conn.execute(
            sql.SQL(
                "SELECT EXISTS (SELECT 1 FROM {cfin} AS c JOIN {cimg} AS ci ON ci.rj_id = c.rj_live "
                "JOIN {pimg} AS pi ON {same} JOIN {pfin} AS p ON p.rj_live = pi.rj_id "
                "WHERE c.rj_do = 'U' AND p.rj_do = 'D')"
            ).format(
                cfin=child.temp("fin"),
                cimg=child.temp("img"),
                pfin=parent.temp("fin"),
                pimg=parent.temp("img"),
                same=equal("pi", relation.to, "ci", relation.columns),
            )
        ).fetchone()
        if row and row[0]:
            return True
    return False


def _delete_all(conn: psycopg.Connection[Any], order: Sequence[Shape]) -> None:
    for shape in reversed(order):
        done = conn.execute(
            sql.SQL("DELETE FROM {live} AS t USING {fin} AS f WHERE f.rj_do = 'D' AND {same}").format(
                live=shape.relation, fin=shape.temp("fin"), same=shape.same_key("f", "t", row=True)
            )
        ).rowcount
        _expect(shape, "deleted", done, _wanted(conn, shape, "D"))


def _update(conn: psycopg.Connection[Any], shape: Shape) -> int:
    columns = _changed_columns(conn, shape)
    if not columns:
        return 0
    return conn.execute(
        sql.SQL("UPDATE {live} AS t SET {sets} FROM {fin} AS f WHERE f.rj_do = 'U' AND {same}").format(
            live=shape.relation,
            sets=comma(sql.SQL("{} = {}").format(sql.Identifier(name), col("f", name)) for name in columns),
            fin=shape.temp("fin"),
            same=shape.same_key("f", "t", row=True),
        )
    ).rowcount


def _changed_columns(conn: psycopg.Connection[Any], shape: Shape) -> list[str]:
    """Only columns that differ somewhere are set, so that column triggers and column grants see no more than needed."""
    writable = [column for column in shape.columns if column.writable]
    row = conn.execute(
        sql.SQL("SELECT {flags} FROM {fin} AS f JOIN {img} AS v ON v.rj_id = f.rj_live WHERE f.rj_do = 'U'").format(
            flags=comma(
                sql.SQL("bool_or({} IS DISTINCT FROM {})").format(column.text("f"), column.text("v"))
                for column in writable
            ),
            fin=shape.temp("fin"),
            img=shape.temp("img"),
        )
    ).fetchone()
    return [column.name for column, differs in zip(writable, row or (), strict=True) if differs]


def _insert(conn: psycopg.Connection[Any], shape: Shape) -> int:
    return conn.execute(
        sql.SQL(
            "INSERT INTO {live} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {fin} AS f WHERE f.rj_do = 'I'"
        ).format(
            live=shape.relation,
            names=comma(sql.Identifier(name) for name in shape.names),
            values=shape.values("f"),
            fin=shape.temp("fin"),
        )
    ).rowcount


def _wanted(conn: psycopg.Connection[Any], shape: Shape, kind: str) -> int:
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE rj_do = {}").format(shape.temp("fin"), sql.Literal(kind))
    ).fetchone()
    return int(row[0]) if row else 0


def _expect(shape: Shape, what: str, done: int, wanted: int) -> None:
    if done != wanted:
        raise UndoRefused(
            f"table {shape.name}: {done} rows {what} instead of {wanted}: "
            "a trigger, a rule or row security stands in between; declare the trigger as suppressed"
        )


def _check_rows(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """Every row is now what was computed, to the last digit."""
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FROM {fin} AS f LEFT JOIN {live} AS t ON {same} WHERE f.rj_do <> 'N' "
            "AND f.rj_h IS DISTINCT FROM CASE WHEN {key} IS NOT NULL THEN {digest} END"
        ).format(
            fin=shape.temp("fin"),
            live=shape.relation,
            same=shape.same_key("f", "t", row=True),
            key=col("t", shape.key[0]),
            digest=shape.digest("t"),
        )
    ).fetchone()
    if row and row[0]:
        raise UndoRefused(
            f"table {shape.name}: {row[0]} rows are not what the undo wrote: one of the app's triggers changed them; "
            "declare it as suppressed"
        )


def _check_relation(conn: psycopg.Connection[Any], computed: Computed, relation: Relation) -> None:
    """No reference dangles because of this transaction: none to a value that went, none in a row that was written."""
    parent, child = computed.shape(relation.parent), computed.shape(relation.child)
    absent = sql.SQL("NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {same})").format(
        parent=qualified(relation.parent), same=equal("p", relation.to, "c", relation.columns)
    )
    checks: list[sql.Composable] = []
    if parent is not None:
        checks.append(
            sql.SQL(
                "SELECT 1 FROM {fin} AS f JOIN {img} AS v ON v.rj_id = f.rj_live JOIN {child} AS c ON {same} "
                "WHERE f.rj_do IN ('D', 'U') AND {absent}"
            ).format(
                fin=parent.temp("fin"),
                img=parent.temp("img"),
                child=qualified(relation.child),
                same=equal("c", relation.columns, "v", relation.to),
                absent=absent,
            )
        )
    if child is not None:
        checks.append(
            sql.SQL(
                "SELECT 1 FROM {fin} AS c LEFT JOIN {img} AS v ON v.rj_id = c.rj_live WHERE c.rj_do IN ('U', 'I') "
                "AND {filled} AND (c.rj_do = 'I' OR ROW({old})::text IS DISTINCT FROM ROW({new})::text) AND {absent}"
            ).format(
                fin=child.temp("fin"),
                img=child.temp("img"),
                filled=sql.SQL(" AND ").join(
                    sql.SQL("{} IS NOT NULL").format(col("c", name)) for name in relation.columns
                ),
                old=comma(col("v", name) for name in relation.columns),
                new=comma(col("c", name) for name in relation.columns),
                absent=absent,
            )
        )
    for check in checks:
        row = conn.execute(sql.SQL("SELECT count(*) FROM ({}) AS x").format(check)).fetchone()
        if row and row[0]:
            raise UndoRefused(
                f"{row[0]} rows of {relation.child} would reference missing rows of {relation.parent}: "
                "nothing was changed; plan again"
            )
