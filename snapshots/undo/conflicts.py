"""The rows on which the undo and later work disagree, one by one, for people: where, why, and the three values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from snapshots.model import Conflict
from snapshots.undo.direct import DIRECT
from snapshots.undo.plan import BLOCKING, KINDS, Computed
from snapshots.undo.shape import Shape, col, comma

CONFLICTS_LISTED = 500
"""Per table and kind, where all of them are held in memory; the counts are always complete."""

MASKED: Final = "***"
"""Stands for a value of a column that the catalogue does not call public; an absent value is shown as absent."""

MASK: Final = f"CASE WHEN ({{}}) IS NOT NULL THEN '{MASKED}' END"

FETCH = 500
"""Rows per round trip of the complete listing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One column of a row in conflict, as text: before the selection, now, and as the undo wants it. ``None``: NULL,
    or no such row."""

    column: str
    before: str | None
    now: str | None
    wanted: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreement:
    """A conflict with the columns in which the three rows differ."""

    conflict: Conflict
    values: tuple[Value, ...]


def conflicts(conn: psycopg.Connection[Any], computed: Computed) -> tuple[Conflict, ...]:
    """Conflicts, at most ``CONFLICTS_LISTED`` per table and kind, blocking ones first."""
    found: list[Conflict] = []
    if not computed.conflict_counts:
        return ()
    for shape in computed.shapes:
        rows = conn.execute(
            sql.SQL(
                "SELECT r.kind, r.key, r.same FROM (SELECT k.rj_stands AS kind, {key} AS key, k.rj_same AS same, "
                "row_number() OVER (PARTITION BY k.rj_stands ORDER BY {order}) AS n FROM ({kinds}) AS k) AS r "
                "WHERE r.n <= {limit} ORDER BY r.kind, r.n"
            ).format(
                key=shape.key_texts("k"),
                order=shape.keys("k"),
                kinds=KINDS.format(fin=shape.temp("fin")),
                limit=sql.Literal(CONFLICTS_LISTED),
            )
        )
        found += [_conflict(shape, kind, key, same) for kind, key, same in rows]
    return tuple(sorted(found, key=lambda conflict: not conflict.blocking))


def listing(conn: psycopg.Connection[Any], computed: Computed, *, show_values: bool = False) -> Iterator[Disagreement]:
    """Every conflict with its values, read from the server as it is asked for, by table, kind and key. Values of
    columns that are not ``public`` are ``MASKED`` before they leave the server, unless ``show_values``."""
    for shape in computed.shapes:
        names = [column.name for column in shape.columns]
        with conn.cursor(name=f"rj_conflicts_{shape.index}") as cursor:
            cursor.itersize = FETCH
            cursor.execute(_query(computed, shape, show_values=show_values))
            for kind, key, same, befores, nows, wanteds, differ in cursor:
                yield Disagreement(
                    conflict=_conflict(shape, kind, key, same),
                    values=tuple(
                        Value(column=name, before=before, now=now, wanted=wanted)
                        for name, before, now, wanted, differs in zip(
                            names, befores, nows, wanteds, differ, strict=True
                        )
                        if differs
                    ),
                )


def _query(computed: Computed, shape: Shape, *, show_values: bool) -> sql.Composed:
    """Kind, key, columns of a later value; then per column the text before, now and wanted, and whether they differ."""
    chained = bool(computed.tallies[shape.name].chained)
    base = (
        sql.SQL("LEFT JOIN {} AS b ON {}").format(shape.temp("img"), shape.image("b", "k", "rj_base"))
        if chained
        else sql.SQL("")
    )

    def before(name: str) -> sql.Composable:
        if not chained:
            return col("k", name)
        direct = sql.Literal(DIRECT)
        return sql.SQL("CASE WHEN k.rj_base = {} THEN {} ELSE {} END").format(direct, col("k", name), col("b", name))

    def texts(values: Callable[[str], sql.Composable]) -> sql.Composed:
        shown = show_values, set(shape.spec.public)
        return sql.SQL("ARRAY[{}]::text[]").format(
            comma(
                sql.SQL("({})::text" if shown[0] or name in shown[1] else MASK).format(values(name))
                for name in shape.names
            )
        )

    differ = comma(
        sql.SQL("({} OR {})").format(
            column.differs(before(column.name), col("t", column.name)),
            column.differs(col("k", column.name), col("t", column.name)),
        )
        for column in shape.columns
    )
    return sql.SQL(
        "SELECT k.rj_stands, {key}, k.rj_same, {befores}, {nows}, {wanteds}, ARRAY[{differ}] "
        "FROM ({kinds}) AS k {base} {live} ORDER BY k.rj_stands, {order}"
    ).format(
        key=shape.key_texts("k"),
        befores=texts(before),
        nows=texts(lambda name: col("t", name)),
        wanteds=texts(lambda name: col("k", name)),
        differ=differ,
        kinds=KINDS.format(fin=shape.temp("fin")),
        base=base,
        live=shape.live_row("k"),
        order=shape.keys("k"),
    )


def _conflict(shape: Shape, kind: str, key: Sequence[str], same: Sequence[str]) -> Conflict:
    return Conflict(
        table=shape.name,
        key=tuple(key),
        kind=kind,
        columns=tuple(same) if kind == "later-same-column" else (),
        blocking=kind in BLOCKING,
    )
