"""Keeping what a recovery rests on in order, night by night, while nothing is wrong.

The journal forgets what is old before it is full, is held against live, and the newest point is read to its last
object. Nothing here touches a row of the app. What is not in order is a sentence with its next step; what had to wait
is one too. Either goes on record: an auditor can see that it was looked at, and when.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from incidents import record
from ledger import kinds
from ledger.errors import LedgerError
from recovery import setup, storekeeping
from recovery.containment import Say, quiet
from recovery.context import AppContext
from recovery.errors import NothingToRecover, RecoveryError
from snapshots.errors import SnapshotError, Unreachable
from snapshots.journal import journal, shape
from snapshots.points.errors import translated


@dataclass(kw_only=True)
class Maintained:
    """What was done. ``forgotten``: images of the journal, by table; ``audited`` and ``read``: the points looked at."""

    forgotten: dict[str, int] = field(default_factory=dict)
    audited: str | None = None
    missed: int = 0
    read: str | None = None
    bytes: int = 0
    waits: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def in_order(self) -> bool:
        return not self.problems


def maintain(ctx: AppContext, *, by: str = "reinstate", say: Say = quiet) -> Maintained:
    """Audit the journal against the newest point, prune it, read that point's objects; on record. May be repeated.

    Raises the errors of a database, store or ledger that cannot be reached: nothing is known then."""
    done = Maintained()
    if _journaled(ctx, done):
        _audit(ctx, done, say=say)
        _forget(ctx, done, by=by, say=say)
        _look(ctx, done)
    _read(ctx, done, say=say)
    ctx.ledger.append(kinds.MAINTAINED, app=ctx.app.key, body={**asdict(done), "by": by})
    return done


def _journaled(ctx: AppContext, done: Maintained) -> bool:
    """Whether there is a journal. That one is gone is not in order; that there never was one is the owner's choice."""
    with ctx.connect("recoverer", "maintain") as connection:
        if shape.exists(connection):
            return True
    if any(e.body.get("audited") for e in ctx.ledger.entries(app=ctx.app.key, kinds=[kinds.MAINTAINED])):
        done.problems.append("the journal is gone: no run can be undone by itself; run `reinstate journal install`")
    else:
        done.waits.append(
            "no journal is installed, so no run can be undone by itself: `reinstate journal install` changes that"
        )
    return False


def _look(ctx: AppContext, done: Maintained) -> None:
    """Tables that the journal does not record."""
    with ctx.connect("recoverer", "maintain") as connection:
        journal.tick(connection)
        found = journal.status(connection, expected=[t.name for t in ctx.app.tables])
        connection.rollback()
    if found.missing:
        done.problems.append(f"not journaled: {', '.join(found.missing)}; run `reinstate journal install`")
    if lasting := sorted({gap.table for gap in found.gaps if gap.until is None}):
        done.problems.append(f"the journal has a gap that lasts: {', '.join(lasting)}; see `reinstate journal status`")


def _forget(ctx: AppContext, done: Maintained, *, by: str, say: Say) -> None:
    incident = record.find_open(ctx.ledger, ctx.app.key)
    if incident is not None:
        done.waits.append(f"the journal forgets nothing while incident {incident.id} is open")
        return
    try:
        pruned = setup.prune_journal(ctx, by=by)
    except LedgerError as error:  # a recovery may need it all
        done.waits.append(f"the journal forgets nothing for now: {error}")
        return
    except Unreachable:
        raise
    except SnapshotError as error:
        done.problems.append(f"the journal was not pruned: {error}")
        return
    done.forgotten = {p.table: p.rows for p in pruned}
    say(f"the journal forgot {sum(done.forgotten.values())} images that are over its retention or its cap")


def _audit(ctx: AppContext, done: Maintained, *, say: Say) -> None:
    """Table by table: one that cannot be audited now keeps nothing back about the others."""
    missed: dict[str, int] = {}
    for table in ctx.app.tables:
        try:
            with translated():
                found = setup.audit_journal(ctx, tables=[table.name], say=say)
        except NothingToRecover:  # the newest point is missed below
            return
        except Unreachable:
            raise
        except (RecoveryError, SnapshotError) as error:
            done.problems.append(f"the journal of {table.name} was not audited: {error}")
            continue
        done.audited = found.point
        if found.missed:
            missed[table.name] = sum(m.rows for m in found.missed)
    done.missed = sum(missed.values())
    if missed:
        done.problems.append(
            f"the journal missed {done.missed} changed rows in {', '.join(missed)} since point {done.audited}: no undo "
            "crosses that; find out why (`reinstate journal status`; `reinstate journal verify` names the rows), then "
            "`reinstate protect`"
        )
    elif done.audited:
        say(f"the journal saw every change since point {done.audited}")


def _read(ctx: AppContext, done: Maintained, *, say: Say) -> None:
    try:
        found = storekeeping.verify(ctx, say=say)
    except Unreachable:
        raise
    except SnapshotError as error:
        done.problems.append(f"the newest point was not read: {error}")
        return
    [newest] = found.points
    done.read, done.bytes = newest.point, found.bytes
    if newest.problems:
        done.problems.append(
            f"point {newest.point} is damaged: {'; '.join(newest.problems[:3])}; take a full one: "
            "`reinstate protect --full`"
        )
