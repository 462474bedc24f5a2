"""What a drift detector compares: the rows under test, and the history they must not be part of.

History is bucketed by the table's business time, ends where the window under test begins and leaves out past incidents
(the excluded ranges); values also leave out every row that changed since the position, whatever its business time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from checks.delta import Twin, changed, columns, same, texts
from snapshots.model import Position
from snapshots.position import after

Range = tuple[datetime, datetime]
ROWS_UNDER_TEST = 10_000
"""Newest first; the median of more says nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Time under test; width (seconds) and number of the history's buckets before it."""

    start: datetime
    end: datetime
    bucket_s: float
    buckets: int

    @property
    def history_start(self) -> datetime:
        return self.start - timedelta(seconds=self.bucket_s * self.buckets)


def new_values(
    conn: psycopg.Connection[Any], twin: Twin, column: str, since: Position
) -> list[tuple[tuple[str, ...], float]]:
    """Key and value of live rows whose ``column`` is new since the position: inserted, or changed in it."""
    query = sql.SQL(
        "WITH first AS MATERIALIZED (SELECT DISTINCT ON ({key}) {key}, t.{column} AS rj_was, t.rj_side, t.rj_seq "
        "FROM {twin} AS t WHERE {after} AND t.rj_side IN ('o', 'n') ORDER BY {key}, t.rj_seq) "
        "SELECT {text}, r.{column}::float8 FROM {live} AS r JOIN first AS f ON {same_key} "
        "WHERE r.{column} IS NOT NULL AND (f.rj_side = 'n' OR f.rj_was IS DISTINCT FROM r.{column}) "
        "ORDER BY f.rj_seq DESC LIMIT {limit}"
    ).format(
        key=columns("t", twin.key),
        twin=twin.journal,
        after=after(since, sql.Identifier("t", "rj_xid")),
        text=texts("r", twin.key),
        column=sql.Identifier(column),
        live=twin.live,
        same_key=same("r", twin.key, "f"),
        limit=sql.Literal(ROWS_UNDER_TEST),
    )
    return [(tuple(row[0]), float(row[1])) for row in conn.execute(query)]


def past_values(
    conn: psycopg.Connection[Any],
    twin: Twin,
    *,
    column: str,
    event_time: str,
    since: Position,
    window: Window,
    excluded: Sequence[Range],
) -> list[float]:
    """The median of ``column`` in each bucket of history that holds enough rows to have one."""
    query = sql.SQL(
        "WITH changed AS MATERIALIZED ({changed}) "
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY r.{column}::float8) FROM {live} AS r "
        "WHERE r.{time} >= {first} AND r.{time} < {start} AND r.{column} IS NOT NULL AND NOT ({excluded}) "
        "AND NOT EXISTS (SELECT FROM changed AS c WHERE {same_key}) "
        "GROUP BY date_bin({width}, r.{time}, {start}) HAVING count(*) >= 3"
    ).format(
        changed=changed(twin, since),
        column=sql.Identifier(column),
        live=twin.live,
        time=sql.Identifier(event_time),
        first=sql.Literal(window.history_start),
        start=sql.Literal(window.start),
        width=sql.Literal(timedelta(seconds=window.bucket_s)),
        excluded=_within(sql.Identifier("r", event_time), excluded),
        same_key=same("r", twin.key, "c"),
    )
    return [float(row[0]) for row in conn.execute(query)]


def recent_rows(
    conn: psycopg.Connection[Any], twin: Twin, *, event_time: str, window: Window, limit: int
) -> tuple[int, list[tuple[str, ...]]]:
    """How many live rows have a business time in the window, and the keys of the last of them."""
    query = sql.SQL(
        "SELECT count(*) OVER (), {text} FROM {live} AS r WHERE r.{time} >= {start} "
        "ORDER BY r.{time} DESC LIMIT {limit}"
    ).format(
        text=texts("r", twin.key),
        live=twin.live,
        time=sql.Identifier(event_time),
        start=sql.Literal(window.start),
        limit=sql.Literal(limit),
    )
    rows = conn.execute(query).fetchall()
    return (int(rows[0][0]) if rows else 0), [tuple(row[1]) for row in rows]


def past_counts(
    conn: psycopg.Connection[Any], twin: Twin, *, event_time: str, window: Window, excluded: Sequence[Range]
) -> list[float]:
    """Rows per bucket of history, empty buckets included, from the first row there ever was."""
    query = sql.SQL(
        "WITH begun AS (SELECT min(r.{time}) AS at FROM {live} AS r WHERE r.{time} >= {first}), "
        "bucket AS (SELECT b.at FROM begun, generate_series({first}::timestamptz, {last}::timestamptz, {width}) "
        "AS b(at) WHERE b.at >= begun.at AND NOT EXISTS (SELECT FROM {ranges} WHERE x.low < b.at + {width} "
        "AND x.high > b.at)), "
        "filled AS (SELECT date_bin({width}, r.{time}, {first}) AS at, count(*) AS n FROM {live} AS r "
        "WHERE r.{time} >= {first} AND r.{time} < {start} GROUP BY 1) "
        "SELECT coalesce(f.n, 0)::float8 FROM bucket AS b LEFT JOIN filled AS f USING (at)"
    ).format(
        live=twin.live,
        time=sql.Identifier(event_time),
        first=sql.Literal(window.history_start),
        last=sql.Literal(window.start - timedelta(seconds=window.bucket_s)),
        start=sql.Literal(window.start),
        width=sql.Literal(timedelta(seconds=window.bucket_s)),
        ranges=_ranges(excluded),
    )
    return [float(row[0]) for row in conn.execute(query)]


def _within(time: sql.Composable, ranges: Sequence[Range]) -> sql.Composable:
    return sql.SQL("EXISTS (SELECT FROM {} WHERE {} BETWEEN x.low AND x.high)").format(_ranges(ranges), time)


def _ranges(ranges: Sequence[Range]) -> sql.Composed:
    lows, highs = ([r[i].isoformat() for r in ranges] for i in (0, 1))
    return sql.SQL("unnest({}::timestamptz[], {}::timestamptz[]) AS x(low, high)").format(
        sql.Literal(lows), sql.Literal(highs)
    )
