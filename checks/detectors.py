"""The watcher's eyes: each declared detector over what changed since a position, as findings.

A detector reads the journal's delta, joins it with the live rows and reports only what is wrong *now*: what was
repaired or removed meanwhile is no finding. So the cost follows the change (a duplicate's business key and a parent's
key should be indexed, as their workflows need anyway).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from catalog.models import App, Detector
from checks import history, row_rules
from checks.delta import Twin, twin
from checks.drift import baseline, drifted, median_error
from checks.errors import DetectorBroken
from checks.history import Range, Window
from checks.model import Finding
from snapshots.model import Position
from snapshots.position import require_same_server

KEYS_PER_FINDING = 1_000
MIN_WINDOW_S = 60.0
"""A volume is counted over at least this long."""
MIN_VALUES = 5
"""A value drift is judged on at least this many new values."""


def run(
    conn: psycopg.Connection[Any],
    app: App,
    *,
    since: Position,
    now: datetime | None = None,
    excluded: Sequence[Range] = (),
    only: Sequence[str] | None = None,
) -> list[Finding]:
    """Findings of the app's detectors (those named in ``only``) over changes since ``since``; role: capturer.

    ``since`` should lie back at least as far as the longest ``grace_s``: a moving position would step over rows that
    were too young to judge. ``now`` defaults to the database's clock. ``excluded`` are time ranges of past incidents,
    which never train a drift. All detectors see one moment. Raises ``DetectorBroken`` naming the detector, and
    ``snapshots.errors.Refused`` when ``since`` belongs to another server.
    """
    findings: list[Finding] = []
    with _one_moment(conn):
        require_same_server(conn, since)
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        at = now or (row[0] if row else since.at)
        for detector in app.detectors:
            if only is not None and detector.key not in only:
                continue
            question = _Question(conn=conn, app=app, detector=detector, since=since, at=at, excluded=tuple(excluded))
            try:
                findings.extend(_KINDS[detector.kind](question))
            except (psycopg.ProgrammingError, psycopg.DataError, psycopg.InternalError) as error:
                raise DetectorBroken(
                    f"detector {detector.key}: its query fails: {str(error).splitlines()[0]}. "
                    "Correct the detector in the catalogue, or the table it reads"
                ) from None
    return findings


@contextmanager
def _one_moment(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """A read-only transaction with one snapshot, unless the caller already has one."""
    fresh = conn.info.transaction_status is TransactionStatus.IDLE
    with conn.transaction():
        if fresh:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    conn: psycopg.Connection[Any]
    app: App
    detector: Detector
    since: Position
    at: datetime
    excluded: tuple[Range, ...]

    @property
    def name(self) -> str:
        return f"detector {self.detector.key}"

    def twin(self, table: str | None = None) -> Twin:
        return twin(self.conn, table or self.detector.table, self.name)

    @property
    def before(self) -> sql.Composable | None:
        """Rows first changed after this are too young to judge."""
        if not self.detector.grace_s:
            return None
        return sql.Literal(self.at - timedelta(seconds=self.detector.grace_s))

    def rows(self, query: sql.Composed) -> tuple[int, tuple[tuple[str, ...], ...]]:
        """Number of violating rows, and their first keys."""
        bounded = sql.SQL(
            "WITH broken AS MATERIALIZED ({}) SELECT (SELECT count(*) FROM broken), rj_key FROM broken "
            "ORDER BY rj_first, rj_key LIMIT {}"
        ).format(query, sql.Literal(KEYS_PER_FINDING))
        found = self.conn.execute(bounded).fetchall()
        return (found[0][0] if found else 0), tuple(tuple(row[1]) for row in found)

    def finding(
        self,
        rows: int,
        keys: tuple[tuple[str, ...], ...],
        message: str,
        table: str | None = None,
        columns: tuple[str, ...] = (),
    ) -> Finding:
        d = self.detector
        return Finding(
            detector=d.key,
            kind=d.kind,
            table=table or d.table,
            rows=rows,
            keys=keys,
            message=f"{table or d.table}: {message}" + (f" ({d.impact})" if d.impact else ""),
            confirmed=rows >= d.min_rows,
            contain=d.contain,
            severity=d.severity,
            at=self.at,
            columns=columns,
        )


def _duplicates(q: _Question) -> Iterator[Finding]:
    table = q.twin()
    declared = (q.detector.columns,) if q.detector.columns else q.app.table(q.detector.table).unique
    for columns in declared:
        table.require(columns, q.name)
        rows, keys = q.rows(row_rules.duplicates(table, columns, q.since, q.before))
        if rows:
            yield q.finding(rows, keys, f"{rows} changed rows repeat another row's {', '.join(columns)}")


def _orphans(q: _Question) -> Iterator[Finding]:
    table = q.twin()
    references = (q.detector.reference,) if q.detector.reference else q.app.table(q.detector.table).references
    for reference in references:
        table.require(reference.columns, q.name)
        rows, keys = q.rows(row_rules.orphans(table, reference, q.since, q.before))
        if rows:
            named = ", ".join(reference.columns)
            yield q.finding(rows, keys, f"{rows} changed rows name a missing row of {reference.table} ({named})")
        yield from _bereft(q, reference.table, row_rules.bereft(
            q.detector.table, q.twin(reference.table), reference, q.since, q.before))  # fmt: skip


def _bereft(q: _Question, parent: str, query: sql.Composed) -> Iterator[Finding]:
    """Keys are those of the removed parents: their remover is to blame, not who wrote the children long ago."""
    rows, keys = q.rows(query)
    if rows:
        total = q.conn.execute(sql.SQL("SELECT sum(rj_rows) FROM ({}) AS b").format(query)).fetchone()
        children = int(total[0]) if total else rows
        yield q.finding(children, keys, f"{rows} removed rows are still named by {children} rows of {q.detector.table}",
                        table=parent)  # fmt: skip


def _partial(q: _Question) -> Iterator[Finding]:
    if (children := q.detector.children) is None:
        return
    rows, keys = q.rows(row_rules.partial(q.twin(), children, q.since, q.before))
    if rows:
        age = f" {q.detector.grace_s:g} s after they were written" if q.detector.grace_s else ""
        yield q.finding(rows, keys, f"{rows} changed rows have no row in {children.table}{age}")


def _rule(q: _Question) -> Iterator[Finding]:
    if (condition := q.detector.sql) is None:
        return
    table, about = q.twin(), q.detector.columns
    table.require(about, q.name)
    rows, keys = q.rows(row_rules.rule(table, condition, q.since, q.before))
    if rows:
        message = f"{rows} changed rows break the rule {' '.join(condition.split())!r}"
        yield q.finding(rows, keys, message, columns=about)


def _mass_delete(q: _Question) -> Iterator[Finding]:
    """One finding for each actor that deleted a large share of the table; Reinstate's own undo is none."""
    d, table = q.detector, q.twin()
    deleted = q.conn.execute(row_rules.deleted(table, q.since)).fetchall()
    of_actor: dict[str, list[tuple[str, ...]]] = {}
    for actor, key in deleted:
        of_actor.setdefault(actor, []).append(tuple(key))
    large = {actor: keys for actor, keys in of_actor.items() if len(keys) >= d.min_rows}
    if not large:
        return
    row = q.conn.execute(sql.SQL("SELECT count(*) FROM {}").format(table.live)).fetchone()
    rows = (row[0] if row else 0) + len(deleted)
    for actor, keys in large.items():
        percent = 100 * len(keys) / rows
        if percent >= d.percent_floor:
            named = f"{len(keys)} of {rows} rows ({percent:.1f}%) were deleted by {actor}"
            yield q.finding(len(keys), tuple(keys[:KEYS_PER_FINDING]), named)


def _value_drift(q: _Question) -> Iterator[Finding]:
    d, table, event_time = q.detector, q.twin(), q.app.table(q.detector.table).event_time
    if event_time is None or not d.columns:
        return
    table.require((d.columns[0], event_time), q.name)
    values = history.new_values(q.conn, table, d.columns[0], q.since)
    if len(values) < MIN_VALUES:
        return
    window = Window(start=q.since.at, end=q.at, bucket_s=d.bucket_s, buckets=d.history_buckets)
    past = history.past_values(
        q.conn, table, column=d.columns[0], event_time=event_time, since=q.since, window=window, excluded=q.excluded
    )
    usual = baseline(past)
    numbers = [v for _, v in values]
    drift = drifted(
        median(numbers), usual, percent_floor=d.percent_floor, mads=d.mads, sampling_error=median_error(numbers)
    )
    if drift is None:
        return
    far = [key for key, value in values if abs(value - drift.baseline.center) > drift.limit]
    yield q.finding(
        len(far),
        tuple(far[:KEYS_PER_FINDING]),
        f"median {d.columns[0]} of {len(values)} new values is {drift.observed:g}, {drift.percent:+.0f}% off the usual "
        f"{drift.baseline.center:g} (limit ±{drift.limit:g}, from {drift.baseline.buckets} buckets of history)",
    )


def _volume_drift(q: _Question) -> Iterator[Finding]:
    d, table, event_time = q.detector, q.twin(), q.app.table(q.detector.table).event_time
    if event_time is None:
        return
    table.require((event_time,), q.name)
    length = max((q.at - q.since.at).total_seconds(), MIN_WINDOW_S)
    start = q.at - timedelta(seconds=length)
    window = Window(start=start, end=q.at, bucket_s=length, buckets=d.history_buckets)
    count, keys = history.recent_rows(q.conn, table, event_time=event_time, window=window, limit=KEYS_PER_FINDING)
    usual = baseline(history.past_counts(q.conn, table, event_time=event_time, window=window, excluded=q.excluded))
    # Counts scatter by their square root even when nothing changes (Poisson).
    scatter = usual.center**0.5 if usual else 0.0
    drift = drifted(count, usual, percent_floor=d.percent_floor, mads=d.mads, sampling_error=scatter)
    if drift is None:
        return
    off = round(abs(drift.observed - drift.baseline.center))
    yield q.finding(
        off,
        tuple(keys) if drift.observed > drift.baseline.center else (),
        f"{count} rows in the last {length:.0f} s, {drift.percent:+.0f}% off the usual {drift.baseline.center:g} "
        f"(limit ±{drift.limit:g}, from {drift.baseline.buckets} buckets of history)",
    )


_KINDS: dict[str, Callable[[_Question], Iterator[Finding]]] = {
    "duplicates": _duplicates,
    "orphans": _orphans,
    "partial": _partial,
    "rule": _rule,
    "mass-delete": _mass_delete,
    "value-drift": _value_drift,
    "volume-drift": _volume_drift,
}
