"""Taking a recovery point: logic and data together, suites on the same snapshot, published once."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from checks import suite_files, suites
from ledger.errors import LedgerError
from recovery import history
from recovery.containment import Say, quiet
from recovery.context import AppContext
from snapshots.capture import capture
from snapshots.erasure import erasure
from snapshots.errors import SnapshotError
from snapshots.journal import journal
from snapshots.model import RecoveryPoint
from snapshots.points import points
from snapshots.points.errors import Damaged, UnknownFormat

if TYPE_CHECKING:
    from snapshots.capture.pieces import Runner
    from snapshots.store.retention import Pruned


def protect(
    ctx: AppContext,
    *,
    method: capture.Method | None = None,
    workers: int | None = None,
    run: Runner | None = None,
    say: Say = quiet,
) -> RecoveryPoint:
    """Capture a point and prove it. A point whose suites fail is kept, unverified, and said so.

    The point leans on the newest readable one of the app, as the catalogue's ``capture`` allows; ``method`` and
    ``workers`` override it, and ``run`` says who stages the rows of full copies (default: threads here). A suite that
    cannot be read is refused before anything is captured."""
    erasure.mirror(ctx.store, ctx.app.key)
    policy = ctx.app.capture
    chosen = method or policy.method
    suite_files.read(ctx.suites)

    def verify(snapshot: str) -> dict[str, Any]:
        say("running the suites on the captured snapshot")
        report = suites.run(ctx.dsn("capturer"), ctx.suites, snapshot=snapshot)
        return {
            "passed": report.passed,
            "ran": report.ran,
            "failed": [asdict(f) for f in report.failed],
            "seconds": report.seconds,
        }

    with ctx.connect("recoverer", "tick") as connection:
        journal.tick(connection)
    history.observe(ctx, force=True)
    base = newest(ctx, say=say)
    leaning = f", what changed since {base.id}" if base and chosen != "full" else ""
    say(f"capturing {len(ctx.tables)} tables and {len(ctx.app.workflows)} workflows{leaning}")
    began = time.monotonic()
    point = capture.capture(
        ctx.dsn("capturer"),
        ctx.tables,
        {w.key: w.name for w in ctx.app.workflows},
        ctx.platform,
        ctx.store,
        app=ctx.app.key,
        ids=ctx.ids(),
        verify=verify,
        base=base,
        method=chosen,
        workers=workers or policy.workers,
        full_after=policy.full_after,
        fingerprint=policy.fingerprint,
        run=run,
        say=say,
    )
    ctx.ledger.append(
        "point.taken",
        app=ctx.app.key,
        body={
            "point_id": point.id,
            "verified": point.verified,
            "rows": sum(t.rows for t in point.tables),
            "workflows": {w.workflow: w.version_hash for w in point.workflows},
            "in_flight": len(point.in_flight),
            "base": point.base,
            "seconds": round(time.monotonic() - began, 3),
        },
    )
    say(f"point {point.id}: {'verified' if point.verified else 'NOT verified'}")
    return point


def newest(ctx: AppContext, *, say: Say = quiet) -> RecoveryPoint | None:
    """The newest point of the app whose manifest can be read; ``None`` when there is none."""
    for point_id in reversed(ctx.store.point_ids(ctx.app.key)):
        try:
            return points.load(ctx.store, ctx.app.key, point_id)
        except (Damaged, UnknownFormat) as error:
            say(str(error))
    return None


def retain(ctx: AppContext, *, say: Say = quiet) -> Pruned | None:
    """Prune the store by the catalogue's ``store.keep``, and say what went. ``None`` when it must wait for the next
    time: the app is being recovered, others are at work in the store, or it cannot be reached."""
    from recovery import storekeeping

    try:
        plan = storekeeping.pruning(ctx)
        if not plan.dropped and not plan.objects:
            return plan
        done = storekeeping.prune(ctx, plan, by="protect", say=say)
    except (LedgerError, SnapshotError) as error:
        say(f"old points stay for now: {error}")
        return None
    say(f"pruned {len(done.dropped)} old points and {done.objects} objects ({done.bytes} bytes)")
    return done
