"""Proof of a recovery point: restored into an empty database, compared row by row, checked by the app's own suites."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime

import psycopg

from checks import suites
from checks.errors import CheckError
from recovery import scratch as empty
from recovery.containment import Say, quiet
from recovery.context import AppContext
from recovery.errors import RecoveryError
from snapshots import database
from snapshots.errors import SnapshotError, Unreachable
from snapshots.model import RecoveryPoint
from snapshots.points.proof import Proof
from snapshots.restore import diff, whole


def prove(ctx: AppContext, point: RecoveryPoint, *, scratch: str | None = None, say: Say = quiet) -> Proof:
    """Try the point. What is wrong with it is in the proof; nothing is left behind and the app is not touched.

    ``scratch``: see :func:`recovery.scratch.database`. Raises what has nothing to do with the point: a database or a
    store that cannot be reached, a suite that cannot be read.
    """
    started, at = time.monotonic(), datetime.now(UTC)
    names = [t.name for t in point.tables]
    rows: dict[str, int] = {}
    problems: list[str] = []
    failed: list[str] = []
    ran = 0
    with empty.database(scratch) as dsn:
        with psycopg.connect(dsn) as connection:
            server = str(connection.info.parameter_status("server_version"))
        say(f"point {point.id}: copying the schema into an empty database (PostgreSQL {server})")
        missing = empty.copy_schema(ctx.dsn("installer"), dsn, names)
        try:
            say(f"point {point.id}: restoring {sum(t.rows for t in point.tables)} rows")
            rows = whole.into_empty(dsn, point, ctx.store)
            say(f"point {point.id}: comparing every row, then running the suites")
            problems += _differences(ctx, point, dsn)
            report = suites.run(dsn, ctx.suites)
            ran = report.ran
            failed = [_failure(asdict(f)) for f in report.failed]
        except Unreachable:
            raise
        except (SnapshotError, CheckError, psycopg.Error) as error:
            problems += [" ".join(str(error).split()), *missing[:3]]
    return Proof(
        point=point.id,
        at=at,
        seconds=round(time.monotonic() - started, 3),
        server=server,
        rows=rows,
        ran=ran,
        failed=tuple(failed),
        problems=tuple(problems),
    )


def _differences(ctx: AppContext, point: RecoveryPoint, dsn: str) -> list[str]:
    connection = database.connect(dsn, purpose="proof")
    try:
        found = diff.diff(connection, point, ctx.store)
    finally:
        connection.close()
    if {d.table for d in found} != {t.name for t in point.tables}:
        raise RecoveryError(f"point {point.id}: not all of its tables could be compared; verify it again")
    return [f"{d.table}: {d.rows} rows of the restored copy differ from the point" for d in found if d.rows]


def _failure(values: dict[str, object]) -> str:
    """What failed, without values: they may be anybody's."""
    parts = [str(values[k]) for k in ("suite", "table", "expectation", "column") if values.get(k)]
    return " ".join(parts) or "an expectation"
