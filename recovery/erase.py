"""Erasing a person on record: shown, then done under the app's lease, with nothing of the person in the ledger.

The past lies in the journal and the points, and in the queue of the ingress, where the app has one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ingress.model import Person
from ledger import kinds
from recovery.containment import Say, quiet
from recovery.context import AppContext
from snapshots.erasure import apply, erasure, find
from snapshots.erasure import plan as erasure_plan
from snapshots.erasure.apply import Erased
from snapshots.erasure.find import Who
from snapshots.erasure.plan import ErasePlan, Left

LEASE_S = 60.0
SAY_EVERY_S = 5.0
INSIDE = "they have the value inside another text; they go with `keep_days`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What an erasure would do now. ``events`` are those of the queue that have ended, and go."""

    data: ErasePlan
    events: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return self.data.empty and not self.events

    @property
    def plan_hash(self) -> str:
        return self.data.plan_hash

    def summary(self) -> list[str]:
        """Sentences for the record."""
        return self.data.summary() + [f"{len(self.events)} events of the ingress"] * bool(self.events)


def subjects(ctx: AppContext) -> Mapping[str, str]:
    """Table -> column that names a person, as the catalogue says."""
    return {t.name: t.subject for t in ctx.app.tables if t.subject}


def preview(ctx: AppContext, who: Who, *, say: Say = quiet) -> Preview:
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
        data = erasure_plan.plan(connection, ctx.store, ctx.app.key, found)
    queued = ctx.events.of_person(who.value) if ctx.events is not None else Person()
    left = (Left(where="events", rows=len(queued.inside), what=INSIDE),) * bool(queued.inside)
    waiting = (
        f"{len(queued.open)} events of this person have not ended (event {queued.open[0]}) and would bring them back: "
        "let them be sent, or discard or settle them with `reinstate events`"
        if queued.open
        else ""
    )
    return Preview(
        data=data,
        events=queued.ended,
        left=(*data.left, *left),
        problems=(*data.problems, *([waiting] if waiting else [])),
    )


def erase(ctx: AppContext, who: Who, plan: Preview, *, by: str, reason: str, say: Say = quiet) -> Erased:
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
        forgotten = ctx.events.forget(plan.events) if ctx.events is not None else 0
        counts = {t.table: {"rows": t.rows, "images": t.images, "stored": t.stored} for t in plan.data.tables}
        summary = [
            f"erased a person ({done.entry or 'nothing new'})",
            *plan.summary(),
            f"{done.objects} old objects removed, {forgotten} events of the ingress forgotten",
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
