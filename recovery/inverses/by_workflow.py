"""An inverse as a run of another workflow, through the platform's private entry, delivered like any event: once.

A run that failed is not sent again by itself, since nobody knows how far it came; when a person continues the recovery,
it is. An answer that was lost and cannot be looked up makes it unknown: it is never sent again until a person looked.
"""

from __future__ import annotations

from catalog.models import Compensation
from platforms.base import Run
from recovery.context import AppContext
from recovery.delivery import Courier, Delivered, Outcome
from recovery.errors import StepFailed, one_line
from recovery.inverses.attempt import Attempt, Given, Result
from recovery.private import Private


def attempt(
    ctx: AppContext,
    courier: Courier,
    copy: Private,
    inverse: Compensation,
    given: Given,
    *,
    key: str,
    known: frozenset[str] = frozenset(),
) -> Attempt:
    """Send once through the open ``copy``, unless it is there. ``known`` are failed runs that a person has seen since.
    Raises ``PlatformError`` when the platform cannot be asked at all."""
    event = {"body": dict(given), "headers": {}, "query": {}}

    def send() -> Run:
        return ctx.platform.send(copy.entry, event, idempotency_key=key)

    def look_up() -> list[Run]:
        return ctx.platform.sent(copy.entry).get(key, [])

    # The runs of a private copy are told by `sent`, and whether surely is what this capability says; copies are made so
    # that the platform keeps their runs.
    reads_back = ctx.platform.capabilities.reads_back_events
    try:
        delivered = courier.deliver(
            workflow=str(inverse.workflow),
            key=key,
            send=send,
            look_up=look_up if reads_back else None,
            known=known,
            end_s=inverse.timeout_s,
        )
    except StepFailed as error:  # it goes on, and cannot be stopped
        return Attempt(result=Result.LOST, why=one_line(error))
    return verdict(delivered)


def verdict(delivered: Delivered) -> Attempt:
    """What a delivery means for the inverse. Pure."""
    facts = {"run_id": delivered.run.id} if delivered.run else {}
    if delivered.outcome is Outcome.DONE:
        return Attempt(result=Result.DONE, facts=facts)
    if delivered.outcome is Outcome.FAILED:
        what = f"its run {delivered.run.id} ended as {delivered.run.state}" if delivered.run else "its run failed"
        what += "" if delivered.stopped is None else f": Reinstate stopped it after {delivered.stopped:g} s (timeout_s)"
        return Attempt(result=Result.REFUSED, why=what, sure=True, facts=facts)
    return Attempt(result=Result.UNKNOWN, why=delivered.why, facts=facts)
