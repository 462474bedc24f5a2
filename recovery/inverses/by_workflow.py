"""An inverse as a run of another workflow, through the platform's private entry, delivered like any event: once.

A run that failed is not sent again by itself, since nobody knows how far it came; when a person continues the recovery,
it is. An answer that was lost and cannot be looked up makes it unknown: it is never sent again until a person looked.
"""

from __future__ import annotations

import time
from typing import Final

from catalog.models import Compensation
from platforms.base import Run, Version
from recovery.context import AppContext
from recovery.delivery import Courier, Delivered, Outcome, of_run
from recovery.errors import StepFailed, one_line
from recovery.inverses.attempt import Attempt, Given, Result

POLL_S: Final = 0.1


def attempt(
    ctx: AppContext,
    courier: Courier,
    version: Version,
    inverse: Compensation,
    given: Given,
    *,
    key: str,
    known: frozenset[str] = frozenset(),
) -> Attempt:
    """Send once, unless it is there. ``known`` are failed runs that a person has seen since. Raises ``PlatformError``
    when the platform cannot be asked at all."""
    entry = ctx.platform.open_private_entry(version)
    event = {"body": dict(given), "headers": {}, "query": {}}

    def send() -> Delivered:
        run = ctx.platform.send(entry, event, idempotency_key=key)
        return of_run(ended(ctx, run, inverse.timeout_s))

    def look_up() -> list[Run]:
        return ctx.platform.sent(entry).get(key, [])

    reads_back = ctx.platform.capabilities.reads_back_events
    try:
        delivered = courier.deliver(
            workflow=str(inverse.workflow), key=key, send=send, look_up=look_up if reads_back else None, known=known
        )
    except StepFailed as error:
        return Attempt(result=Result.AGAIN, why=one_line(error), sure=True)
    return verdict(delivered)


def ended(ctx: AppContext, run: Run, timeout_s: float) -> Run:
    """The run once it ended; one that takes longer is stopped."""
    deadline = time.monotonic() + timeout_s
    while run.state.in_flight:
        if time.monotonic() > deadline:
            ctx.platform.stop(run.id)
            deadline += timeout_s
        time.sleep(POLL_S)
        run = ctx.platform.run_detail(run.id).run
    return run


def verdict(delivered: Delivered) -> Attempt:
    """What a delivery means for the inverse. Pure."""
    facts = {"run_id": delivered.run.id} if delivered.run else {}
    if delivered.outcome is Outcome.DONE:
        return Attempt(result=Result.DONE, facts=facts)
    if delivered.outcome is Outcome.FAILED:
        what = f"its run {delivered.run.id} ended as {delivered.run.state}" if delivered.run else "its run failed"
        return Attempt(result=Result.REFUSED, why=what, sure=True, facts=facts)
    return Attempt(result=Result.UNKNOWN, why=delivered.why, facts=facts)
