"""From journal images to one ordered chain of changes per row.

A *change* is the net of all images that one transaction left of one key, as multisets: what a nested trigger did in
between cancels out, whichever statement journaled first. Row locks keep two transactions from interleaving on one key,
so the smallest sequence number of each orders the changes. A chain is whole when every old image equals the preceding
new image and the last one the live row; otherwise the journal missed something.

Most rows of a selection have one net change and nothing later: :mod:`snapshots.undo.direct` handles those without all
this. Only keys in ``rj_key`` get a chain.

Temporary tables made here, per table: ``rj_img`` (all images of those keys since the first selected one), ``rj_chg``
(changes), ``rj_row`` (one row per key that the selection changed). The journal numbers statements, not rows: an image
is named by its key and ``rj_id``, a change by its key and ``rj_n``, which orders the changes of one key.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from snapshots.undo.shape import SELECTED, Shape


def link(conn: psycopg.Connection[Any], shape: Shape) -> int:
    """Build the chains of the rows in ``rj_key`` that the selection changed; returns how many rows that are."""
    read_images(conn, shape)
    net_changes(conn, shape)
    return _rows(conn, shape)


def all_keys(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """``rj_key`` with every key that a selected transaction touched."""
    conn.execute(
        sql.SQL("CREATE TEMP TABLE {key} ON COMMIT DROP AS SELECT DISTINCT {keys} FROM {images} AND {selected}").format(
            key=shape.temp("key"),
            keys=shape.keys_from("t"),
            images=shape.images("t"),
            selected=shape.selected("t"),
        )
    )
    conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("key")))


def read_images(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """``rj_img``: every image, by whomever, of each key in ``rj_key`` since its first selected one."""
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {img} ON COMMIT DROP AS "
            "WITH rj_firsts AS (SELECT {keys}, min(t.rj_seq) AS rj_first FROM {images} "
            "  AND {selected} AND ({group}) IN (SELECT {own} FROM {key} AS k) GROUP BY {group}) "
            "SELECT t.rj_seq AS rj_id, t.rj_xid, t.rj_side, {digest} AS rj_h, {values} "
            "FROM {twin} AS t JOIN {key} AS k ON {k_t} JOIN rj_firsts AS f ON {f_k} "
            "WHERE t.rj_side IN ('o', 'n') AND t.rj_seq >= f.rj_first AND t.rj_seq >= {low}"
        ).format(
            img=shape.temp("img"),
            key=shape.temp("key"),
            twin=shape.twin,
            images=shape.images("t"),
            selected=shape.selected("t"),
            keys=shape.keys_from("t"),
            group=shape.own_keys("t"),
            own=shape.keys("k"),
            digest=shape.digest("t"),
            values=shape.values("t"),
            k_t=shape.same_key("k", "t", row=True),
            f_k=shape.same_key("f", "k"),
            low=sql.Literal(shape.low),
        )
    )
    conn.execute(sql.SQL("ANALYZE {} (rj_id, rj_xid, {})").format(shape.temp("img"), shape.bare_keys()))


def net_changes(conn: psycopg.Connection[Any], shape: Shape) -> None:
    """``rj_chg``: per key and transaction what is left of its images after equal old and new ones cancelled out.
    ``rj_before`` and ``rj_after`` name images; NULL means the row was absent. ``rj_split``: more than one image is
    left on a side, so one in between was not journaled."""
    selected: sql.Composable = sql.SQL("x.xid IS NOT NULL")
    images: sql.Composable = sql.SQL("")
    if shape.where:
        selected = sql.SQL(
            "x.xid IS NOT NULL AND (x.cancelled OR b.rj_id IS NOT NULL AND {} OR a.rj_id IS NOT NULL AND {})"
        ).format(shape.holds("b"), shape.holds("a"))
        images = sql.SQL("LEFT JOIN {img} AS b ON {b_n} LEFT JOIN {img} AS a ON {a_n}").format(
            img=shape.temp("img"),
            b_n=shape.image("b", "n", "rj_before"),
            a_n=shape.image("a", "n", "rj_after"),
        )
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {chg} ON COMMIT DROP AS "
            "WITH rj_sides AS (SELECT {keys}, i.rj_xid, i.rj_h, min(i.rj_id) AS rj_n, "
            "  sum(CASE i.rj_side WHEN 'n' THEN 1 ELSE -1 END) AS rj_d, "
            "  min(i.rj_id) FILTER (WHERE i.rj_side = 'o') AS rj_o, "
            "  min(i.rj_id) FILTER (WHERE i.rj_side = 'n') AS rj_w "
            "  FROM {img} AS i GROUP BY {group}, i.rj_xid, i.rj_h), "
            "rj_net AS (SELECT {side_keys}, s.rj_xid, min(s.rj_n) AS rj_n, "
            "  min(s.rj_o) FILTER (WHERE s.rj_d < 0) AS rj_before, min(s.rj_w) FILTER (WHERE s.rj_d > 0) AS rj_after, "
            "  min(s.rj_h) FILTER (WHERE s.rj_d < 0) AS rj_before_h, "
            "  min(s.rj_h) FILTER (WHERE s.rj_d > 0) AS rj_after_h, "
            "  coalesce(sum(abs(s.rj_d)) FILTER (WHERE s.rj_d < 0), 0) > 1 "
            "  OR coalesce(sum(s.rj_d) FILTER (WHERE s.rj_d > 0), 0) > 1 AS rj_split "
            "  FROM rj_sides AS s GROUP BY {side_keys}, s.rj_xid HAVING bool_or(s.rj_d <> 0)) "
            "SELECT n.*, {selected} AS rj_sel FROM rj_net AS n LEFT JOIN {sel} AS x ON x.xid = n.rj_xid {images}"
        ).format(
            chg=shape.temp("chg"),
            img=shape.temp("img"),
            sel=SELECTED,
            keys=shape.keys_from("i"),
            group=shape.own_keys("i"),
            side_keys=shape.keys("s"),
            selected=selected,
            images=images,
        )
    )
    conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("chg")))


def _rows(conn: psycopg.Connection[Any], shape: Shape) -> int:
    """``rj_row``. A *reset* is a change by others that made or removed the row: what came before it is history.
    ``rj_start`` is the image that later edits are folded over (NULL: absent), ``rj_live`` the chain's last image,
    ``rj_was`` whether the row existed, selection undone, just before the reset."""
    made = conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {row} ON COMMIT DROP AS "
            "WITH rj_firsts AS (SELECT {c_keys}, min(c.rj_n) AS rj_first FROM {chg} AS c WHERE c.rj_sel "
            "  GROUP BY {c_keys}), "
            "rj_links AS (SELECT c.*, f.rj_first, row_number() OVER w AS rj_pos, lag(c.rj_after_h) OVER w AS rj_prev_h "
            "  FROM {chg} AS c JOIN rj_firsts AS f ON {f_c} AND c.rj_n >= f.rj_first "
            "  WINDOW w AS (PARTITION BY {c_keys} ORDER BY c.rj_n)), "
            "rj_resets AS (SELECT {c_keys}, c.rj_n, c.rj_after, lag(c.rj_after IS NOT NULL) OVER "
            "  (PARTITION BY {c_keys} ORDER BY c.rj_n) AS rj_was FROM rj_links AS c "
            "  WHERE NOT c.rj_sel AND (c.rj_before IS NULL OR c.rj_after IS NULL)), "
            "rj_rows AS (SELECT {c_keys}, min(c.rj_first) AS rj_first, max(c.rj_n) AS rj_last, "
            "  max(c.rj_before) FILTER (WHERE c.rj_n = c.rj_first) AS rj_base, "
            "  max(c.rj_n) FILTER (WHERE NOT c.rj_sel AND (c.rj_before IS NULL OR c.rj_after IS NULL)) AS rj_reset, "
            "  coalesce(max(c.rj_n) FILTER (WHERE NOT c.rj_sel AND c.rj_before IS NOT NULL "
            "    AND c.rj_after IS NOT NULL), 0) AS rj_edit, "
            "  bool_or(NOT c.rj_sel) AS rj_later, "
            "  bool_or(c.rj_split OR (c.rj_pos > 1 AND c.rj_prev_h IS DISTINCT FROM c.rj_before_h)) AS rj_broken "
            "  FROM rj_links AS c GROUP BY {c_keys}) "
            "SELECT r.*, CASE WHEN r.rj_reset IS NULL THEN r.rj_base ELSE e.rj_after END AS rj_start, "
            "  coalesce(e.rj_was, r.rj_base IS NOT NULL) AS rj_was, l.rj_after AS rj_live "
            "FROM rj_rows AS r LEFT JOIN rj_resets AS e ON e.rj_n = r.rj_reset AND {e_r} "
            "JOIN {chg} AS l ON l.rj_n = r.rj_last AND {l_r}"
        ).format(
            row=shape.temp("row"),
            chg=shape.temp("chg"),
            c_keys=shape.keys("c"),
            f_c=shape.same_key("f", "c"),
            e_r=shape.same_key("e", "r"),
            l_r=shape.same_key("l", "r"),
        )
    )
    conn.execute(sql.SQL("ANALYZE {}").format(shape.temp("row")))
    return made.rowcount
