"""Erasing a person on record: shown, then done under the app's lease, with nothing of the person in the ledger."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from ledger import kinds
from recovery.containment import Say, quiet
from recovery.context import AppContext
from snapshots.erasure import apply, erasure, find
from snapshots.erasure import plan as erasure_plan
from snapshots.erasure.apply import Erased
from snapshots.erasure.find import Who
from snapshots.erasure.plan import ErasePlan

LEASE_S = 60.0
SAY_EVERY_S = 5.0


def subjects(ctx: AppContext) -> Mapping[str, str]:
    """Table -> column that names a person, as the catalogue says."""
    return {t.name: t.subject for t in ctx.app.tables if t.subject}


def preview(ctx: AppContext, who: Who, *, say: Say = quiet) -> ErasePlan:
    """What erasing would do now; changes nothing."""
    seen, told = 0, time.monotonic()

    def beat() -> None:
        nonlocal seen, told
        seen += 1
        if time.monotonic() - told > SAY_EVERY_S:
            told = time.monotonic()
            say(f"looked {seen} times into an object of the store")

    with ctx.connect("installer", "erase") as connection:
        found = find.find(connection, ctx.store, ctx.app.key, ctx.tables, who, beat=beat)
        return erasure_plan.plan(connection, ctx.store, ctx.app.key, found)


def erase(ctx: AppContext, who: Who, plan: ErasePlan, *, by: str, reason: str, say: Say = quiet) -> Erased:
    """Do what ``plan`` showed. Raises ``LeaseHeld`` while a recovery of the app runs, and the errors of
    :func:`erasure_apply.apply`; run again, it goes on where it was."""
    app = ctx.app.key
    why = reason.replace(who.value, apply.ERASED)
    ensure_secret(ctx)
    with ctx.ledger.lease(app, f"erasure by process {os.getpid()} on {socket.gethostname()}", LEASE_S) as lease:
        summary = ["erasing a person", *plan.summary()]
        body = {"operation": "erase", "plan_hash": plan.plan_hash, "by": by, "reason": why}
        ctx.ledger.append(kinds.DATA_PLANNED, app=app, body={**body, "summary": summary}, lease=lease)
        with ctx.connect("installer", "erase") as connection:
            done = apply.apply(
                connection,
                ctx.store,
                app,
                ctx.tables,
                who,
                plan_hash=plan.plan_hash,
                by=by,
                reason=why,
                say=say,
            )
        counts = {t.table: {"rows": t.rows, "images": t.images, "stored": t.stored} for t in plan.tables}
        summary = [
            f"erased a person ({done.entry or 'nothing new'})",
            *plan.summary(),
            f"{done.objects} old objects removed",
        ]
        ctx.ledger.append(kinds.DATA_APPLIED, app=app, body={**body, "summary": summary, "counts": counts}, lease=lease)
    return done


def ensure_secret(ctx: AppContext) -> None:
    """The secret of the hashes; made up at random and kept in ``secrets.env`` before the first erasure. Where there are
    erasures already, a missing one is an error and not a reason for another."""
    known = erasure.guard(ctx.store)
    if known.secret is None:
        from estate import secrets

        erasure.entries(ctx.store, ctx.app.key)
        made = secrets.ensure(ctx.home / "secrets.env", erasure.SECRET)[erasure.SECRET]
        ctx.store.guard = erasure.Guard(secret=made.encode(), beside=known.beside)
