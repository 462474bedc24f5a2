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
from snapshots.undo.merge import TAKEN
from snapshots.undo.shape import Relation, Shape, col, comma, equal
from snapshots.undo.tables import NEAR_SHARE

if TYPE_CHECKING:
    from snapshots.undo.plan import Computed, Tally

REFERENCED, PARENT_GONE = "referenced", "parent-gone"


def mark_conflicts(conn: psycopg.Connection[Any], known: Computed) -> int:
    """Set ``rj_conflict`` and ``rj_do = 'N'`` in the ``rj_fin`` tables; returns how many rows. Rules that
    nothing in the selection can break are not even asked: most undos change neither keys nor references."""
    total = 0
    by_name = {shape.name: shape for shape in known.shapes}
    relations = [relation for relation in known.relations if is_kept(by_name, relation)]
    while True:
        marked = 0
        for relation in relations:
            if vacates(known, relation):
                marked += _mark_referenced(conn, known, relation)
        for relation in relations:
            if claims(known, relation):
                marked += _mark_parent_gone(conn, known, relation)
        for shape in known.shapes:
            tally = known.tallies[shape.name]
            for columns in shape.unique:
                if tally.insert or tally.touches(shape, columns):
                    marked += _mark_taken(conn, shape, columns, tally)
        total += marked
        if not marked:
            return total


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


def references_to(known: Computed, relation: Relation, child_key: Sequence[str] = ()) -> sql.Composed:
    """Who references a value that the undo removes from the parent: keys of the parent (``rj_k*``) and, if the
    child's key columns are given, keys of the child (``rj_c*``). To be read as ``FROM (...) AS x``. The parent must be
    one of the undo's tables."""
    parent, child = known.shape(relation.parent), known.shape(relation.child)
    assert parent is not None  # noqa: S101 - the caller's duty
    tally = known.tallies[parent.name]
    joined = equal("c", relation.columns, "v", _numbered(relation))
    live = sql.SQL("SELECT {keys}{child} FROM rj_vacated AS v {rows} WHERE {stays} AND {newer}").format(
        newer=newer(relation, "v", parent.low),
        keys=parent.keys("v"),
        child=_child_key(child_key, live=True),
        rows=_rows(relation.child, "c", joined, singly=tally.delete + tally.update <= relation.child_lookups),
        stays=_untouched("c", child),
    )
    if child is not None:
        live += sql.SQL(
            " UNION SELECT {keys}{child} FROM rj_vacated AS v JOIN {fin} AS c ON {joined} WHERE c.rj_do IN ('U', 'I')"
        ).format(keys=parent.keys("v"), child=_child_key(child_key, live=False), fin=child.temp("fin"), joined=joined)
    p_v = equal("p", relation.to, "v", _numbered(relation))
    elsewhere: sql.Composable = sql.SQL("")
    if relation.declared and set(relation.to) != set(parent.key):
        # Nothing says that the value is unique: another row may have it too.
        elsewhere = sql.SQL(" AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {} AND {})").format(
            parent.relation, p_v, _untouched("p", parent)
        )
    return (
        sql.SQL(
            "WITH rj_vacated AS (SELECT v.* FROM (SELECT {keys}, f.rj_first, {values} FROM {fin} AS f "
            "WHERE f.rj_do = 'D' OR (f.rj_do = 'U' AND {changes})) AS v "
            "WHERE NOT EXISTS (SELECT 1 FROM {fin} AS p WHERE {p_v} AND p.rj_do IN ('U', 'I')){elsewhere}) "
        ).format(
            keys=parent.keys("f"),
            values=comma(
                sql.SQL("{} AS {}").format(col("f", parent.was(name)), sql.Identifier(f"rj_v{n}"))
                for n, name in enumerate(relation.to)
            ),
            fin=parent.temp("fin"),
            changes=changes(parent, "f", relation.to),
            p_v=p_v,
            elsewhere=elsewhere,
        )
        + live
    )


def newer(relation: Relation, parent: str, low: int) -> sql.Composable:
    """The row ``c`` of the child got its reference after the first selected change of ``parent``'s row. An older one
    dangled before that change already (only a declared reference can), and may do so again."""
    if not relation.declared or relation.child_twin is None or not relation.child_key:
        return sql.SQL("true")
    return _imaged(
        relation.child_twin,
        "n",
        low,
        parent,
        equal("rj_i", relation.child_key, "c", relation.child_key),
        equal("rj_i", relation.columns, "c", relation.columns),
    )


def lost(relation: Relation, child: str, low: int) -> sql.Composable:
    """The parent of ``child``'s wanted row went after the row's first selected change. One that was never there since
    is missed as it was before that change (only in a declared reference)."""
    if not relation.declared or relation.parent_twin is None:
        return sql.SQL("true")
    return _imaged(relation.parent_twin, "o", low, child, equal("rj_i", relation.to, child, relation.columns))


def _imaged(twin: sql.Composable, side: str, low: int, row: str, *conditions: sql.Composable) -> sql.Composed:
    """The twin has an image of that side (alias ``rj_i``) that meets the conditions, since ``row``'s first change."""
    return sql.SQL(
        "EXISTS (SELECT FROM {twin} AS rj_i WHERE rj_i.rj_side = {side} AND rj_i.rj_seq >= {low} "
        "AND rj_i.rj_seq > {first} AND {conditions})"
    ).format(
        twin=twin,
        side=sql.Literal(side),
        low=sql.Literal(low),
        first=col(row, "rj_first"),
        conditions=sql.SQL(" AND ").join(conditions),
    )


def _mark_referenced(conn: psycopg.Connection[Any], known: Computed, relation: Relation) -> int:
    parent = known.shape(relation.parent)
    assert parent is not None  # noqa: S101 - see vacates
    return _mark(conn, parent, REFERENCED, references_to(known, relation))


def _mark_parent_gone(conn: psycopg.Connection[Any], known: Computed, relation: Relation) -> int:
    """Rows to be written whose parent exists neither live nor among the rows to be written. A reference that the
    live row already has is not the undo's doing."""
    child, parent = known.shape(relation.child), known.shape(relation.parent)
    assert child is not None  # noqa: S101 - see claims
    tally = known.tallies[child.name]
    same = equal("p", relation.to, "f", relation.columns)
    wanted: sql.Composable = sql.SQL("")
    if parent is not None:
        wanted = sql.SQL(" AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {} AND p.rj_do IN ('U', 'I'))").format(
            parent.temp("fin"), same
        )
    singly = tally.insert + tally.update <= relation.parent_lookups
    return _mark(
        conn,
        child,
        PARENT_GONE,
        sql.SQL(
            "WITH rj_claims AS (SELECT f.* FROM {fin} AS f WHERE {claims}), "
            "rj_held AS (SELECT {keys} FROM rj_claims AS f {rows} WHERE {stays}) "
            "SELECT {keys} FROM rj_claims AS f WHERE NOT EXISTS (SELECT 1 FROM rj_held AS h WHERE {h_f}) "
            "AND {lost}{wanted}"
        ).format(
            fin=child.temp("fin"),
            claims=claimed(child, relation.columns),
            keys=child.keys("f"),
            rows=_rows(relation.parent, "p", same, singly=singly),
            stays=_untouched("p", parent),
            h_f=child.same_key("h", "f"),
            lost=lost(relation, "f", child.low),
            wanted=wanted,
        ),
    )


def _mark(conn: psycopg.Connection[Any], shape: Shape, kind: str, keys: sql.Composable) -> int:
    """Leave the rows with ``keys`` (a query) as they are, for that reason."""
    return conn.execute(
        sql.SQL(
            "UPDATE {fin} AS g SET rj_do = 'N', rj_conflict = {kind} WHERE g.rj_do <> 'N' "
            "AND ({own}) IN (SELECT {x} FROM ({keys}) AS x)"
        ).format(fin=shape.temp("fin"), kind=sql.Literal(kind), own=shape.keys("g"), x=shape.keys("x"), keys=keys)
    ).rowcount


def claimed(shape: Shape, columns: Sequence[str]) -> sql.Composed:
    """The row ``f`` of ``rj_fin`` will have values in ``columns`` that the live row has not."""
    return sql.SQL("f.rj_do IN ('U', 'I') AND {} AND (f.rj_do = 'I' OR {})").format(
        filled("f", columns), changes(shape, "f", columns)
    )


def _rows(table: str, alias: str, condition: sql.Composable, *, singly: bool) -> sql.Composed:
    """``JOIN`` with live rows; ``singly`` looks them up one by one (OFFSET keeps the planner from undoing that)."""
    if singly:
        return sql.SQL("CROSS JOIN LATERAL (SELECT {0}.* FROM {1} AS {0} WHERE {2} OFFSET 0) AS {0}").format(
            sql.Identifier(alias), qualified(table), condition
        )
    return sql.SQL("JOIN {} AS {} ON {}").format(qualified(table), sql.Identifier(alias), condition)


def _mark_taken(conn: psycopg.Connection[Any], shape: Shape, columns: Sequence[str], tally: Tally) -> int:
    """Rows to be written whose unique value another row holds or gets."""
    same = equal("p", columns, "f", columns)
    return _mark(
        conn,
        shape,
        TAKEN,
        sql.SQL(
            "WITH rj_claims AS (SELECT f.* FROM {fin} AS f WHERE {claims}) "
            "SELECT {keys} FROM rj_claims AS f {rows} WHERE {stays} "
            "UNION SELECT {keys} FROM rj_claims AS f JOIN {fin} AS p ON {same} "
            "WHERE p.rj_do IN ('U', 'I') AND NOT ({own_row})"
        ).format(
            fin=shape.temp("fin"),
            claims=claimed(shape, columns),
            keys=shape.keys("f"),
            rows=_rows(shape.name, "p", same, singly=(tally.insert + tally.update) * NEAR_SHARE <= shape.table_rows),
            same=same,
            stays=_untouched("p", shape),
            own_row=shape.same_key("p", "f"),
        ),
    )


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
