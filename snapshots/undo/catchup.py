"""What happened between computing an undo and holding its locks: usually nothing, else it is computed again.

A snapshot is taken before the computation. Under the locks nobody writes any more, so the images that this snapshot
does not show are all that moved: rows of the selection among them are computed again, conflicts with other rows are
marked again. Writers that the journal missed change where a row lies, which the write itself notices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from snapshots import position
from snapshots.journal.shape import stored
from snapshots.model import Position, UndoSpec
from snapshots.undo import plan
from snapshots.undo.errors import UndoBusy
from snapshots.undo.plan import Computed
from snapshots.undo.select import grown
from snapshots.undo.shape import Shape


def catch_up(conn: psycopg.Connection[Any], spec: UndoSpec, known: Computed, seen: Position) -> Computed:
    """``known``, computed after ``seen``, as it is now under the locks. Raises :class:`UndoBusy` when the selection
    reaches a table that is not locked."""
    if known.problems or grown(conn, spec, seen):
        plan.forget_all(conn, known)
        again = plan.compute(conn, spec)
        if set(again.selection.tables) - set(known.selection.tables):
            raise UndoBusy("the selected runs wrote to a further table just now: pause them, then try again")
        return again
    twins = {table.name: sql.Identifier("reinstate", table.twin) for table in stored(conn).values()}
    around = {
        name
        for r in known.relations
        if {r.child, r.parent} & set(known.selection.tables)
        for name in (r.child, r.parent)
    }
    relevant = around | set(known.selection.tables)
    moved = {name for name in relevant & set(twins) if _moved(conn, twins[name], seen)}
    if not moved and around <= set(twins):
        return replace(known, problems=plan.standing_problems(conn, spec, known))
    touched = {shape.name: _keys(shape, seen) for shape in known.shapes if shape.name in moved}
    return plan.redo(conn, spec, known, touched)


def _moved(conn: psycopg.Connection[Any], twin: sql.Identifier, seen: Position) -> bool:
    row = conn.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {} AS t WHERE {})").format(
            twin, position.after(seen, sql.Identifier("t", "rj_xid"))
        )
    ).fetchone()
    return bool(row and row[0])


def _keys(shape: Shape, seen: Position) -> sql.Composed:
    """The selected keys among the images that ``seen`` does not show."""
    return sql.SQL("SELECT DISTINCT {} FROM {} AS t JOIN {} AS f ON {} WHERE t.rj_side IN ('o', 'n') AND {}").format(
        shape.keys("f"),
        shape.twin,
        shape.temp("fin"),
        shape.same_key("f", "t", row=True),
        position.after(seen, sql.Identifier("t", "rj_xid")),
    )
