"""An inverse as a run of another workflow, through the platform's private entry: found again by its key.

A run that failed is not sent again by itself, since nobody knows how far it came; when a person continues the recovery,
it is.
"""

from __future__ import annotations

import time
from typing import Final

from catalog.models import Compensation
from platforms.base import Platform, PrivateEntry, Retryable, Run, RunState, Version
from recovery.inverses.attempt import Attempt, Given, Result

LOOKUP_S: Final = 5.0
POLL_S: Final = 0.1


def attempt(
    platform: Platform,
    version: Version,
    inverse: Compensation,
    given: Given,
    *,
    key: str,
    doubt: bool,
    known: frozenset[str] = frozenset(),
) -> Attempt:
    """Send once, unless it is there. ``doubt``: an earlier attempt may have sent it. ``known`` are failed runs that a
    person has seen since. Raises ``Retryable`` when the platform cannot be asked at all."""
    entry = platform.open_private_entry(version)
    reads_back = platform.capabilities.reads_back_events
    if reads_back:
        if earlier := [r for r in platform.sent(entry).get(key, []) if r.id not in known]:
            return verdict([ended(platform, r, inverse.timeout_s) for r in earlier])
    elif doubt:
        return Attempt(result=Result.UNKNOWN, why="its answer was lost and the platform cannot be asked")
    try:
        run = platform.send(entry, {"body": dict(given), "headers": {}, "query": {}}, idempotency_key=key)
    except Retryable:
        if not reads_back:
            return Attempt(result=Result.UNKNOWN, why="its answer was lost and the platform cannot be asked")
        found = looked_up(platform, entry, key, known)
        if found is None:
            return Attempt(result=Result.AGAIN, why="the platform did not take it", sure=True)
        run = found
    return verdict([ended(platform, run, inverse.timeout_s)])


def looked_up(platform: Platform, entry: PrivateEntry, key: str, known: frozenset[str]) -> Run | None:
    """The run of a request whose answer was lost."""
    deadline = time.monotonic() + LOOKUP_S
    while True:
        if found := [r for r in platform.sent(entry).get(key, []) if r.id not in known]:
            return found[-1]
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)


def ended(platform: Platform, run: Run, timeout_s: float) -> Run:
    """The run once it ended; one that takes longer is stopped."""
    deadline = time.monotonic() + timeout_s
    while run.state.in_flight:
        if time.monotonic() > deadline:
            platform.stop(run.id)
            deadline += timeout_s
        time.sleep(POLL_S)
        run = platform.run_detail(run.id).run
    return run


def verdict(runs: list[Run]) -> Attempt:
    """What the runs of one key say together. Pure."""
    best = next((r for r in runs if r.state is RunState.SUCCESS), runs[-1])
    facts = {"run_id": best.id}
    if best.state is RunState.SUCCESS:
        return Attempt(result=Result.DONE, facts=facts)
    return Attempt(result=Result.REFUSED, why=f"its run {best.id} ended as {best.state}", sure=True, facts=facts)
