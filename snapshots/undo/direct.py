"""The rows of a selection that need no chain: one selected change, nothing later. Usually nearly all of them.

Such a row has at most one old and one new image: the old one is what is wanted, the new one must be the live row. What
is left (several images, transactions, or later work on the row) goes the long way: :mod:`snapshots.undo.chain`, then
:mod:`snapshots.undo.merge`.

``rj_key`` names those other keys. ``rj_fin`` gets one row per selected key from both ways:

- ``rj_first``, the first selected image; ``rj_base``, the image before it (NULL: there was no row; ``DIRECT``: it is
  the wanted row);
- ``rj_present`` (the row is wanted at all), ``rj_merged`` (later work is kept on it), ``rj_gone`` (others deleted it
  later), ``rj_same`` (columns on which a later value stands), ``rj_broken`` (the journal missed something);
- ``rj_kind``, a conflict found here, and ``rj_conflict``, the same or one found later;
- ``rj_want`` (``D``, ``U``, ``I``, or ``N`` for nothing) and ``rj_do``, the same unless a conflict forbids it;
- ``rj_diff``, which columns differ, as bits; the live row's place and watched values; the wanted values.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from snapshots.undo.shape import Shape, col, comma, same_image

DIRECT = -1
"""``rj_base`` of the rows that came this way."""


def other_keys(conn: psycopg.Connection[Any], shape: Shape) -> int:
    """Make ``rj_key``; returns how many rows go the long way."""
    mine = sql.SQL("{} AND {}").format(shape.images("t"), shape.selected("t"))
    keys = shape.keys_from("t")
    found = sql.SQL("SELECT {} FROM {} AND NOT ({}) AND ({}) IN (SELECT {} FROM {} AND {})").format(
        *(keys, shape.images("t"), shape.selected("t"), shape.own_keys("t")),
        *(shape.own_keys("u"), shape.images("u"), shape.selected("u")),
    )
    if shape.one_each:
        found = sql.SQL("SELECT DISTINCT * FROM ({}) AS x").format(found)
    else:
        found += sql.SQL(
            " UNION SELECT {} FROM {} GROUP BY {} HAVING count(*) FILTER (WHERE t.rj_side = 'o') > 1 "
            "OR count(*) FILTER (WHERE t.rj_side = 'n') > 1 OR min(t.rj_xid) <> max(t.rj_xid)"
        ).format(keys, mine, shape.own_keys("t"))
    made = conn.execute(sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS {}").format(shape.temp("key"), found))
    conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("key")))
    return made.rowcount


def fill(conn: psycopg.Connection[Any], shape: Shape, others: int) -> None:
    """Make ``rj_fin`` with the rows that are not among the ``others`` keys of ``rj_key``."""
    new = comma(sql.SQL("n.{} AS {}").format(sql.Identifier(c), _image(n)) for n, c in enumerate(shape.names))
    keys = comma(
        sql.SQL("coalesce(o.{0}, n.{0}) AS {1}").format(sql.Identifier(name), sql.Identifier(f"rj_k{n}"))
        for n, name in enumerate(shape.key)
    )
    chosen: sql.Composable = sql.SQL("true")
    if shape.where:
        chosen = sql.SQL("({} OR {} OR {} OR {})").format(
            shape.cancelled("o"), shape.cancelled("n"), shape.holds("o"), shape.holds("n")
        )
    if others:
        chosen += sql.SQL(" AND NOT EXISTS (SELECT FROM {} AS k WHERE {})").format(
            shape.temp("key"),
            sql.SQL(" AND ").join(
                sql.SQL("{} = coalesce({}, {})").format(col("k", f"rj_k{n}"), col("o", name), col("n", name))
                for n, name in enumerate(shape.key)
            ),
        )
    there = sql.SQL("CASE WHEN x.rj_new IS NULL OR t.rj_here IS NULL THEN x.rj_new IS NULL AND t.rj_here IS NULL ")
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {fin} ON COMMIT DROP AS "
            "WITH rj_pairs AS (SELECT {keys}, o.rj_seq AS rj_old, n.rj_seq AS rj_new, {old}, {new} "
            "  FROM (SELECT t.* FROM {images} AND t.rj_side = 'o' AND {selected}) AS o "
            "  FULL JOIN (SELECT t.* FROM {images} AND t.rj_side = 'n' AND {selected}) AS n ON {o_n} WHERE {chosen} "
            "  {order}), "
            "rj_met AS (SELECT x.*, {places}, "
            "  {there} ELSE {same} END AS rj_kept, "
            "  CASE WHEN x.rj_old IS NULL THEN 'D' WHEN x.rj_new IS NULL THEN 'I' END AS rj_one, "
            "  CASE WHEN x.rj_old IS NOT NULL AND t.rj_here THEN {mask} ELSE 0 END AS rj_diff "
            "  FROM rj_pairs AS x {live}), "
            "rj_done AS (SELECT m.*, coalesce(m.rj_one, CASE WHEN m.rj_diff = 0 THEN 'N' ELSE 'U' END) AS rj_do "
            "  FROM rj_met AS m) "
            "SELECT {d_keys}, coalesce(least(d.rj_old, d.rj_new), 0) AS rj_first, {direct}::bigint AS rj_base, "
            "  d.rj_old IS NOT NULL AS rj_present, false AS rj_merged, false AS rj_gone, ARRAY[]::text[] AS rj_same, "
            "  NULL::text AS rj_conflict, NULL::text AS rj_kind, NOT d.rj_kept AND d.rj_do <> 'N' AS rj_broken, "
            "  d.rj_do, d.rj_do AS rj_want, d.rj_diff, {d_places}, {values} FROM rj_done AS d"
        ).format(
            fin=shape.temp("fin"),
            direct=sql.Literal(DIRECT),
            keys=keys,
            old=comma(sql.SQL("o.{0} AS {0}").format(sql.Identifier(name)) for name in shape.names),
            new=new,
            images=shape.images("t"),
            selected=shape.selected("t"),
            o_n=sql.SQL(" AND ").join(sql.SQL("o.{0} = n.{0}").format(sql.Identifier(name)) for name in shape.key),
            chosen=chosen,
            order=_in_order(shape),
            places=shape.places("t"),
            there=there,
            same=_same_as_new(shape),
            mask=shape.mask("x", "t"),
            live=shape.live_row("x"),
            d_keys=shape.keys("d"),
            d_places=comma(col("d", name) for name in shape.place_names),
            values=shape.values("d"),
        )
    )


def _in_order(shape: Shape) -> sql.Composed:
    """Rows looked up one by one are looked up, and later written, in the order of their index: each page once."""
    if not (shape.near and shape.key_unique):
        return sql.Composed([])
    return sql.SQL("ORDER BY {}").format(comma(sql.Identifier(f"rj_k{n}") for n in range(len(shape.key))))


def _image(n: int) -> sql.Identifier:
    return sql.Identifier(f"rj_n{n}")


def _same_as_new(shape: Shape) -> sql.Composed:
    return same_image([col("x", f"rj_n{n}") for n in range(len(shape.names))], [col("t", c) for c in shape.names])
