"""Fold the legitimate later changes over the row as it was before the selection, column by column.

Source of the rule: docs/design.md, "The undo rule". Per column the last non-selected change wins; ``additive`` columns
add the differences of all of them; a delete makes the row absent. Most rows have no later change and skip all this.

Temporary tables made here, per table: ``rj_diff`` (which columns each later change touched), ``rj_fold`` (per row the
change that decides each column), ``rj_fin`` (the wanted row, and what it takes: ``rj_do`` is ``D``, ``U``, ``I`` or
``N``; ``rj_conflict`` names a blocking conflict, whose row stays as it is).
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from snapshots.model import Policy
from snapshots.undo_tables import Column, Shape, col, comma

EDITED, TAKEN = "created-then-edited", "key-taken"


def fold(conn: psycopg.Connection[Any], shape: Shape, policy: Policy) -> None:
    """Make ``rj_fin`` from the chains of :func:`snapshots.chain.link`."""
    _differences(conn, shape)
    _deciding(conn, shape)
    columns = comma(
        sql.SQL("{} AS {}").format(_value(shape, n, column), sql.Identifier(column.name))
        for n, column in enumerate(shape.columns)
    )
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {fin} ON COMMIT DROP AS "
            "WITH rj_wanted AS (SELECT {r_keys}, r.rj_live, r.rj_live_h, s.rj_id IS NOT NULL AS rj_present, "
            "  r.rj_reset IS NOT NULL OR r.rj_edit > coalesce(r.rj_reset, 0) AS rj_merged, "
            "  CASE WHEN s.rj_id IS NULL AND r.rj_edit > coalesce(r.rj_reset, 0) THEN {edited} "
            "    WHEN s.rj_id IS NOT NULL AND r.rj_reset IS NOT NULL AND r.rj_was THEN {taken} END AS rj_conflict, "
            "  r.rj_was AND r.rj_reset IS NOT NULL AND s.rj_id IS NULL AS rj_gone, "
            "  coalesce(l.rj_same, ARRAY[]::text[]) AS rj_same, {columns} "
            "  FROM {row} AS r LEFT JOIN {img} AS s ON s.rj_id = r.rj_start LEFT JOIN {fold} AS l ON {l_r}), "
            "rj_hashed AS (SELECT w.*, CASE WHEN w.rj_present THEN {digest} END AS rj_h FROM rj_wanted AS w) "
            "SELECT h.*, CASE WHEN h.rj_conflict = ANY({stay}) THEN 'N' "
            "  WHEN h.rj_h IS NOT DISTINCT FROM h.rj_live_h THEN 'N' "
            "  WHEN h.rj_h IS NULL THEN 'D' WHEN h.rj_live_h IS NULL THEN 'I' ELSE 'U' END AS rj_do FROM rj_hashed AS h"
        ).format(
            fin=shape.temp("fin"),
            row=shape.temp("row"),
            img=shape.temp("img"),
            fold=shape.temp("fold"),
            r_keys=shape.keys("r"),
            l_r=shape.same_key("l", "r"),
            columns=columns,
            digest=shape.digest("w"),
            edited=sql.Literal(EDITED),
            taken=sql.Literal(TAKEN),
            stay=sql.Literal([EDITED] if policy is Policy.KEEP_LATER else [EDITED, TAKEN]),
        )
    )
    conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("fin")))


def _differences(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """``rj_diff``: for rows with later work, per change of both kinds, one flag per column and, for additive
    columns, the difference (NULL where one side is NULL: then the last value wins)."""
    parts: list[sql.Composable] = []
    for n, column in enumerate(shape.columns):
        parts.append(
            sql.SQL("{} IS DISTINCT FROM {} AS {}").format(
                column.text("b"), column.text("a"), sql.Identifier(f"rj_d{n}")
            )
        )
        if column.additive:
            parts.append(sql.SQL("{} AS {}").format(difference(column, "a", "b"), sql.Identifier(f"rj_a{n}")))
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {diff} ON COMMIT DROP AS "
            "SELECT {c_keys}, c.rj_n, c.rj_after, c.rj_sel, "
            "NOT c.rj_sel AND c.rj_n > coalesce(r.rj_reset, 0) AS rj_counts, {parts} "
            "FROM {chg} AS c JOIN {row} AS r ON {r_c} "
            "JOIN {img} AS b ON b.rj_id = c.rj_before JOIN {img} AS a ON a.rj_id = c.rj_after "
            "WHERE r.rj_edit > coalesce(r.rj_reset, 0) AND c.rj_n >= r.rj_first"
        ).format(
            diff=shape.temp("diff"),
            chg=shape.temp("chg"),
            row=shape.temp("row"),
            img=shape.temp("img"),
            c_keys=shape.keys("c"),
            r_c=shape.same_key("r", "c"),
            parts=comma(parts),
        )
    )
    conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("diff")))


def _deciding(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """``rj_fold``: per row and column the number of the change whose value stands, and the sum of an additive
    column's differences. ``rj_same`` names columns on which a later value stands over a selected one."""
    lasts: list[sql.Composable] = []
    same: list[sql.Composable] = []
    for n, column in enumerate(shape.columns):
        flag, last = col("d", f"rj_d{n}"), sql.Identifier(f"rj_l{n}")
        lasts.append(
            sql.SQL("max(d.rj_n) FILTER (WHERE d.rj_counts AND {flag}) AS {last}").format(flag=flag, last=last)
        )
        if column.additive:
            lasts.append(
                sql.SQL(
                    "sum({add}) FILTER (WHERE d.rj_counts AND {flag}) AS {total}, "
                    "coalesce(bool_or({add} IS NULL AND {flag}) FILTER (WHERE d.rj_counts), false) AS {holes}"
                ).format(
                    add=col("d", f"rj_a{n}"),
                    flag=flag,
                    total=sql.Identifier(f"rj_t{n}"),
                    holes=sql.Identifier(f"rj_o{n}"),
                )
            )
        else:
            same.append(
                sql.SQL(
                    "CASE WHEN min(d.rj_n) FILTER (WHERE d.rj_sel AND {flag}) "
                    "< max(d.rj_n) FILTER (WHERE d.rj_counts AND {flag}) THEN {name} END"
                ).format(flag=flag, name=sql.Literal(column.name))
            )
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {fold} ON COMMIT DROP AS SELECT {keys}, {lasts}, "
            "array_remove(ARRAY[{same}]::text[], NULL) AS rj_same FROM {diff} AS d GROUP BY {keys}"
        ).format(
            fold=shape.temp("fold"),
            diff=shape.temp("diff"),
            keys=shape.keys("d"),
            lasts=comma(lasts),
            same=comma(same),
        )
    )
    conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("fold")))


def difference(column: Column, after: str, before: str) -> sql.Composed:
    """What a change added to an additive column."""
    return sql.SQL("{a}::{kind} - {b}::{kind}").format(
        a=col(after, column.name), b=col(before, column.name), kind=column.summed
    )


def _value(shape: Shape, n: int, column: Column) -> sql.Composed:
    """The wanted value of one column, for a row whose start is image ``s`` and whose fold is ``l``."""
    last = sql.SQL(
        "CASE WHEN s.rj_id IS NULL OR l.{last} IS NULL THEN {start} ELSE (SELECT {there} FROM {chg} AS c "
        "JOIN {img} AS i ON i.rj_id = c.rj_after WHERE c.rj_n = l.{last}) END"
    ).format(
        last=sql.Identifier(f"rj_l{n}"),
        start=col("s", column.name),
        there=col("i", column.name),
        chg=shape.temp("chg"),
        img=shape.temp("img"),
    )
    if not column.additive:
        return last
    return sql.SQL(
        "CASE WHEN {start} IS NULL OR l.{holes} OR l.{total} IS NULL THEN {last} "
        "ELSE ({start}::{summed} + l.{total}::{summed})::{kind} END"
    ).format(
        start=col("s", column.name),
        holes=sql.Identifier(f"rj_o{n}"),
        total=sql.Identifier(f"rj_t{n}"),
        last=last,
        summed=column.summed,
        kind=column.cast,
    )
