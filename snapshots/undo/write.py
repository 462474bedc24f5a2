"""Write what was computed: switch the app's triggers off, delete, update, insert, check, switch them on again.

Runs in the caller's transaction as the recoverer, under table locks. Every write is one statement per table and kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import psycopg
from psycopg import sql

from snapshots import locks
from snapshots.database import qualified, set_triggers
from snapshots.model import TableCounts
from snapshots.undo.errors import UndoBusy, UndoRefused
from snapshots.undo.plan import Computed, Tally
from snapshots.undo.relations import changes, claims, filled, lost, newer, vacates
from snapshots.undo.shape import Relation, Shape, col, comma, equal, same_image
from snapshots.undo.tables import parents_first

MANY = 1_000
"""From so many updated rows of a table on, what its indexes do meanwhile is worth a thought."""

_INDEX_COLUMNS = """
SELECT DISTINCT (array_agg(a.attname::text ORDER BY a.attnum DESC) FILTER (WHERE a.attname = ANY (%(writable)s::name[])
    AND has_column_privilege(a.attrelid, a.attnum, 'UPDATE')))[1] AS rj_name
FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, pos)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num AND k.pos <= i.indnkeyatts
WHERE i.indrelid = %(table)s::regclass AND i.indisready
GROUP BY i.indexrelid HAVING NOT bool_or(a.attname = ANY (%(set)s::name[])) ORDER BY 1
"""


def lock(conn: psycopg.Connection[Any], tables: Sequence[str], relations: Sequence[Relation]) -> None:
    """Keep writers off ``tables`` and off what references them or is referenced by declaration, in one fixed order."""
    names = set(tables)
    for relation in relations:
        if relation.parent in tables:
            names.add(relation.child)
        if relation.declared and relation.child in tables:
            names.add(relation.parent)
    locks.take(conn, names)


def write(conn: psycopg.Connection[Any], computed: Computed) -> None:
    """Bring the rows into the wanted state. Raises :class:`UndoRefused` when the database does not end up as
    computed (a trigger, a rule or row security in between), :class:`UndoBusy` when rows are not where they were when
    it was computed; the caller's transaction must then be rolled back."""
    order = parents_first(computed.shapes, computed.relations)
    tally = {count.table: count for count in computed.counts}
    conn.execute("SET CONSTRAINTS ALL DEFERRED")
    specs = [shape.spec for shape in order]
    set_triggers(conn, specs, enabled=False)
    # With triggers of the app at work, rows may move under our own hands: look at all of them first instead.
    guarded = not any(shape.meddled for shape in order)
    if not guarded:
        for shape in order:
            _check_places(conn, shape)
    late = _deletes_last(conn, computed)
    if not late:
        _delete_all(conn, order, tally, guarded)
    for shape in order:
        _update(conn, shape, computed.tallies[shape.name], tally[shape.name].update, guarded)
        _insert(conn, shape, tally[shape.name].insert)
    if late:
        _delete_all(conn, order, tally, guarded)
    conn.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_nestloop = off")
    conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
    cascades = _cascades(computed)
    for shape in order:
        everything = not guarded or shape.name in cascades
        if everything or tally[shape.name].insert:
            _check_rows(conn, shape, everything=everything)
    for relation in computed.relations:
        if relation.declared:
            _check_relation(conn, computed, relation)
    set_triggers(conn, specs, enabled=True)


def _cascades(computed: Computed) -> set[str]:
    """Tables of the undo whose rows the database itself may touch when a row they refer to changes."""
    return {relation.child for relation in computed.relations if not relation.declared and vacates(computed, relation)}


def _deletes_last(conn: psycopg.Connection[Any], computed: Computed) -> bool:
    """Whether a row to be deleted is referenced, as long as nothing is written, by a row to be updated."""
    for relation in computed.relations:
        child, parent = computed.shape(relation.child), computed.shape(relation.parent)
        if child is None or parent is None or not computed.tallies[parent.name].delete:
            continue
        if not computed.tallies[child.name].touches(child, relation.columns):
            continue
        row = conn.execute(
            sql.SQL(
                "SELECT EXISTS (SELECT 1 FROM {child} AS c JOIN {parent} AS p ON {same} "
                "WHERE c.rj_do = 'U' AND p.rj_do = 'D')"
            ).format(
                child=child.temp("fin"),
                parent=parent.temp("fin"),
                same=equal("p", [parent.was(n) for n in relation.to], "c", [child.was(n) for n in relation.columns]),
            )
        ).fetchone()
        if row and row[0]:
            return True
    return False


def _place(shape: Shape, guarded: bool) -> sql.Composed:
    """Where the row is: by its place and version, which nobody can have changed, or by its key."""
    same = shape.same_key("f", "t", row=True)
    if guarded:
        return sql.SQL("t.ctid = f.rj_tid AND t.xmin = f.rj_xmin AND t.tableoid = f.rj_oid AND {}").format(same)
    return same


def _find_singly(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """Few rows of a large table: the planner does not know that fetching them by place costs next to nothing."""
    conn.execute(
        "SELECT set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', %(mode)s, true), "
        "set_config('enable_mergejoin', %(mode)s, true)",
        {"mode": "off" if shape.near else "on"},
    )


def _delete_all(
    conn: psycopg.Connection[Any], order: Sequence[Shape], tally: Mapping[str, TableCounts], guarded: bool
) -> None:
    for shape in reversed(order):
        if not tally[shape.name].delete:
            continue
        _find_singly(conn, shape)
        done = conn.execute(
            sql.SQL("DELETE FROM {live} AS t USING {fin} AS f WHERE f.rj_do = 'D' AND {place}").format(
                live=shape.relation, fin=shape.temp("fin"), place=_place(shape, guarded)
            )
        ).rowcount
        _expect(shape, "deleted", done, tally[shape.name].delete)


def _update(conn: psycopg.Connection[Any], shape: Shape, tally: Tally, wanted: int, guarded: bool) -> None:
    """Only columns that differ somewhere are set, so that column triggers and column grants see no more than needed;
    in a large update, where nobody looks, also one column of each index, to itself."""
    columns = [c for c in shape.columns if c.writable and tally.touches(shape, [c.name])]
    if not wanted or not columns:
        _expect(shape, "updated", 0, wanted)
        return
    _find_singly(conn, shape)
    kept = _index_columns(conn, shape, [c.name for c in columns]) if wanted > MANY and guarded else ()
    row = conn.execute(
        sql.SQL(
            "WITH rj_written AS (UPDATE {live} AS t SET {sets} FROM {fin} AS f WHERE f.rj_do = 'U' AND {place} "
            "RETURNING {same} AS rj_same) SELECT count(*), count(*) FILTER (WHERE rj_same) FROM rj_written"
        ).format(
            live=shape.relation,
            sets=comma(
                [
                    *(sql.SQL("{} = {}").format(sql.Identifier(c.name), col("f", c.name)) for c in columns),
                    *(sql.SQL("{} = {}").format(sql.Identifier(name), col("t", name)) for name in kept),
                ]
            ),
            fin=shape.temp("fin"),
            place=_place(shape, guarded),
            same=_as_wanted(shape),
        )
    ).fetchone()
    done, same = row or (0, 0)
    _expect(shape, "updated", done, wanted)
    if same != done:
        _not_as_written(shape, done - same)


def _index_columns(conn: psycopg.Connection[Any], shape: Shape, columns: Sequence[str]) -> list[str]:
    """One column of each index of which ``columns`` has none. An update that does not name any makes PostgreSQL search
    every full index page for old versions to remove, which takes more time than all else when many rows go to other
    pages at once."""
    writable = [column.name for column in shape.columns if column.writable]
    return [
        name
        for (name,) in conn.execute(
            _INDEX_COLUMNS,
            {"table": shape.relation.as_string(None), "writable": writable, "set": list(columns)},
        )
        if name is not None
    ]


def _insert(conn: psycopg.Connection[Any], shape: Shape, wanted: int) -> None:
    if not wanted:
        return
    done = conn.execute(
        sql.SQL(
            "INSERT INTO {live} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {fin} AS f WHERE f.rj_do = 'I'"
        ).format(
            live=shape.relation,
            names=comma(sql.Identifier(name) for name in shape.names),
            values=shape.values("f"),
            fin=shape.temp("fin"),
        )
    ).rowcount
    _expect(shape, "inserted", done, wanted)


def _as_wanted(shape: Shape) -> sql.Composed:
    """The live row ``t`` is the wanted row ``f``, byte for byte."""
    return same_image([c.live("t") for c in shape.columns], [col("f", c.name) for c in shape.columns])


def _check_places(conn: psycopg.Connection[Any], shape: Shape) -> None:
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FROM {fin} AS f {live} WHERE f.rj_do <> 'N' AND (f.rj_tid IS DISTINCT FROM t.rj_tid "
            "OR f.rj_xmin::text IS DISTINCT FROM t.rj_xmin::text OR f.rj_oid IS DISTINCT FROM t.rj_oid)"
        ).format(fin=shape.temp("fin"), live=shape.live_row("f"))
    ).fetchone()
    if row and row[0]:
        raise UndoBusy(f"table {shape.name}: {row[0]} rows are not where they were a moment ago: try again")


def _expect(shape: Shape, what: str, done: int, wanted: int) -> None:
    if done != wanted:
        raise UndoRefused(
            f"table {shape.name}: {done} rows {what} instead of {wanted}: "
            "a trigger, a rule or row security stands in between; declare the trigger as suppressed"
        )


def _check_rows(conn: psycopg.Connection[Any], shape: Shape, *, everything: bool) -> None:
    """Inserted rows, or every row, are now what was computed, to the last digit. Updates were compared as they were
    written; only the app's triggers or a cascade could have changed those since."""
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FROM {fin} AS f {live} WHERE f.rj_do = ANY({which}) AND CASE "
            "WHEN f.rj_present AND t.rj_here THEN NOT ({same}) ELSE f.rj_present OR t.rj_here IS NOT NULL END"
        ).format(
            fin=shape.temp("fin"),
            which=sql.Literal(["D", "U", "I"] if everything else ["I"]),
            live=shape.live_row("f"),
            same=shape.same_row("f", "t"),
        )
    ).fetchone()
    if row and row[0]:
        _not_as_written(shape, row[0])


def _not_as_written(shape: Shape, rows: int) -> NoReturn:
    raise UndoRefused(
        f"table {shape.name}: {rows} rows are not what the undo wrote: one of the app's triggers changed them; "
        "declare it as suppressed"
    )


def _check_relation(conn: psycopg.Connection[Any], computed: Computed, relation: Relation) -> None:
    """No reference dangles because of this transaction: none to a value that went, none in a row that was written."""
    parent, child = computed.shape(relation.parent), computed.shape(relation.child)
    absent = sql.SQL("NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {same})").format(
        parent=qualified(relation.parent), same=equal("p", relation.to, "c", relation.columns)
    )
    checks: list[sql.Composable] = []
    if parent is not None and vacates(computed, relation):
        checks.append(
            sql.SQL(
                "SELECT 1 FROM {fin} AS f JOIN {child} AS c ON {same} WHERE f.rj_do IN ('D', 'U') AND {absent} "
                "AND {newer}"
            ).format(
                fin=parent.temp("fin"),
                child=qualified(relation.child),
                newer=newer(relation, "f", parent.low),
                same=equal("c", relation.columns, "f", [parent.was(name) for name in relation.to]),
                absent=absent,
            )
        )
    if child is not None and claims(computed, relation):
        checks.append(
            sql.SQL(
                "SELECT 1 FROM {fin} AS c WHERE c.rj_do IN ('U', 'I') AND {filled} "
                "AND (c.rj_do = 'I' OR {changes}) AND {absent} AND {lost}"
            ).format(
                fin=child.temp("fin"),
                filled=filled("c", relation.columns),
                changes=changes(child, "c", relation.columns),
                lost=lost(relation, "c", child.low),
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
