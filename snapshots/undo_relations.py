"""Keep relations whole: rows whose undo would leave a reference dangling, or two rows with one unique value, stay.

Works on the state *after* the undo: live rows that it does not touch, plus the rows it wants. Keeping one row may make
another one needed (an item that stays needs its order), so the rules run until nothing more is marked. The set of
marked rows only grows, hence it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from snapshots.database import qualified
from snapshots.merge import TAKEN
from snapshots.undo_shape import Relation, Shape, col, comma, equal

if TYPE_CHECKING:
    from snapshots.undo_plan import Computed

REFERENCED, PARENT_GONE = "referenced", "parent-gone"


def mark_conflicts(conn: psycopg.Connection[Any], known: Computed) -> None:
    """Set ``rj_conflict`` and ``rj_do = 'N'`` in the ``rj_fin`` tables. Rules that nothing in the selection can break
    are not even asked: most undos change neither keys nor references."""
    by_name = {shape.name: shape for shape in known.shapes}
    relations = [relation for relation in known.relations if is_kept(by_name, relation)]
    while True:
        marked = 0
        for relation in relations:
            if vacates(known, relation):
                marked += _mark_referenced(conn, by_name, relation)
        for relation in relations:
            if claims(known, relation):
                marked += _mark_parent_gone(conn, by_name, relation)
        for shape in known.shapes:
            for columns in shape.unique:
                if known.tallies[shape.name].insert or known.tallies[shape.name].touches(shape, columns):
                    marked += _mark_taken(conn, shape, columns)
        if not marked:
            return


def vacates(known: Computed, relation: Relation) -> bool:
    """Whether the undo may take away a value of the parent that the relation refers to."""
    parent = known.shape(relation.parent)
    if parent is None:
        return False
    tally = known.tallies[parent.name]
    return bool(tally.delete) or tally.touches(parent, relation.to)


def claims(known: Computed, relation: Relation) -> bool:
    """Whether the undo may write a reference that was not there."""
    child = known.shape(relation.child)
    if child is None:
        return False
    tally = known.tallies[child.name]
    return bool(tally.insert) or tally.touches(child, relation.columns)


def is_kept(by_name: Mapping[str, Shape], relation: Relation) -> bool:
    """Whether the journal keeps all columns of the relation; generated ones are left to the database to check."""
    return all(
        name not in by_name or set(columns) <= set(by_name[name].names)
        for name, columns in ((relation.parent, relation.to), (relation.child, relation.columns))
    )


def changes(shape: Shape, alias: str, columns: Sequence[str]) -> sql.Composed:
    """The row ``alias`` of ``rj_fin`` holds, live, other values in ``columns`` than it wants."""
    wanted = {column.name: column for column in shape.columns}
    return sql.SQL("({})").format(
        sql.SQL(" OR ").join(wanted[name].differs(col(alias, shape.was(name)), col(alias, name)) for name in columns)
    )


def references_to(by_name: Mapping[str, Shape], relation: Relation, child_key: Sequence[str] = ()) -> sql.Composed:
    """Who references a value that the undo removes from the parent: keys of the parent (``rj_k*``) and, if the
    child's key columns are given, keys of the child (``rj_c*``). To be read as ``FROM (...) AS x``."""
    parent = by_name[relation.parent]
    child = by_name.get(relation.child)
    vacated = sql.SQL(
        "SELECT {keys}, {values} FROM {fin} AS f WHERE f.rj_do = 'D' OR (f.rj_do = 'U' AND {changes})"
    ).format(
        keys=parent.keys("f"),
        values=comma(
            sql.SQL("{} AS {}").format(col("f", parent.was(name)), sql.Identifier(f"rj_v{n}"))
            for n, name in enumerate(relation.to)
        ),
        fin=parent.temp("fin"),
        changes=changes(parent, "f", relation.to),
    )
    joined = equal("c", relation.columns, "v", _numbered(relation))
    stays = _untouched("c", child)
    live = sql.SQL("SELECT {keys}{child} FROM rj_vacated AS v JOIN {live} AS c ON {joined} WHERE {stays}").format(
        keys=parent.keys("v"),
        child=_child_key(child_key, live=True),
        live=qualified(relation.child),
        joined=joined,
        stays=stays,
    )
    if child is not None:
        live += sql.SQL(
            " UNION SELECT {keys}{child} FROM rj_vacated AS v JOIN {fin} AS c ON {joined} WHERE c.rj_do IN ('U', 'I')"
        ).format(keys=parent.keys("v"), child=_child_key(child_key, live=False), fin=child.temp("fin"), joined=joined)
    return (
        sql.SQL(
            "WITH rj_vacated AS (SELECT v.* FROM ({vacated}) AS v WHERE NOT EXISTS (SELECT 1 FROM {parent} AS p "
            "WHERE {p_v} AND {p_stays}) "
            "AND NOT EXISTS (SELECT 1 FROM {fin} AS p WHERE {p_v} AND p.rj_do IN ('U', 'I'))) "
        ).format(
            vacated=vacated,
            parent=parent.relation,
            p_v=equal("p", relation.to, "v", _numbered(relation)),
            p_stays=_untouched("p", parent),
            fin=parent.temp("fin"),
        )
        + live
    )


def _mark_referenced(conn: psycopg.Connection[Any], by_name: Mapping[str, Shape], relation: Relation) -> int:
    parent = by_name[relation.parent]
    return conn.execute(
        sql.SQL(
            "UPDATE {fin} AS g SET rj_do = 'N', rj_conflict = {kind} WHERE g.rj_do <> 'N' AND ({own}) IN "
            "(SELECT {keys} FROM ({references}) AS x)"
        ).format(
            fin=parent.temp("fin"),
            kind=sql.Literal(REFERENCED),
            own=parent.keys("g"),
            keys=parent.keys("x"),
            references=references_to(by_name, relation),
        )
    ).rowcount


def _mark_parent_gone(conn: psycopg.Connection[Any], by_name: Mapping[str, Shape], relation: Relation) -> int:
    """Rows to be written whose parent exists neither live nor among the rows to be written. A reference that the
    live row already has is not the undo's doing."""
    child, parent = by_name[relation.child], by_name.get(relation.parent)
    wanted: sql.Composable = sql.SQL("true")
    if parent is not None:
        wanted = sql.SQL("NOT EXISTS (SELECT 1 FROM {fin} AS p WHERE {same} AND p.rj_do IN ('U', 'I'))").format(
            fin=parent.temp("fin"), same=equal("p", relation.to, "f", relation.columns)
        )
    return conn.execute(
        sql.SQL(
            "UPDATE {fin} AS g SET rj_do = 'N', rj_conflict = {kind} WHERE g.rj_do <> 'N' AND ({own}) IN ("
            "SELECT {keys} FROM {fin} AS f WHERE f.rj_do IN ('U', 'I') AND {filled} "
            "AND (f.rj_do = 'I' OR {changes}) "
            "AND NOT EXISTS (SELECT 1 FROM {live} AS p WHERE {same} AND {stays}) AND {wanted})"
        ).format(
            fin=child.temp("fin"),
            kind=sql.Literal(PARENT_GONE),
            own=child.keys("g"),
            keys=child.keys("f"),
            filled=filled("f", relation.columns),
            changes=changes(child, "f", relation.columns),
            live=qualified(relation.parent),
            same=equal("p", relation.to, "f", relation.columns),
            stays=_untouched("p", parent),
            wanted=wanted,
        )
    ).rowcount


def _mark_taken(conn: psycopg.Connection[Any], shape: Shape, columns: Sequence[str]) -> int:
    """Rows to be written whose unique value another row holds or gets."""
    return conn.execute(
        sql.SQL(
            "WITH rj_claims AS (SELECT f.* FROM {fin} AS f WHERE f.rj_do IN ('U', 'I') AND {filled} "
            "AND (f.rj_do = 'I' OR {changes})) "
            "UPDATE {fin} AS g SET rj_do = 'N', rj_conflict = {kind} WHERE g.rj_do <> 'N' AND ({own}) IN ("
            "SELECT {keys} FROM rj_claims AS f JOIN {live} AS p ON {same} WHERE {stays} "
            "UNION SELECT {keys} FROM rj_claims AS f JOIN {fin} AS p ON {same} "
            "WHERE p.rj_do IN ('U', 'I') AND NOT ({own_row}))"
        ).format(
            fin=shape.temp("fin"),
            kind=sql.Literal(TAKEN),
            own=shape.keys("g"),
            keys=shape.keys("f"),
            filled=filled("f", columns),
            changes=changes(shape, "f", columns),
            live=shape.relation,
            same=equal("p", columns, "f", columns),
            stays=_untouched("p", shape),
            own_row=shape.same_key("p", "f"),
        )
    ).rowcount


def _untouched(alias: str, shape: Shape | None) -> sql.Composable:
    """The live row ``alias`` is neither deleted nor updated by the undo."""
    if shape is None:
        return sql.SQL("true")
    return sql.SQL("NOT EXISTS (SELECT 1 FROM {fin} AS rj_t WHERE {same} AND rj_t.rj_do IN ('D', 'U'))").format(
        fin=shape.temp("fin"), same=shape.same_key("rj_t", alias, row=True)
    )


def _child_key(names: Sequence[str], *, live: bool) -> sql.Composed:
    return sql.SQL("").join(
        sql.SQL(", {} AS {}").format(col("c", name if live else f"rj_k{n}"), sql.Identifier(f"rj_c{n}"))
        for n, name in enumerate(names)
    )


def _numbered(relation: Relation) -> list[str]:
    return [f"rj_v{n}" for n in range(len(relation.to))]


def filled(alias: str, names: Sequence[str]) -> sql.Composed:
    """No column of a reference is NULL: only then it refers to anything."""
    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(col(alias, name)) for name in names)
