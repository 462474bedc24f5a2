"""One computation for preview and apply: what was changed, what shall be there instead, what stands against it.

Runs in the caller's transaction and leaves its result in temporary tables (see :mod:`snapshots.undo.direct`,
:mod:`snapshots.undo.chain` and :mod:`snapshots.undo.merge`), so that client memory does not grow with the selection.
Needs read access to the tables and the journal, and the right to make temporary tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from snapshots.journal import journal
from snapshots.model import TableCounts, UndoSpec
from snapshots.undo import chain, direct, merge, where
from snapshots.undo.relations import PARENT_GONE, REFERENCED, mark_conflicts
from snapshots.undo.select import Selection, require_journal, select
from snapshots.undo.shape import BITS, SELECTED, Relation, Shape
from snapshots.undo.tables import NEAR_SHARE, fix_output, read_relations, read_shapes

BLOCKING = frozenset([merge.EDITED, merge.TAKEN, REFERENCED, PARENT_GONE])
"""Conflicts whose row stays as it is; the others only say that later work was kept."""

NOT_JOURNALED = "not-journaled"
"""The gap that :func:`snapshots.undo.tables.read_shapes` already names."""

TEMPORARY = ("fin", "key", "img", "chg", "row", "diff", "fold")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Rows of ``rj_fin`` by what is to be done; ``mask`` are the columns that some update changes, as bits."""

    delete: int
    update: int
    insert: int
    merged: int
    broken: int
    odd: int
    """Rows in any conflict, also one that stops nothing."""
    mask: int
    chained: int
    """Rows that went the long way, which alone have an ``rj_row``."""

    def touches(self, shape: Shape, columns: Sequence[str]) -> bool:
        """Whether an update may change one of ``columns``."""
        return any(self.mask & shape.bit(column) for column in columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """``shapes`` are the tables with selected changes, in name order; ``relations`` all that touch them."""

    selection: Selection
    shapes: tuple[Shape, ...]
    relations: tuple[Relation, ...]
    tallies: Mapping[str, Tally]
    """By table, before conflicts with relations were marked."""
    counts: tuple[TableCounts, ...]
    conflict_counts: Mapping[str, int]
    problems: tuple[str, ...]

    @property
    def blocking_kinds(self) -> frozenset[str]:
        return frozenset(kind for kind, rows in self.conflict_counts.items() if rows and kind in BLOCKING)

    def shape(self, table: str) -> Shape | None:
        return next((shape for shape in self.shapes if shape.name == table), None)

    def chained(self) -> tuple[Shape, ...]:
        """Tables that have chains (``rj_chg``, ``rj_row``) at all."""
        return tuple(shape for shape in self.shapes if self.tallies[shape.name].chained)


def compute(conn: psycopg.Connection[Any], spec: UndoSpec, *, settle: bool = True) -> Computed:
    """Fill the temporary tables. With ``settle`` off, relations are left alone (to see who stands in the way).

    From here on the planner avoids nested loops: it does not know yet how much was just journaled, and one that it
    takes for cheap may run for hours. Look-ups that are meant say so themselves (``Shape.live_row``)."""
    require_journal(conn)
    fix_output(conn)
    relations = read_relations(conn, spec.tables)
    all_shapes, shape_problems = read_shapes(conn, spec.tables, relations)
    where.validate(conn, spec, all_shapes)
    selection = select(conn, spec)
    shapes = tuple(_limited(shape, spec, selection) for shape in all_shapes if shape.name in selection.tables)
    tallies: dict[str, Tally] = {}
    conn.execute("SET LOCAL enable_nestloop = off")
    for shape in shapes:
        others = direct.other_keys(conn, shape)
        direct.fill(conn, shape, others)
        if others:
            chain.link(conn, shape)
            merge.fold(conn, shape, spec.policy)
        _analyze(conn, shape)
        tallies[shape.name] = _tally(conn, shape, others)
    known = Computed(
        selection=selection,
        shapes=shapes,
        relations=relations,
        tallies=tallies,
        counts=(),
        conflict_counts={},
        problems=(*shape_problems, *selection.problems),
    )
    return settled(conn, spec, known) if settle else known


def settled(conn: psycopg.Connection[Any], spec: UndoSpec, known: Computed) -> Computed:
    """``known`` with conflicts between rows marked, counts and everything that speaks against the undo."""
    problems = list(known.problems)
    for shape in known.shapes:
        if known.tallies[shape.name].broken:
            problems.append(
                f"table {shape.name}: the journal missed changes of {known.tallies[shape.name].broken} selected rows "
                "(images do not link up): compare with a recovery point"
            )
        if shape.spec.undeclared_triggers:
            problems.append(
                f"table {shape.name}: triggers {', '.join(shape.spec.undeclared_triggers)} are not declared: "
                "say in the catalogue whether an undo suppresses them"
            )
    tallies = known.tallies
    if mark_conflicts(conn, known):
        tallies = {shape.name: _tally(conn, shape, 0) for shape in known.shapes}
    counts = tuple(_counts(shape, tallies[shape.name]) for shape in known.shapes)
    conflict_counts = _count_conflicts(conn, [shape for shape in known.shapes if tallies[shape.name].odd])
    problems += _journal_problems(conn, spec, known.selection)
    problems += cap_problems(spec, counts)
    if spec.policy.refuses:
        problems += [
            f"{rows} rows in conflict ({kind}): decide about them, or undo under another policy"
            for kind, rows in sorted(conflict_counts.items())
            if kind in BLOCKING
        ]
    return replace(known, counts=counts, conflict_counts=conflict_counts, problems=tuple(dict.fromkeys(problems)))


def redo(
    conn: psycopg.Connection[Any], spec: UndoSpec, known: Computed, touched: Mapping[str, sql.Composed]
) -> Computed:
    """``known`` with the rows that moved since computed again, all of them as chains. ``touched``: by table, a query
    for their keys (``rj_k0`` and so on). Conflicts are marked anew."""
    tallies = dict(known.tallies)
    for shape in known.shapes:
        fin = shape.temp("fin")
        conn.execute(
            sql.SQL(
                "UPDATE {} SET rj_do = rj_want, rj_conflict = rj_kind WHERE rj_conflict IS DISTINCT FROM rj_kind"
            ).format(fin)
        )
        if shape.name not in touched:
            continue
        forget(conn, shape, TEMPORARY[2:])
        conn.execute(sql.SQL("CREATE TEMP TABLE pg_temp.rj_again ON COMMIT DROP AS {}").format(touched[shape.name]))
        forget(conn, shape, ("key",))
        conn.execute(
            sql.SQL("ALTER TABLE pg_temp.rj_again RENAME TO {}").format(sql.Identifier(f"rj_key_{shape.index}"))
        )
        conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("key")))
        conn.execute(
            sql.SQL("DELETE FROM {} AS f USING {} AS k WHERE {}").format(
                fin, shape.temp("key"), shape.same_key("f", "k")
            )
        )
        chained = chain.link(conn, shape)
        merge.fold(conn, shape, spec.policy)
        tallies[shape.name] = _tally(conn, shape, chained)
    return settled(conn, spec, replace(known, tallies=tallies))


def forget(conn: psycopg.Connection[Any], shape: Shape, what: Sequence[str] = TEMPORARY) -> None:
    """Drop temporary tables of one table's computation."""
    for name in what:
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(shape.temp(name)))


def forget_all(conn: psycopg.Connection[Any], known: Computed) -> None:
    """Drop every temporary table of a computation, so that it can be made again in the same transaction."""
    for shape in known.shapes:
        forget(conn, shape)
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(SELECTED))


def _limited(shape: Shape, spec: UndoSpec, selection: Selection) -> Shape:
    return replace(
        selection.of(shape),
        near=selection.images[shape.name] * NEAR_SHARE < shape.table_rows,
        where=dict(spec.where).get(shape.name, ""),
    )


def _analyze(conn: psycopg.Connection[Any], shape: Shape) -> None:
    names = [*(f"rj_k{n}" for n in range(len(shape.key))), "rj_do", *(shape.was(name) for name in shape.watched)]
    conn.execute(
        sql.SQL("ANALYZE {} ({})").format(shape.temp("fin"), sql.SQL(", ").join(sql.Identifier(n) for n in names))
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


def standing_problems(conn: psycopg.Connection[Any], spec: UndoSpec, known: Computed) -> tuple[str, ...]:
    """The problems of a computation that still stands, with gaps looked for again."""
    return tuple(dict.fromkeys((*known.problems, *_journal_problems(conn, spec, known.selection))))


def _journal_problems(conn: psycopg.Connection[Any], spec: UndoSpec, selection: Selection) -> list[str]:
    """Gaps since the first selected write, and journals that are younger than it. Of the tables that the undo is
    limited to, else of all: with a gap, nobody knows which of them the selection touched."""
    since: datetime | None = selection.first_at
    if spec.since is not None:
        since = spec.since.at if since is None else min(since, spec.since.at)
    if since is None:
        return []
    by_table: dict[str, list[str]] = {}
    for gap in journal.gaps(conn, since=since, tables=spec.limited_to or [t.name for t in spec.tables]):
        if gap.kind != NOT_JOURNALED:
            by_table.setdefault(gap.table, []).append(f"since {gap.at.isoformat()} ({gap.kind}: {gap.detail})")
    return [
        f"the journal of {table} may miss changes {found[0]}"
        f"{f' and {len(found) - 1} more gaps' if found[1:] else ''}: compare with a recovery point"
        for table, found in by_table.items()
    ]


def _tally(conn: psycopg.Connection[Any], shape: Shape, chained: int) -> Tally:
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE rj_do = 'D'), count(*) FILTER (WHERE rj_do = 'U'), "
            "count(*) FILTER (WHERE rj_do = 'I'), count(*) FILTER (WHERE rj_do IN ('U', 'I') AND rj_merged), "
            "count(*) FILTER (WHERE rj_broken), "
            "count(*) FILTER (WHERE rj_conflict IS NOT NULL OR rj_gone OR rj_same <> ARRAY[]::text[]), "
            "coalesce(bit_or(rj_diff) FILTER (WHERE rj_do = 'U'), 0) FROM {}"
        ).format(shape.temp("fin"))
    ).fetchone()
    delete, update, insert, merged, broken, odd, mask = row or (0, 0, 0, 0, 0, 0, (1 << BITS) - 1)
    return Tally(
        delete=delete,
        update=update,
        insert=insert,
        merged=merged,
        broken=broken,
        odd=odd,
        mask=mask,
        chained=chained,
    )


def _counts(shape: Shape, tally: Tally) -> TableCounts:
    return TableCounts(
        table=shape.name,
        delete=tally.delete,
        update=tally.update,
        insert=tally.insert,
        merged=tally.merged,
        table_rows=shape.table_rows,
    )


KINDS = sql.SQL(
    "SELECT f.*, f.rj_conflict AS rj_stands FROM {fin} AS f WHERE f.rj_conflict IS NOT NULL "
    "UNION ALL SELECT f.*, 'row-gone' FROM {fin} AS f WHERE f.rj_gone AND f.rj_conflict IS NULL "
    "UNION ALL SELECT f.*, 'later-same-column' FROM {fin} AS f "
    "WHERE f.rj_present AND f.rj_conflict IS NULL AND cardinality(f.rj_same) > 0"
)
"""Rows of ``rj_fin`` in conflict, once for each kind (``rj_stands``)."""


def _count_conflicts(conn: psycopg.Connection[Any], shapes: Sequence[Shape]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for shape in shapes:
        for kind, rows in conn.execute(
            sql.SQL("SELECT k.rj_stands, count(*) FROM ({}) AS k GROUP BY 1 ORDER BY 1").format(
                KINDS.format(fin=shape.temp("fin"))
            )
        ):
            totals[kind] = totals.get(kind, 0) + rows
    return totals
