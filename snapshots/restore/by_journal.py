"""What differs from an earlier position, told by the journal alone: its cost is that of the change.

The row as it was is what is left of all images since, old minus new as multisets, key by key: whatever happened in
between cancels out, in whatever order a nested trigger made its statements journal. What is left on the other side must
be the live row; where it is not, the journal missed something and the chain counts as broken. The table itself is not
read to find this out: a plan compares with it (:func:`unlike`), a restore compares what it overwrote (:func:`written`).

Temporary tables: ``img`` (images since the target), ``key`` (per key the images that are left), ``want``.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

from snapshots.model import Position
from snapshots.position import after
from snapshots.restore.frame import Frame, measure, names, want


def compute(conn: Connection[Any], frame: Frame, target: Position) -> None:
    """Fill ``want`` from the images after ``target``. Reads the table only by key. Role: reads table and journal."""
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(frame.temp("img")))
    conn.execute(sql.SQL("CREATE TEMP TABLE {} AS {}").format(frame.temp("img"), _images(frame, target)))
    want(conn, frame)
    _decide(conn, frame, sql.SQL("true"))
    measure(conn, frame)


def catch_up(conn: Connection[Any], frame: Frame, since: Position) -> int:
    """Take in what was journaled after ``since``, the position of :func:`compute`; returns the images there were.

    Call it under the lock: nothing more can come then."""
    if not _any(conn, frame, since):
        return 0
    moved = frame.temp("moved")
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(moved))
    made = conn.execute(sql.SQL("CREATE TEMP TABLE {} AS {}").format(moved, _images(frame, since))).rowcount
    conn.execute(sql.SQL("INSERT INTO {} SELECT * FROM {}").format(frame.temp("img"), moved))
    among = sql.SQL("({}) IN (SELECT {} FROM {} m)")
    conn.execute(
        sql.SQL("DELETE FROM {} w WHERE {}").format(
            frame.temp("want"), among.format(frame.keys("w"), frame.keys("m"), moved)
        )
    )
    _decide(conn, frame, among.format(frame.keys("i"), frame.keys("m"), moved))
    return made


def unlike(conn: Connection[Any], frame: Frame) -> int:
    """Planned rows whose live row is not the one that the journal saw last: it missed changes of them."""
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FROM {want} w LEFT JOIN {img} a ON a.ctid = w.rj_after LEFT JOIN {live} l ON {same}"
            " WHERE (a.ctid IS NULL) <> (l.ctid IS NULL)"
            " OR (a.ctid IS NOT NULL AND record_image_ne({after}, {now}))"
        ).format(
            want=frame.temp("want"),
            img=frame.temp("img"),
            live=frame.live,
            same=frame.same_key("l", "w"),
            after=frame.image("a"),
            now=frame.image("l"),
        )
    ).fetchone()
    return int(row[0]) if row else 0


def written(conn: Connection[Any], frame: Frame) -> tuple[int, int, int]:
    """What the journal of this transaction's own writes shows: new images, old images, and how many of both are right.
    Right is a new image that is the wanted row, and an old one that is the row its chain ended in."""
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE t.rj_side = 'n'), count(*) FILTER (WHERE t.rj_side = 'o'),"
            " count(*) FILTER (WHERE CASE t.rj_side WHEN 'n' THEN w.rj_do <> 'D' AND record_image_eq({new}, {wanted})"
            "  ELSE a.ctid IS NOT NULL AND record_image_eq({new}, {after}) END)"
            " FROM ({own}) t LEFT JOIN {want} w ON {same} LEFT JOIN {img} a ON a.ctid = w.rj_after"
        ).format(
            new=frame.image("t"),
            wanted=frame.image("w"),
            after=frame.image("a"),
            own=_select(frame, sql.SQL("t.rj_xid = pg_current_xact_id()")),
            want=frame.temp("want"),
            same=frame.same_key("w", "t"),
            img=frame.temp("img"),
        )
    ).fetchone()
    return (int(row[0]), int(row[1]), int(row[2])) if row else (0, 0, 0)


def beyond(conn: Connection[Any], frame: Frame) -> int:
    """Rows that this transaction changed although nothing was planned for them: a trigger's doing."""
    row = conn.execute(
        sql.SQL(
            "SELECT count(DISTINCT ({keys})) FROM {twin} t WHERE t.rj_xid = pg_current_xact_id()"
            " AND NOT EXISTS (SELECT FROM {want} w WHERE {same})"
        ).format(keys=frame.keys("t"), twin=frame.twin, want=frame.temp("want"), same=frame.same_key("w", "t"))
    ).fetchone()
    return int(row[0]) if row else 0


def _any(conn: Connection[Any], frame: Frame, since: Position) -> bool:
    row = conn.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {} t WHERE {})").format(
            frame.twin, after(since, sql.Identifier("t", "rj_xid"))
        )
    ).fetchone()
    return bool(row and row[0])


def _images(frame: Frame, since: Position) -> sql.Composed:
    return _select(frame, after(since, sql.Identifier("t", "rj_xid")))


def _select(frame: Frame, condition: sql.Composable) -> sql.Composed:
    types = {c.name: c.type for c in frame.columns}
    columns = sql.SQL(", ").join(
        sql.SQL("t.{0}::{1} AS {0}").format(sql.Identifier(c), sql.SQL(types[c]))
        if c in frame.casts
        else sql.SQL("t.{}").format(sql.Identifier(c))
        for c in types
    )
    return sql.SQL("SELECT t.rj_side, {} FROM {} t WHERE t.rj_side IN ('o', 'n') AND {}").format(
        columns, frame.twin, condition
    )


def _decide(conn: Connection[Any], frame: Frame, which: sql.Composable) -> None:
    """Add to ``want`` what it takes for the keys whose images ``i`` satisfy ``which``."""
    key, img = frame.temp("key"), frame.temp("img")
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(key))
    renamed = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(sql.Identifier("i", c), sql.Identifier(f"rj_k{n}")) for n, c in enumerate(frame.key)
    )
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE {key} AS SELECT {keys}, min(i.ctid) FILTER (WHERE i.rj_side = 'o') AS rj_before,"
            " min(i.ctid) FILTER (WHERE i.rj_side = 'n') AS rj_after,"
            " count(*) FILTER (WHERE i.rj_side = 'o') > 1 OR count(*) FILTER (WHERE i.rj_side = 'n') > 1 AS rj_many,"
            " false AS rj_broken FROM {img} i WHERE {which} GROUP BY {group}"
        ).format(key=key, keys=renamed, img=img, which=which, group=frame.keys("i"))
    )
    conn.execute(sql.SQL("ANALYZE {} (rj_before, rj_after, rj_many)").format(key))
    _settle_many(conn, frame)
    conn.execute(
        sql.SQL(
            "INSERT INTO {want} (rj_do, rj_after, {columns}) SELECT CASE WHEN k.rj_broken THEN 'X'"
            " WHEN b.ctid IS NULL THEN 'D' WHEN a.ctid IS NULL THEN 'I' ELSE 'U' END::\"char\", a.ctid, {wanted}"
            " FROM {key} k LEFT JOIN {img} b ON b.ctid = k.rj_before AND b.rj_side = 'o'"
            " LEFT JOIN {img} a ON a.ctid = k.rj_after AND a.rj_side = 'n'"
            " WHERE k.rj_broken OR ((b.ctid IS NOT NULL OR a.ctid IS NOT NULL)"
            "  AND (b.ctid IS NULL OR a.ctid IS NULL OR record_image_ne({before}, {after})))"
            " ORDER BY coalesce(k.rj_after, k.rj_before)"
        ).format(
            want=frame.temp("want"),
            columns=frame.values(),
            before=frame.image("b"),
            after=frame.image("a"),
            wanted=sql.SQL(", ").join(
                # Of a row to be deleted the row as it is: to find it again, and for whoever looks.
                sql.SQL("CASE WHEN b.ctid IS NULL THEN a.{0} ELSE b.{0} END").format(sql.Identifier(c.name))
                for c in frame.columns
            ),
            key=key,
            img=img,
        )
    )


def _settle_many(conn: Connection[Any], frame: Frame) -> None:
    """Net the images of keys that have more than one of a side. Equal images are told by the exact text of all their
    columns, under the settings of the transaction."""
    key = frame.temp("key")
    many = conn.execute(sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE rj_many)").format(key)).fetchone()
    if not many or not many[0]:
        return
    numbered = names(f"rj_k{n}" for n in range(len(frame.key)))
    found = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier("i", c), sql.Identifier("k", f"rj_k{n}"))
        for n, c in enumerate(frame.key)
    )
    again = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier("k", f"rj_k{n}"), sql.Identifier("r", f"rj_k{n}"))
        for n in range(len(frame.key))
    )
    conn.execute(
        sql.SQL(
            "WITH sides AS (SELECT {k}, md5({image}::text),"
            "  count(*) FILTER (WHERE i.rj_side = 'n') - count(*) FILTER (WHERE i.rj_side = 'o') AS d,"
            "  min(i.ctid) FILTER (WHERE i.rj_side = 'o') AS one_o, min(i.ctid) FILTER (WHERE i.rj_side = 'n') AS one_n"
            "  FROM {key} k JOIN {img} i ON {found} WHERE k.rj_many GROUP BY {k}, {width}),"
            " remains AS (SELECT {numbered}, min(one_o) FILTER (WHERE d < 0) AS before,"
            "  min(one_n) FILTER (WHERE d > 0) AS after,"
            "  coalesce(sum(-d) FILTER (WHERE d < 0), 0) > 1 OR coalesce(sum(d) FILTER (WHERE d > 0), 0) > 1 AS broken"
            "  FROM sides GROUP BY {numbered})"
            " UPDATE {key} k SET rj_before = r.before, rj_after = r.after, rj_broken = r.broken FROM remains r"
            " WHERE k.rj_many AND {again}"
        ).format(
            k=names((f"rj_k{n}" for n in range(len(frame.key))), "k"),
            image=frame.image("i"),
            key=key,
            img=frame.temp("img"),
            found=found,
            width=sql.SQL(str(len(frame.key) + 1)),
            numbered=numbered,
            again=again,
        )
    )
