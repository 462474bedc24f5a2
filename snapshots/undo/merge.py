"""Fold the legitimate later changes over the row as it was before the selection, column by column.

Source of the rule: docs/design.md, "The undo rule". Per column the last non-selected change wins; ``additive`` columns
add the differences of all of them; a delete makes the row absent. Most rows have no later change and skip all this.

Temporary tables made here, per table: ``rj_diff`` (which columns each later change touched), ``rj_fold`` (per row the
image that decides each column). The wanted rows go into ``rj_fin`` of :mod:`snapshots.undo.direct`.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from snapshots.model import Policy
from snapshots.undo.shape import Column, Shape, col, comma

EDITED, TAKEN = "created-then-edited", "key-taken"


def fold(conn: psycopg.Connection[Any], shape: Shape, policy: Policy) -> None:
    """Add to ``rj_fin`` the rows whose chains :func:`snapshots.undo.chain.link` made."""
    _differences(conn, shape)
    _deciding(conn, shape)
    columns = comma(
        sql.SQL("{} AS {}").format(_value(shape, n, column), sql.Identifier(column.name))
        for n, column in enumerate(shape.columns)
    )
    conn.execute(
        sql.SQL(
            "INSERT INTO {fin} ({into}) "
            "WITH rj_wanted AS (SELECT {r_keys}, r.rj_first, r.rj_base, r.rj_live, r.rj_broken, "
            "  s.rj_id IS NOT NULL AS rj_present, "
            "  r.rj_reset IS NOT NULL OR r.rj_edit > coalesce(r.rj_reset, 0) AS rj_merged, "
            "  CASE WHEN s.rj_id IS NULL AND r.rj_edit > coalesce(r.rj_reset, 0) THEN {edited} "
            "    WHEN s.rj_id IS NOT NULL AND r.rj_reset IS NOT NULL AND r.rj_was THEN {taken} END AS rj_conflict, "
            "  r.rj_was AND r.rj_reset IS NOT NULL AND s.rj_id IS NULL AS rj_gone, "
            "  coalesce(l.rj_same, ARRAY[]::text[]) AS rj_same, {columns} "
            "  FROM {row} AS r LEFT JOIN {img} AS s ON {s_r} LEFT JOIN {fold} AS l ON {l_r}), "
            "rj_met AS (SELECT w.*, coalesce(t.rj_here, false) AS rj_here, {places}, "
            "  CASE WHEN w.rj_present AND t.rj_here THEN {mask} ELSE 0 END AS rj_diff, "
            "  w.rj_broken OR CASE WHEN w.rj_live IS NULL OR t.rj_here IS NULL "
            "    THEN w.rj_live IS NOT NULL OR t.rj_here IS NOT NULL ELSE NOT ({same}) END AS rj_lost "
            "  FROM rj_wanted AS w {live} LEFT JOIN {img} AS v ON {v_w}), "
            "rj_done AS (SELECT m.*, CASE WHEN m.rj_conflict = ANY({stay}) THEN 'N' "
            "  WHEN m.rj_present AND m.rj_here THEN CASE WHEN m.rj_diff = 0 THEN 'N' ELSE 'U' END "
            "  WHEN m.rj_present THEN 'I' WHEN m.rj_here THEN 'D' ELSE 'N' END AS rj_do FROM rj_met AS m) "
            "SELECT {d_keys}, d.rj_first, d.rj_base, d.rj_present, d.rj_merged, d.rj_gone, d.rj_same, d.rj_conflict, "
            "  d.rj_conflict, d.rj_lost, d.rj_do, d.rj_do, d.rj_diff, {d_places}, {values} FROM rj_done AS d"
        ).format(
            fin=shape.temp("fin"),
            into=shape.fin_columns(),
            row=shape.temp("row"),
            img=shape.temp("img"),
            fold=shape.temp("fold"),
            r_keys=shape.keys("r"),
            d_keys=shape.keys("d"),
            l_r=shape.same_key("l", "r"),
            s_r=shape.image("s", "r", "rj_start"),
            v_w=shape.image("v", "w", "rj_live"),
            columns=columns,
            live=shape.live_row("w"),
            places=shape.places("t"),
            mask=shape.mask("w", "t"),
            same=shape.same_row("v", "t"),
            edited=sql.Literal(EDITED),
            taken=sql.Literal(TAKEN),
            stay=sql.Literal([EDITED] if policy is Policy.KEEP_LATER else [EDITED, TAKEN]),
            d_places=comma(col("d", name) for name in shape.place_names),
            values=shape.values("d"),
        )
    )


def _differences(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """``rj_diff``: for rows with later work, per change of both kinds, one flag per column and, for additive
    columns, the difference (NULL where one side is NULL: then the last value wins)."""
    parts: list[sql.Composable] = []
    for n, column in enumerate(shape.columns):
        parts.append(
            sql.SQL("{} AS {}").format(
                column.differs(col("b", column.name), col("a", column.name)), sql.Identifier(f"rj_d{n}")
            )
        )
        if column.additive:
            parts.append(sql.SQL("{} AS {}").format(difference(column, "a", "b"), sql.Identifier(f"rj_a{n}")))
    made = conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {diff} ON COMMIT DROP AS "
            "SELECT {c_keys}, c.rj_n, c.rj_after, c.rj_sel, "
            "NOT c.rj_sel AND c.rj_n > coalesce(r.rj_reset, 0) AS rj_counts, {parts} "
            "FROM {chg} AS c JOIN {row} AS r ON {r_c} "
            "JOIN {img} AS b ON {b_c} JOIN {img} AS a ON {a_c} "
            "WHERE r.rj_edit > coalesce(r.rj_reset, 0) AND c.rj_n >= r.rj_first"
        ).format(
            diff=shape.temp("diff"),
            chg=shape.temp("chg"),
            row=shape.temp("row"),
            img=shape.temp("img"),
            c_keys=shape.keys("c"),
            r_c=shape.same_key("r", "c"),
            b_c=shape.image("b", "c", "rj_before"),
            a_c=shape.image("a", "c", "rj_after"),
            parts=comma(parts),
        )
    )
    conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("diff")))
    if made.rowcount:
        conn.execute(sql.SQL("CREATE INDEX ON {} ({}, rj_id)").format(shape.temp("img"), shape.bare_keys()))


def _deciding(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """``rj_fold``: per row and column the image whose value stands, and the sum of an additive
    column's differences. ``rj_same`` names columns on which a later value stands over a selected one."""
    lasts: list[sql.Composable] = []
    same: list[sql.Composable] = []
    for n, column in enumerate(shape.columns):
        flag, last = col("d", f"rj_d{n}"), sql.Identifier(f"rj_l{n}")
        lasts.append(
            sql.SQL("(max(ARRAY[d.rj_n, d.rj_after]) FILTER (WHERE d.rj_counts AND {flag}))[2] AS {last}").format(
                flag=flag, last=last
            )
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
        "CASE WHEN s.rj_id IS NULL OR l.{last} IS NULL THEN {start} ELSE (SELECT {there} FROM {img} AS i "
        "WHERE {i_l}) END"
    ).format(
        last=sql.Identifier(f"rj_l{n}"),
        start=col("s", column.name),
        there=col("i", column.name),
        i_l=shape.image("i", "l", f"rj_l{n}"),
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
