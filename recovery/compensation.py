"""Performing one inverse once: attempts with one key, each begun in the ledger before it is made, and one outcome.

An attempt that may have happened (no answer, a process that died) leaves a *doubt*. SQL and, where the platform can be
asked, workflow runs are read back, which ends it; an HTTP call is sent again with the same key. With the attempts used
up, a doubt makes the outcome ``unknown``, else it is ``failed``: a person decides then, never a guess.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from catalog import secrets
from catalog.models import Compensation as Inverse
from ledger import kinds
from platforms.base import Version
from recovery import compensating, private
from recovery.compensated import StepRecord
from recovery.compensating import Facts, Scalar
from recovery.containment import Say, quiet
from recovery.context import AppContext
from recovery.delivery import Courier
from recovery.inverses import by_http, by_sql, by_workflow
from recovery.inverses.attempt import Attempt, Given, Result
from recovery.plan import Compensation

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0

Status = Literal["done", "not-needed", "failed", "unknown", "manual"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What an inverse belongs to: the recovery whose runs are undone (or an undo by a person, without an incident).
    ``version_of`` gives the version of a workflow that is to do it, ``paused`` are workflows that it cannot call."""

    recovery: str
    incident: str | None
    plan_hash: str
    version_of: Callable[[str], Version]
    paused: Collection[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    status: Status
    error: str = ""

    @property
    def taken_back(self) -> bool:
        return self.status in ("done", "not-needed")


def once(
    ctx: AppContext, frame: Frame, one: Compensation, facts: Facts, past: StepRecord | None, *, say: Say = quiet
) -> Outcome:
    """Take one step of one run back, unless that is on record. ``past`` is what the ledger knows of it.

    Raises what a database or platform that cannot be reached raises: nothing is concluded then, and the next call goes
    on with the same key."""
    if past is not None and past.taken_back:
        return Outcome(status="done" if past.status == "done" else "not-needed")
    began = time.monotonic()
    wrong, inverse, given = ready(ctx, one, facts)
    if inverse is None:
        return record(ctx, frame, one, Outcome(status="manual", error=wrong), began)
    doubt = past is not None and (past.open or past.status == "unknown")
    number = past.attempts if past is not None else 0
    waits = by_turns(inverse.retries)
    while True:
        number += 1
        ctx.ledger.append(kinds.COMPENSATION_BEGUN, **about(ctx, frame, one, attempt=number))
        got = attempt(ctx, frame, one, inverse, given, past)
        doubt = (doubt and not got.sure) or got.result in (Result.LOST, Result.UNKNOWN)
        wait = next(waits, None) if got.result in (Result.AGAIN, Result.LOST) else None
        if wait is None:
            return record(ctx, frame, one, concluded(got, doubt=doubt), began, facts=got.facts)
        say(f"{one.step} of run {one.run_id}: {got.why}; trying again with the same key")
        time.sleep(max(wait, got.wait_s or 0.0))


def ready(ctx: AppContext, one: Compensation, facts: Facts) -> tuple[str, Inverse | None, dict[str, Scalar]]:
    """The inverse as it was planned, with its values from the run; else what is in the way."""
    declared = next((s for s in ctx.app.workflow(one.workflow).steps if s.name == one.step), None)
    inverse = declared.compensation if declared else None
    if inverse is None or compensating.digest(inverse) != one.declared:
        return "the catalogue declares it otherwise than the plan: put the declaration back", None, {}
    found = compensating.values(inverse, facts, one.item)
    given = {name: value for name, value in found.items() if value is not None}
    if missing := sorted(found.keys() - given.keys()):
        return f"the platform no longer tells {', '.join(missing)} of the run", None, {}
    return "", inverse, given


def attempt(
    ctx: AppContext, frame: Frame, one: Compensation, inverse: Inverse, given: Given, past: StepRecord | None
) -> Attempt:
    match inverse.kind:
        case "sql":
            with ctx.connect("recoverer", "compensation") as connection:
                return by_sql.attempt(
                    connection, inverse, given, key=one.key, recovery=frame.recovery, plan_hash=frame.plan_hash
                )
        case "http":
            resolve = partial(secrets.resolve, env_file=ctx.home / "secrets.env", app=ctx.app.key)
            return by_http.attempt(inverse, given, key=one.key, resolve=resolve)
        case "workflow":
            copy = private.opened(ctx, str(inverse.workflow), frame.version_of, frame.paused)
            known = past.runs if past is not None and not past.open else frozenset[str]()
            courier = Courier(ctx, incident=frame.incident, recovery=frame.recovery)
            return by_workflow.attempt(ctx, courier, copy, inverse, given, key=one.key, known=known)


def concluded(got: Attempt, *, doubt: bool) -> Outcome:
    """The outcome after the last attempt. Pure."""
    if got.result is Result.DONE:
        return Outcome(status="done")
    if got.result is Result.NOT_NEEDED:
        return Outcome(status="not-needed", error=got.why)
    return Outcome(status="unknown" if doubt else "failed", error=got.why)


def by_turns(retries: int) -> Any:
    """Seconds to wait before each further attempt."""
    for turn in range(retries):
        yield min(FIRST_WAIT_S * 2**turn, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def about(ctx: AppContext, frame: Frame, one: Compensation, **body: Any) -> dict[str, Any]:
    """Fields of the ledger's entries on one inverse."""
    item = {} if one.item is None else {"item": one.item}
    named = {"workflow": one.workflow, "run": one.run_id, "step_name": one.step, "key": one.key, **item}
    return {
        "app": ctx.app.key,
        "incident": frame.incident,
        "recovery": frame.recovery,
        "body": {**named, **body},
    }


def record(
    ctx: AppContext,
    frame: Frame,
    one: Compensation,
    outcome: Outcome,
    began: float,
    *,
    facts: Any = None,
) -> Outcome:
    body: dict[str, Any] = {"status": outcome.status, "seconds": round(time.monotonic() - began, 3), **(facts or {})}
    if outcome.error:
        body["error"] = outcome.error
    if not outcome.taken_back and one.manual:
        body["manual"] = one.manual
    ctx.ledger.append(kinds.COMPENSATION_ENDED, **about(ctx, frame, one, **body))
    return outcome
