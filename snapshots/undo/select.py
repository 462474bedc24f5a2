"""The selection of an undo: from runs, roles, times and tables to the set of transactions, and what is wrong with it.

A transaction is selected as a whole, by its number, the tag or role of one of its writes, or when it committed; tables
and conditions then limit what of it is undone (``Shape.where``, and which shapes are computed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from snapshots import position
from snapshots.errors import Incomplete
from snapshots.journal.shape import exists, stored
from snapshots.model import Position, UndoSpec
from snapshots.undo.shape import SELECTED, Shape

MIXED_LISTED = 5

NAMED = 1_000
"""From so many transactions on, they are joined instead of named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """``first_at`` and ``first_xid`` are of the earliest selected write, ``None`` when nothing was selected."""

    first_at: datetime | None
    first_xid: int | None
    tables: tuple[str, ...]
    """Journaled tables with a selected write, sorted; of the tables that the selection is limited to."""
    lows: Mapping[str, int]
    """The first selected image of each table."""
    images: Mapping[str, int]
    """How many selected images each table has."""
    xids: Mapping[str, tuple[int, ...]]
    """The selected transactions that wrote to each table; empty from ``NAMED`` on."""
    one_each: frozenset[str]
    """Tables to which one selected transaction wrote, with at most one statement that left old images and one that
    left new ones: the journal's numbers say so. No row can then have two of a kind."""
    problems: tuple[str, ...]

    def of(self, shape: Shape) -> Shape:
        """``shape`` knowing which of its images are selected."""
        return replace(
            shape,
            low=self.lows[shape.name],
            xids=self.xids[shape.name],
            one_each=shape.key_unique and shape.name in self.one_each,
        )


def require_journal(conn: psycopg.Connection[Any]) -> None:
    """Raise :class:`Incomplete` where no journal is installed."""
    if not exists(conn):
        raise Incomplete(
            f"database {conn.info.dbname} has no journal: nobody knows what the selected runs wrote; "
            "compare with a recovery point, and install the journal"
        )


def select(conn: psycopg.Connection[Any], spec: UndoSpec) -> Selection:
    """Fill ``pg_temp.rj_sel`` (dropped at the end of the transaction) with the selected transactions."""
    require_journal(conn)
    for limit in (spec.since, spec.until):
        if limit is not None:
            position.require_same_server(conn, limit)
    twins = {table.name: sql.Identifier("reinstate", table.twin) for table in stored(conn).values()}
    conn.execute(
        sql.SQL("CREATE TEMP TABLE {} (xid xid8 PRIMARY KEY, tagged bool, cancelled bool) ON COMMIT DROP").format(
            SELECTED
        )
    )
    conn.execute(sql.SQL("INSERT INTO {} {}").format(SELECTED, _found(spec, twins)))
    if spec.cancelled:
        conn.execute(
            sql.SQL(
                "INSERT INTO {} SELECT x::xid8, false, true FROM unnest({}::text[]) AS u(x) "
                "ON CONFLICT (xid) DO UPDATE SET cancelled = true"
            ).format(SELECTED, sql.Literal([str(xid) for xid in spec.cancelled]))
        )
    conn.execute(sql.SQL("ANALYZE {}").format(SELECTED))
    return _describe(conn, spec, twins)


def grown(conn: psycopg.Connection[Any], spec: UndoSpec, seen: Position) -> bool:
    """Whether transactions that ``seen`` did not show would be selected now, or a selected one wrote more."""
    twins = {table.name: sql.Identifier("reinstate", table.twin) for table in stored(conn).values()}
    new = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT t.rj_xid AS xid FROM {} AS t WHERE {}").format(
            twin, position.after(seen, sql.Identifier("t", "rj_xid"))
        )
        for twin in twins.values()
    )
    row = conn.execute(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM ({}) AS n "
            "WHERE n.xid IN (SELECT xid FROM {}) OR n.xid IN (SELECT xid FROM ({}) AS f))"
        ).format(new, SELECTED, _found(spec, twins, after=seen))
    ).fetchone()
    return bool(row and row[0])


def _found(spec: UndoSpec, twins: Mapping[str, sql.Identifier], *, after: Position | None = None) -> sql.Composed:
    """Query for ``(xid, tagged, cancelled)`` of what meets every part of the selection, each transaction once."""
    if not spec.selects:
        return sql.SQL("SELECT '0'::xid8 AS xid, false AS tagged, false AS cancelled WHERE false").format()
    sources: list[sql.Composable] = []
    listed = sorted({xid for run in spec.runs for xid in run.xids})
    if spec.runs:
        if listed and after is None:
            sources.append(_numbers(listed))
        sources += [
            _tagged(spec, twin, after) for twin in twins.values() if any(run.run is not None for run in spec.runs)
        ]
    elif spec.xids:
        sources.append(_numbers(spec.xids))
    else:
        limited = spec.limited_to
        sources += [
            sql.SQL("SELECT DISTINCT t.rj_xid AS xid, false AS tagged FROM {} AS t WHERE {}").format(
                twin, _and([_by_actor(spec, "t"), *_when(spec, "t"), *_moved(after, "t")])
            )
            for name, twin in twins.items()
            if not limited or name in limited
        ]
    conditions: list[sql.Composable] = [*_when(spec, "x", "xid")]
    if spec.runs and spec.xids:
        conditions.append(sql.SQL("x.xid = ANY ({}::text[]::xid8[])").format(_texts(spec.xids)))
    if spec.actors and (spec.runs or spec.xids):
        conditions.append(
            sql.SQL("({})").format(
                sql.SQL(" OR ").join(
                    sql.SQL("EXISTS (SELECT FROM {} AS t WHERE t.rj_xid = x.xid AND {})").format(
                        twin, _by_actor(spec, "t")
                    )
                    for twin in twins.values()
                )
            )
        )
    if not sources:
        return sql.SQL("SELECT '0'::xid8 AS xid, false AS tagged, false AS cancelled WHERE false").format()
    return sql.SQL(
        "SELECT x.xid, bool_or(x.tagged) AS tagged, false AS cancelled FROM ({}) AS x WHERE {} GROUP BY x.xid"
    ).format(sql.SQL(" UNION ALL ").join(sources), _and(conditions))


def _numbers(xids: Sequence[int]) -> sql.Composed:
    return sql.SQL("SELECT x::xid8 AS xid, false AS tagged FROM unnest({}::text[]) AS u(x)").format(_texts(xids))


def _tagged(spec: UndoSpec, twin: sql.Identifier, after: Position | None) -> sql.Composed:
    return sql.SQL("SELECT DISTINCT t.rj_xid AS xid, true AS tagged FROM {} AS t WHERE {}").format(
        twin, _and([_by_tag(spec, "t"), *_when(spec, "t"), *_moved(after, "t")])
    )


def _by_tag(spec: UndoSpec, alias: str) -> sql.Composed:
    """The image carries the tag of a selected run."""
    tags = sorted({(run.actor, run.run) for run in spec.runs if run.run is not None})
    return sql.SQL(
        "EXISTS (SELECT FROM unnest({}::text[], {}::text[]) AS g(actor, run) "
        "WHERE {} = g.run AND g.actor IN ('', {}::text))"
    ).format(
        sql.Literal([actor for actor, _ in tags]),
        sql.Literal([run for _, run in tags]),
        sql.Identifier(alias, "rj_run"),
        sql.Identifier(alias, "rj_actor"),
    )


def _by_actor(spec: UndoSpec, alias: str) -> sql.Composable:
    if not spec.actors:
        return sql.SQL("true")
    return sql.SQL("{} = ANY ({}::text[])").format(sql.Identifier(alias, "rj_actor"), sql.Literal(list(spec.actors)))


def _when(spec: UndoSpec, alias: str, column: str = "rj_xid") -> list[sql.Composable]:
    field = sql.Identifier(alias, column)
    found: list[sql.Composable] = []
    if spec.since is not None:
        found.append(position.after(spec.since, field))
    if spec.until is not None:
        found.append(position.visible(spec.until, field))
    return found


def _moved(after: Position | None, alias: str) -> list[sql.Composable]:
    return [position.after(after, sql.Identifier(alias, "rj_xid"))] if after is not None else []


def _and(conditions: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(" AND ").join(conditions or [sql.SQL("true")])


def _texts(xids: Sequence[int]) -> sql.Literal:
    return sql.Literal([str(xid) for xid in xids])


def _describe(conn: psycopg.Connection[Any], spec: UndoSpec, twins: Mapping[str, sql.Identifier]) -> Selection:
    """What the selected transactions wrote, table by table, and what speaks against selecting them."""
    listed = sorted({*spec.xids, *(xid for run in spec.runs for xid in run.xids)})
    first: tuple[datetime, int] | None = None
    tables: list[str] = []
    lows: dict[str, int] = {}
    images: dict[str, int] = {}
    xids: dict[str, tuple[int, ...]] = {}
    one_each: set[str] = set()
    missing = set(listed)
    problems: list[str] = []
    limited = spec.limited_to
    covered = {table.name for table in spec.tables}
    problems.extend(
        f"table {name} is not one of the app's: correct the selection" for name in limited if name not in covered
    )
    for name, twin in twins.items():
        rows = conn.execute(
            sql.SQL(
                "SELECT t.rj_xid::text::bigint, bool_or(s.tagged), min(t.rj_at), min(t.rj_seq), count(*), t.rj_run, "
                "t.rj_actor::text, min(t.rj_seq) FILTER (WHERE t.rj_side = 'o'), "
                "max(t.rj_seq) FILTER (WHERE t.rj_side = 'o'), min(t.rj_seq) FILTER (WHERE t.rj_side = 'n'), "
                "max(t.rj_seq) FILTER (WHERE t.rj_side = 'n') FROM {} AS t "
                "JOIN {} AS s ON s.xid = t.rj_xid GROUP BY t.rj_xid, t.rj_run, t.rj_actor"
            ).format(twin, SELECTED)
        ).fetchall()
        numbers = {row[0] for row in rows}
        missing -= numbers
        if not rows or (limited and name not in limited):
            continue
        tables.append(name)
        earliest = min(row[2] for row in rows), min(row[0] for row in rows)
        first = min(first or earliest, earliest)
        lows[name] = min(row[3] for row in rows)
        xids[name] = tuple(sorted(numbers)) if len(numbers) < NAMED else ()
        if len(rows) == 1 and rows[0][7] == rows[0][8] and rows[0][9] == rows[0][10]:
            one_each.add(name)
        images[name] = sum(row[4] for row in rows)
        problems.extend(_mixed(spec, name, rows))
    if missing:
        problems.extend(_unknown(conn, sorted(missing)))
    problems.extend(
        f"the selection also wrote to {name}, which is not part of this undo: add the table"
        for name in tables
        if name not in covered
    )
    return Selection(
        first_at=first[0] if first else None,
        first_xid=first[1] if first else None,
        tables=tuple(tables),
        lows=lows,
        images=images,
        xids=xids,
        one_each=frozenset(one_each),
        problems=tuple(dict.fromkeys(problems)),
    )


def _unknown(conn: psycopg.Connection[Any], xids: Sequence[int]) -> list[str]:
    """Listed transactions without a write in the journal, unless another part of the selection left them out."""
    rows = conn.execute(
        sql.SQL("SELECT s.xid::text FROM {} AS s WHERE s.xid = ANY ({}::text[]::xid8[]) ORDER BY s.xid").format(
            SELECTED, _texts(xids)
        )
    ).fetchall()
    return [
        f"transaction {xid} is not in the journal (it wrote before the journal was installed, or was pruned): "
        "compare with a recovery point"
        for (xid,) in rows
    ]


def _mixed(spec: UndoSpec, name: str, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Runs, not selected, that wrote in a transaction selected for its tag: undoing it would undo their work.
    Transactions selected by number are meant as they are."""
    tags = {(run.actor, run.run) for run in spec.runs}
    others = sorted(
        {(row[6], row[5]) for row in rows if row[1] and row[5] is not None}
        - {(actor, run) for _, _, _, _, _, run, actor, *_ in rows if (actor, run) in tags or ("", run) in tags}
    )
    return [
        f"run {run} of {actor} shares a transaction on {name} with a selected run: select it too, or undo neither"
        for actor, run in others[:MIXED_LISTED]
    ]
