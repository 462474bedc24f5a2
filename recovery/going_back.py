"""Tables back to a point or a tick, on record: what it would do and lose, then done under the app's lease.

A restore overwrites whatever was written since, whoever wrote it. That is why nothing here starts by itself.
"""

from __future__ import annotations

import os
import secrets as random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import psycopg

from catalog import secrets
from ledger import kinds
from ledger.entry import Entry
from recovery.containment import Say, quiet
from recovery.context import AppContext
from recovery.errors import NothingToRecover, Refused
from snapshots import database
from snapshots.errors import Incomplete, SnapshotError
from snapshots.errors import Refused as CannotCompare
from snapshots.journal import shape as journal_shape
from snapshots.journal import ticks
from snapshots.model import Applied, Position, RecoveryPoint, TableSpec
from snapshots.points import points
from snapshots.restore import diff, lost_table, restore, whole
from snapshots.restore.lost_table import Returned
from snapshots.restore.model import Caps, Loss, RestorePlan, Source
from snapshots.undo import step

T = TypeVar("T")

LEASE_S = 60.0
STEP = "restore"
AHEAD = timedelta(minutes=1)  # clocks differ
NEAREST = 3


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where to. ``point`` is ``None`` for a tick. ``lost`` names tables of the point that do not exist."""

    point: RecoveryPoint | None
    position: Position
    asked: datetime | None
    tables: tuple[TableSpec, ...]
    lost: tuple[str, ...]

    @property
    def target(self) -> RecoveryPoint | Position:
        return self.point or self.position

    @property
    def sentence(self) -> str:
        """Which point or tick it is."""
        if self.point is not None:
            proven = "verified" if self.point.verified else "NOT verified"
            return f"point {self.point.id}, taken {self.point.taken_at:%Y-%m-%d %H:%M:%S} UTC, {proven}"
        late = (self.asked - self.position.at).total_seconds() if self.asked else 0.0
        shape = "%H:%M:%S" if self.asked and self.asked.date() == self.position.at.date() else "%Y-%m-%d %H:%M:%S"
        which = f", the last one at or before {self.asked:{shape}}, {late:.1f} s earlier" if self.asked else ""
        return f"tick of {self.position.at:%Y-%m-%d %H:%M:%S.%f} UTC{which}"


def goal(
    ctx: AppContext, *, point: str | None = None, at: datetime | int | None = None, tables: Sequence[str] = ()
) -> Goal:
    """The point of that id, or the last tick at or before ``at`` (or the tick of that number); without either the
    newest verified point. ``tables``: all by default. Raises :class:`NothingToRecover` naming what there is."""
    declared = {t.name: t for t in ctx.app.tables}
    if unknown := [name for name in tables if name not in declared]:
        raise Refused(f"table {unknown[0]} is not in the catalogue of {ctx.app.key}; it has {', '.join(declared)}")
    chosen = [t for t in ctx.app.tables if not tables or t.name in tables]
    with ctx.connect("recoverer", "restore") as connection:
        if at is not None:
            found, position = None, _tick(ctx, connection, at)
        else:
            found = _point(ctx, point)
            position = found.position
        there = [t for t in chosen if _exists(connection, t.name)]
        specs = database.tables(connection, there)
        journaled = journal_shape.stored(connection)
    kept = {t.name for t in found.tables} if found else set(journaled)
    gone = [t for t in chosen if t not in there]
    if found is None and gone:
        raise Refused(f"table {gone[0].name} does not exist: the journal cannot make it again; name a point")
    if found is not None and tables and (absent := [t.name for t in chosen if t.name not in kept]):
        raise NothingToRecover(f"point {found.id} does not hold {', '.join(absent)}; choose another point")
    keys = {t.name: t.key for t in found.tables} if found else {}
    lost = tuple(
        TableSpec(
            name=t.name,
            key=tuple(t.key) or keys[t.name],
            suppress=tuple(sorted(n for n, how in t.triggers.items() if how in ("suppress", "derived"))),
        )
        for t in gone
        if t.name in keys
    )
    return Goal(
        point=found,
        position=position,
        asked=at if isinstance(at, datetime) else None,
        tables=(*(s for s in specs if s.name in kept), *lost),
        lost=tuple(t.name for t in lost),
    )


def _exists(connection: psycopg.Connection, table: str) -> bool:
    row = connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL", (database.qualified(table).as_string(connection),)
    ).fetchone()
    return bool(row and row[0])


def _point(ctx: AppContext, point: str | None) -> RecoveryPoint:
    if point is not None:
        return points.load(ctx.store, ctx.app.key, point)
    newest = points.latest_verified(ctx.store, ctx.app.key)
    if newest is None:
        raise NothingToRecover(
            f"{ctx.app.key} has no verified point; name one with --point, or a time with --at, or take one: "
            "`reinstate protect`"
        )
    return newest


def _tick(ctx: AppContext, connection: psycopg.Connection, at: datetime | int) -> Position:
    now = datetime.now(UTC)
    if isinstance(at, datetime) and at > now + AHEAD:
        raise Refused(
            f"{at:%Y-%m-%d %H:%M:%S} UTC has not come yet, now is {now:%H:%M:%S}; a local time needs its offset, "
            "such as 2026-03-01T03:55+01:00"
        )
    found = ticks.at(connection, at)
    if found is not None:
        return found
    first = ticks.first(connection)
    reach = f"the journal's ticks begin at {first:%Y-%m-%d %H:%M:%S} UTC" if first else "there are no ticks"
    raise NothingToRecover(f"{reach}; {nearest(ctx, at if isinstance(at, datetime) else None)}")


def nearest(ctx: AppContext, at: datetime | None) -> str:
    """The points to choose from instead, nearest first."""
    known = points.listing(ctx.store, ctx.app.key).points
    if at is not None:
        known = tuple(sorted(known, key=lambda p: abs((p.taken_at - at).total_seconds())))
    listed = ", ".join(f"{p.id}{'' if p.verified else ' (not verified)'}" for p in known[:NEAREST])
    return f"nearest points: {listed}" if listed else "there are no points either"


def look(ctx: AppContext, wanted: Goal, *, source: Source = "auto", keys: int = 0) -> Loss:
    """What differs now, and whose work it is; changes nothing. ``keys``: so many keys of each kind and table."""
    with ctx.connect("capturer", "diff") as connection:
        return _reaching(
            ctx,
            wanted,
            lambda: diff.would_lose(connection, wanted.target, ctx.store, _there(wanted), source=source, keys=keys),
        )


def preview(ctx: AppContext, wanted: Goal, *, source: Source = "auto") -> RestorePlan:
    """What a restore would do now. Tables that do not exist are not in it: they are made whole."""
    with ctx.connect("recoverer", "restore") as connection:
        return _reaching(
            ctx, wanted, lambda: restore.plan(connection, wanted.target, ctx.store, _there(wanted), source=source)
        )


def crossed(ctx: AppContext, plan: RestorePlan) -> str | None:
    """The catalogue's cap that the plan passes, as a sentence."""
    return restore.cap_problem(plan.tables, caps(ctx))


def caps(ctx: AppContext) -> Caps:
    return Caps(**ctx.app.caps.model_dump())


@dataclass(frozen=True, kw_only=True)
class Done:
    """``applied``: tables brought back by difference; ``returned``: tables made again."""

    recovery: str
    applied: Applied | None
    returned: Returned | None

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows deleted, updated and inserted, by table."""
        written = dict(self.applied.detail["tables"]) if self.applied else {}
        return written | ({t: {"insert": n} for t, n in self.returned.rows.items()} if self.returned else {})


def go_back(
    ctx: AppContext,
    wanted: Goal,
    plan: RestorePlan,
    *,
    source: Source,
    by: str,
    reason: str,
    over_caps: bool = False,
    workers: int = lost_table.WORKERS,
    say: Say = quiet,
) -> Done:
    """Do what ``plan`` showed. Raises ``LeaseHeld`` while a recovery of the app runs, and the errors of
    :func:`restore.apply`: drift from the plan, caps, locks; nothing is changed then."""
    app = ctx.app.key
    recovery = f"restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{random.token_hex(4)}"
    with ctx.ledger.lease(app, f"restore by process {os.getpid()} on {socket.gethostname()}", LEASE_S) as lease:
        body = {"operation": "restore", "plan_hash": plan.hash, "by": by, "reason": reason}
        summary = [f"to {wanted.sentence}", *summary_of(wanted, plan)]
        ctx.ledger.append(
            kinds.DATA_PLANNED, app=app, recovery=recovery, body={**body, "summary": summary}, lease=lease
        )
        returned = applied = None
        if wanted.lost and wanted.point is not None:
            again = [t for t in wanted.tables if t.name in wanted.lost]
            returned = lost_table.restore(
                ctx.dsn("installer"),
                wanted.point,
                ctx.store,
                again,
                recovery_id=recovery,
                plan_hash=plan.hash,
                workers=workers,
                say=say,
            )
        if not plan.empty:
            lease.check()
            limits = caps(ctx)
            if over_caps:
                limits = Caps(
                    max_deleted_rows=2**62, max_deleted_share=1.0, max_changed_rows=2**62, drift_rows=limits.drift_rows
                )
            with ctx.connect("recoverer", "restore") as connection:
                applied = restore.apply(
                    connection,
                    wanted.target,
                    ctx.store,
                    _there(wanted),
                    recovery_id=recovery,
                    step=STEP,
                    plan_hash=plan.hash,
                    source=source,
                    caps=limits,
                    expected=plan.tables,
                )
        done = Done(recovery=recovery, applied=applied, returned=returned)
        ctx.ledger.append(
            kinds.DATA_APPLIED,
            app=app,
            recovery=recovery,
            body={**body, "summary": summary, "counts": done.counts},
            lease=lease,
        )
    return done


def finish(ctx: AppContext, *, say: Say = quiet) -> tuple[Done, ...]:
    """Finish the restores that were cut short after their rows were committed: the ledger knows the plan, the database
    that it happened, and nobody wrote down that it was done. What remains is done again and recorded; what cannot be
    finished is said, and left for the next time. Raises ``LeaseHeld`` while the app is worked on."""
    if not _cut_short(ctx):
        return ()
    finished = []
    with ctx.ledger.lease(ctx.app.key, f"restore by process {os.getpid()} on {socket.gethostname()}", LEASE_S) as lease:
        for planned, made, applied in _cut_short(ctx):
            say(f"{planned.recovery} was cut short: finishing it")
            try:
                done = _finish(ctx, str(planned.recovery), made, applied, say)
            except SnapshotError as error:
                say(f"{planned.recovery} stays unfinished: {error}")
                continue
            body = {**planned.body, "counts": done.counts}
            ctx.ledger.append(kinds.DATA_APPLIED, app=ctx.app.key, recovery=done.recovery, body=body, lease=lease)
            finished.append(done)
    return tuple(finished)


def _finish(ctx: AppContext, recovery: str, made: Applied | None, applied: Applied | None, say: Say) -> Done:
    returned = lost_table.finish(ctx.dsn("installer"), made, say=say) if made else None
    if applied is None:
        return Done(recovery=recovery, applied=None, returned=returned)
    with ctx.connect("recoverer", "restore") as connection:
        return Done(recovery=recovery, applied=restore.refreshed(connection, applied), returned=returned)


def _cut_short(ctx: AppContext) -> list[tuple[Entry, Applied | None, Applied | None]]:
    """Restores that are planned and applied, but not recorded as done: what made tables again, what wrote rows."""
    entries = ctx.ledger.entries(app=ctx.app.key, kinds=(kinds.DATA_PLANNED, kinds.DATA_APPLIED))
    ended = {e.recovery for e in entries if e.kind == kinds.DATA_APPLIED}
    planned = [e for e in entries if e.body.get("operation") == "restore" and e.recovery and e.recovery not in ended]
    if not planned:
        return []
    with ctx.connect("recoverer", "restore") as connection:
        if not journal_shape.exists(connection):
            return []
        found = [
            (
                e,
                step.applied(connection, str(e.recovery), lost_table.STEP),
                step.applied(connection, str(e.recovery), STEP),
            )
            for e in planned
        ]
    return [(e, made, applied) for e, made, applied in found if made or applied]


def into(
    ctx: AppContext, point: RecoveryPoint, reference: str, tables: Sequence[str], *, workers: int
) -> dict[str, int]:
    """Load the point into the database that ``reference`` (``env:NAME`` or ``file:PATH``) leads to, whose role owns it.
    The app's own database is :class:`Refused`."""
    dsn = secrets.resolve(reference, ctx.home / "secrets.env")
    with ctx.connect("recoverer", "restore") as connection:
        mine = _where(connection)
    copy = database.connect(dsn, purpose="restore copy")
    try:
        theirs = _where(copy)
    finally:
        copy.close()
    if mine == theirs:
        raise Refused(f"--into {reference} is the app's own database; leave --into out to restore there")
    try:
        return whole.into_empty(dsn, point, ctx.store, list(tables) or None, workers=workers)
    except (
        psycopg.errors.UndefinedObject,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InvalidSchemaName,
    ) as error:
        lacks = str(error).splitlines()[0]
        raise Refused(
            f"--into {reference}: {lacks} there, and a point holds tables only; make the schema first "
            "(`pg_dump --schema-only -N reinstate` of the app, then psql), and run this again"
        ) from error


def _where(connection: psycopg.Connection) -> tuple[str, str]:
    row = connection.execute("SELECT system_identifier::text, current_database() FROM pg_control_system()").fetchone()
    return (row[0], row[1]) if row else ("", "")


def summary_of(wanted: Goal, plan: RestorePlan) -> list[str]:
    """The plan in sentences."""
    lines = [
        f"{t.table}: delete {t.added}, update {t.changed}, insert {t.deleted} ({t.how})" for t in plan.tables if t.rows
    ]
    lines += [f"{name}: made again with its rows" for name in wanted.lost]
    lines += [f"sequence {name} moved forward" for name in plan.sequences]
    if plan.loss.actors:
        lines.append("takes back work of " + ", ".join(f"{a.actor} ({a.transactions})" for a in plan.loss.actors))
    return lines or ["nothing differs"]


def _there(wanted: Goal) -> list[TableSpec]:
    return [t for t in wanted.tables if t.name not in wanted.lost]


def _reaching(ctx: AppContext, wanted: Goal, work: Callable[[], T]) -> T:
    """Whatever keeps the journal from reaching a tick is told with the points there are."""
    try:
        return work()
    except (CannotCompare, Incomplete) as error:
        if wanted.point is not None:
            raise
        instead = nearest(ctx, wanted.asked or wanted.position.at)
        raise Refused(f"{error} Or name the tables that are whole with --table; {instead}") from error
