"""One computation for preview and apply: what was changed, what shall be there instead, what stands against it.

Runs in the caller's transaction and leaves its result in temporary tables (see :mod:`snapshots.chain` and
:mod:`snapshots.merge`), so that client memory does not grow with the selection. Needs read access to the tables and
the journal, and the right to make temporary tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from snapshots import chain, journal, merge
from snapshots.model import Conflict, Policy, TableCounts, UndoSpec
from snapshots.undo_relations import PARENT_GONE, REFERENCED, mark_conflicts
from snapshots.undo_select import Selection, require_journal, select
from snapshots.undo_tables import Relation, Shape, fix_output, read_relations, read_shapes

BLOCKING = frozenset([merge.EDITED, merge.TAKEN, REFERENCED, PARENT_GONE])
"""Conflicts whose row stays as it is; the others only say that later work was kept."""

NOT_JOURNALED = "not-journaled"
"""The gap that :func:`snapshots.undo_tables.read_shapes` already names."""

CONFLICTS_LISTED = 500
"""Per table and kind; the counts are always complete."""

EXACT_COUNT_BELOW = 1_000_000
"""Rows by the planner's estimate, from which on the estimate is used for the share of deleted rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """``shapes`` are the tables with selected changes, in name order; ``relations`` all that touch them."""

    selection: Selection
    shapes: tuple[Shape, ...]
    relations: tuple[Relation, ...]
    counts: tuple[TableCounts, ...]
    conflict_counts: Mapping[str, int]
    problems: tuple[str, ...]

    @property
    def blocking_kinds(self) -> frozenset[str]:
        return frozenset(kind for kind, rows in self.conflict_counts.items() if rows and kind in BLOCKING)

    def shape(self, table: str) -> Shape | None:
        return next((shape for shape in self.shapes if shape.name == table), None)


def compute(conn: psycopg.Connection[Any], spec: UndoSpec, *, settle: bool = True) -> Computed:
    """Fill the temporary tables. With ``settle`` off, relations are left alone (to see who stands in the way)."""
    require_journal(conn)
    fix_output(conn)
    all_shapes, shape_problems = read_shapes(conn, spec.tables)
    relations = read_relations(conn, spec.tables)
    selection = select(conn, spec)
    problems = [*shape_problems, *selection.problems]
    shapes = tuple(shape for shape in all_shapes if shape.name in selection.tables)
    for shape in shapes:
        chain.link(conn, shape)
        broken = chain.broken(conn, shape)
        if broken:
            problems.append(
                f"table {shape.name}: the journal missed changes of {broken} selected rows (images do not link up): "
                "compare with a recovery point"
            )
        if shape.spec.undeclared_triggers:
            problems.append(
                f"table {shape.name}: triggers {', '.join(shape.spec.undeclared_triggers)} are not declared: "
                "say in the catalogue whether an undo suppresses them"
            )
        merge.fold(conn, shape, spec.policy)
    if settle:
        mark_conflicts(conn, shapes, relations)
    counts = tuple(_count(conn, shape) for shape in shapes)
    conflict_counts = _count_conflicts(conn, shapes)
    problems += _journal_problems(conn, spec, selection)
    problems += cap_problems(spec, counts)
    if spec.policy is Policy.REFUSE:
        problems += [
            f"{rows} rows in conflict ({kind}): decide about them, or undo under another policy"
            for kind, rows in sorted(conflict_counts.items())
            if kind in BLOCKING
        ]
    return Computed(
        selection=selection,
        shapes=shapes,
        relations=relations,
        counts=counts,
        conflict_counts=conflict_counts,
        problems=tuple(dict.fromkeys(problems)),
    )


def cap_problems(spec: UndoSpec, counts: Sequence[TableCounts]) -> list[str]:
    """Limits that hold whatever the plan says: a planner's mistake must not empty a table."""
    problems: list[str] = []
    deleted = sum(count.delete for count in counts)
    changed = sum(count.delete + count.update + count.insert for count in counts)
    if deleted > spec.max_deleted_rows:
        problems.append(
            f"{deleted} rows would be deleted, the cap is {spec.max_deleted_rows}: raise it if this is meant"
        )
    if changed > spec.max_changed_rows:
        problems.append(f"{changed} rows would change, the cap is {spec.max_changed_rows}: raise it if meant")
    problems += [
        f"{count.delete} of {count.table_rows} rows of {count.table} would be deleted, the cap is "
        f"{spec.max_deleted_share:.0%}: raise it if meant"
        for count in counts
        if count.delete > spec.max_deleted_share * count.table_rows
    ]
    return problems


def _journal_problems(conn: psycopg.Connection[Any], spec: UndoSpec, selection: Selection) -> list[str]:
    """Gaps since the first selected write, and journals that are younger than it. On all tables of the undo: with a
    gap, nobody knows which of them the selection touched."""
    if selection.first_at is None:
        return []
    return [
        f"the journal of {gap.table} may miss changes since {gap.at.isoformat()} ({gap.kind}: {gap.detail}): "
        "compare with a recovery point"
        for gap in journal.gaps(conn, since=selection.first_at, tables=[table.name for table in spec.tables])
        if gap.kind != NOT_JOURNALED
    ]


def _count(conn: psycopg.Connection[Any], shape: Shape) -> TableCounts:
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE rj_do = 'D'), count(*) FILTER (WHERE rj_do = 'U'), "
            "count(*) FILTER (WHERE rj_do = 'I'), count(*) FILTER (WHERE rj_do IN ('U', 'I') AND rj_merged), "
            "(SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass) FROM {}"
        ).format(shape.temp("fin")),
        (shape.relation.as_string(None),),
    ).fetchone()
    delete, update, insert, merged, rows = row or (0, 0, 0, 0, 0)
    if rows < EXACT_COUNT_BELOW:
        exact = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(shape.relation)).fetchone()
        rows = exact[0] if exact else 0
    return TableCounts(
        table=shape.name, delete=delete, update=update, insert=insert, merged=merged, table_rows=int(rows)
    )


_KINDS = sql.SQL(
    "SELECT f.*, f.rj_conflict AS rj_kind FROM {fin} AS f WHERE f.rj_conflict IS NOT NULL "
    "UNION ALL SELECT f.*, 'row-gone' FROM {fin} AS f WHERE f.rj_gone AND f.rj_conflict IS NULL "
    "UNION ALL SELECT f.*, 'later-same-column' FROM {fin} AS f "
    "WHERE f.rj_present AND f.rj_conflict IS NULL AND cardinality(f.rj_same) > 0"
)


def _count_conflicts(conn: psycopg.Connection[Any], shapes: Sequence[Shape]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for shape in shapes:
        for kind, rows in conn.execute(
            sql.SQL("SELECT k.rj_kind, count(*) FROM ({}) AS k GROUP BY 1 ORDER BY 1").format(
                _KINDS.format(fin=shape.temp("fin"))
            )
        ):
            totals[kind] = totals.get(kind, 0) + rows
    return totals


def conflicts(conn: psycopg.Connection[Any], computed: Computed) -> tuple[Conflict, ...]:
    """Conflicts, at most ``CONFLICTS_LISTED`` per table and kind, blocking ones first."""
    found: list[Conflict] = []
    for shape in computed.shapes:
        rows = conn.execute(
            sql.SQL(
                "SELECT r.kind, r.key, r.same FROM (SELECT k.rj_kind AS kind, {key} AS key, k.rj_same AS same, "
                "row_number() OVER (PARTITION BY k.rj_kind ORDER BY {order}) AS n FROM ({kinds}) AS k) AS r "
                "WHERE r.n <= {limit} ORDER BY r.kind, r.n"
            ).format(
                key=shape.key_texts("k"),
                order=shape.keys("k"),
                kinds=_KINDS.format(fin=shape.temp("fin")),
                limit=sql.Literal(CONFLICTS_LISTED),
            )
        )
        found += [
            Conflict(
                table=shape.name,
                key=tuple(key),
                kind=kind,
                columns=tuple(same) if kind == "later-same-column" else (),
                blocking=kind in BLOCKING,
            )
            for kind, key, same in rows
        ]
    return tuple(sorted(found, key=lambda conflict: not conflict.blocking))
