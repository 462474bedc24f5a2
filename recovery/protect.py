"""Taking a recovery point: logic and data together, suites on the same snapshot, published once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from checks import suite_files, suites
from recovery.containment import Say, quiet
from recovery.context import AppContext
from snapshots import capture, journal
from snapshots.model import RecoveryPoint


def protect(ctx: AppContext, *, say: Say = quiet) -> RecoveryPoint:
    """Capture a point and prove it. A point whose suites fail is kept, unverified, and said so.

    A suite that cannot be read is refused before anything is captured."""
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
    say(f"capturing {len(ctx.tables)} tables and {len(ctx.app.workflows)} workflows")
    point = capture.capture(
        ctx.dsn("capturer"),
        ctx.tables,
        {w.key: w.name for w in ctx.app.workflows},
        ctx.platform,
        ctx.store,
        app=ctx.app.key,
        verify=verify,
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
        },
    )
    say(f"point {point.id}: {'verified' if point.verified else 'NOT verified'}")
    return point
