"""Which place to go back to: every recovery point, and the last tick before the incident, by what each would lose.

What a choice loses is what was written after it. The journal says it by table, actor and run without looking at a
single row of the app; where it does not reach, the point's rows are compared with live (:func:`diff.would_lose`).
A choice that may hold the damage itself is never recommended, and says so. Cost: one pass over the journal since the
oldest point, whatever the tables hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from psycopg import Connection

from snapshots import position
from snapshots.journal import journal, shape
from snapshots.journal.shape import OTHER_SERVER
from snapshots.model import Gap, Position, RecoveryPoint
from snapshots.points import work
from snapshots.points.errors import translated
from snapshots.points.work import Work, Written

AFTER = "taken after the incident began: it may hold the damage"
UNKNOWN = "the journal does not reach back to it: what it would lose is not known"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One place to go back to. ``safe``: it surely lies before the damage. ``lost`` and the lists count row changes
    since then that nobody blames; ``damage`` those that the diagnosis does. ``None``: nobody knows."""

    kind: Literal["point", "tick"]
    id: str
    at: datetime
    safe: bool
    verified: bool
    lost: int | None
    damage: int
    tables: dict[str, int] = field(default_factory=dict)
    actors: tuple[Written, ...] = ()
    runs: tuple[Written, ...] = ()
    runs_in_all: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """When the incident began: by the clock, and by its first bad transaction where a diagnosis named it."""

    at: datetime
    xid: int | None = None
    bad_xids: frozenset[int] = frozenset()


Compare = Callable[[RecoveryPoint], dict[str, int]]
"""Rows by table that a restore of the point would overwrite, found by comparing."""


def rank(
    conn: Connection[Any],
    points: Iterable[RecoveryPoint],
    start: Start,
    tables: Sequence[str],
    *,
    compare: Compare | None = None,
    compared: int = 1,
) -> tuple[Choice, ...]:
    """Every choice, best first: safe ones, of these what loses least (a verified point before a tick that loses as
    little), then those that are not safe. Role: capturer or recoverer; reads only.

    ``compare`` is asked about the ``compared`` best points whose loss the journal does not know.
    """
    found = sorted(points, key=lambda p: (p.taken_at, p.id), reverse=True)
    with translated(), conn.transaction():
        here = position.current(conn)
        journaled = shape.exists(conn)
        mine = [p for p in found if _same(here, p.position)]
        places = {p.id: p.position for p in mine}
        tick = _tick(conn, here, start) if journaled else None
        known = [*places.values(), *([tick] if tick else [])] if journaled else []
        done = dict(zip(known, work.after(conn, known, tables, start.bad_xids), strict=True))
        gaps = {p: tuple(journal.gaps(conn, since=p, tables=tables)) for p in known}
    choices = [_point(p, places.get(p.id), start, done.get(p.position), gaps.get(p.position)) for p in found]
    if tick is not None:
        choices.append(_ticked(tick, start, done[tick], gaps[tick]))
    ordered = sorted(choices, key=_order)
    if compare is not None:
        by_id = {p.id: p for p in found}
        unknown = [c.id for c in ordered if c.lost is None and c.safe and c.kind == "point"][:compared]
        ordered = sorted((_compared(c, compare(by_id[c.id])) if c.id in unknown else c for c in ordered), key=_order)
    return tuple(ordered)


def seen_by(place: Position, xid: int) -> bool:
    """Whether the transaction had ended at the position: what ``pg_visible_in_snapshot`` answers."""
    lowest, highest, running = place.snapshot.split(":")
    if xid < int(lowest):
        return True
    return xid < int(highest) and str(xid) not in running.split(",")


def _order(choice: Choice) -> tuple[Any, ...]:
    lost = choice.lost if choice.lost is not None else float("inf")
    return (not choice.safe, choice.kind == "point" and not choice.verified, lost, choice.kind, -choice.at.timestamp())


def _point(
    point: RecoveryPoint, place: Position | None, start: Start, done: Work | None, gaps: Sequence[Gap] | None
) -> Choice:
    reasons = []
    if place is not None and start.xid is not None:
        contained = seen_by(place, start.xid)
        reasons.append("holds the first bad transaction" if contained else _before(point.taken_at, start))
    else:
        contained = point.taken_at >= start.at
        reasons.append(AFTER if contained else _before(point.taken_at, start))
    if not point.verified:
        reasons.append("not verified: its suites did not pass, or did not run")
    if place is None:
        reasons.append("of another server or timeline")
    if point.in_flight:
        reasons.append(f"{len(point.in_flight)} runs were in flight")
    known = None if gaps is None or place is None or _hollow(gaps) else done
    choice = Choice(
        kind="point", id=point.id, at=point.taken_at, safe=not contained, verified=point.verified, lost=None, damage=0
    )
    if known is None:
        return replace(choice, reasons=(*reasons, UNKNOWN))
    choice = _counted(choice, known)
    if gaps:
        reasons.append(f"loses at least that, since the journal of {gaps[0].table} has a gap ({gaps[0].kind})")
    return replace(choice, reasons=tuple(reasons))


def _ticked(place: Position, start: Start, done: Work, gaps: Sequence[Gap]) -> Choice:
    choice = Choice(
        kind="tick", id=place.at.isoformat(), at=place.at, safe=not gaps, verified=False, lost=None, damage=0
    )
    choice = _counted(choice, done)
    reasons = [f"{_before(place.at, start)}, the last recorded position; rows by the journal, no suites ran on them"]
    if gaps:
        reasons.append(f"cannot be restored: the journal of {gaps[0].table} has a gap ({gaps[0].kind})")
    return replace(choice, reasons=tuple(reasons))


def _before(at: datetime, start: Start) -> str:
    """How long before the incident, in the unit a person would use."""
    seconds = max((start.at - at).total_seconds(), 0.0)
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} before the incident"
    return f"{seconds:.1f} s before the incident"


def _counted(choice: Choice, done: Work) -> Choice:
    """The choice with what was written after its place."""
    return replace(
        choice,
        lost=sum(done.tables.values()),
        damage=done.damage,
        tables=done.tables,
        actors=done.actors,
        runs=done.runs,
        runs_in_all=done.runs_in_all,
    )


def _compared(choice: Choice, tables: dict[str, int]) -> Choice:
    lost = sum(tables.values())
    reasons = [r for r in choice.reasons if r != UNKNOWN]
    return replace(choice, lost=lost, tables=tables, reasons=(*reasons, f"{lost} rows differ from live (compared)"))


def _same(here: Position, other: Position) -> bool:
    return (here.system_id, here.timeline) == (other.system_id, other.timeline)


def _hollow(gaps: Sequence[Gap]) -> bool:
    """Whether the journal knows nothing of some time after the position, and not merely little."""
    return any(
        g.kind in {"not-journaled", "not-yet-journaled", "pruned", "journal-missing", OTHER_SERVER} for g in gaps
    )


def _tick(conn: Connection[Any], here: Position, start: Start) -> Position | None:
    rows = conn.execute(
        """SELECT t.snapshot::text, t.system_id, t.timeline, t.at FROM reinstate.tick t
           WHERE t.at < %s AND t.system_id = %s AND t.timeline = %s
               AND (%s::text IS NULL OR NOT pg_visible_in_snapshot(%s::text::xid8, t.snapshot))
           ORDER BY t.at DESC LIMIT 1""",
        (start.at, here.system_id, here.timeline, *[None if start.xid is None else str(start.xid)] * 2),
    ).fetchall()
    return next((Position(snapshot=r[0], system_id=r[1], timeline=r[2], at=r[3]) for r in rows), None)
