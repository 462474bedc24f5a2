"""What an undo that a person asked for does not reach: steps of the runs that left the rows, and inverses that an
earlier recovery did outside them. Shown with the undo; on request the runs' declared inverses are done after it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from platforms.base import Permanent, PlatformError, Version
from recovery import compensated, compensation, facts
from recovery.compensating import NAMED, number
from recovery.compensation import Outcome
from recovery.containment import Say, quiet
from recovery.context import AppContext
from recovery.errors import Refused, one_line
from recovery.plan import Compensation

BY_A_PERSON = "undo"
"""Stands for the incident in the keys: a run that is undone twice is compensated once."""
LEASE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """``unknown`` are runs that the platform does not know; ``unreachable`` says why it could not be asked."""

    compensations: tuple[Compensation, ...] = ()
    refusals: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    unreachable: str = ""

    @property
    def possible(self) -> int:
        return sum(c.action == "do" for c in self.compensations)


def look(ctx: AppContext, runs: Iterable[str]) -> Outside:
    """What the runs did outside their rows, as the catalogue declares it. Asks the platform only if it declares
    anything. Changes nothing."""
    asked = list(dict.fromkeys(runs))
    if not asked or not facts.concerned(ctx):
        return Outside()
    found, unknown = [], []
    try:
        keys = {info.id: key for key, info in ctx.infos().items()}
        for run in asked:
            try:
                seen = ctx.platform.run_detail(run).run
            except Permanent:
                unknown.append(run)
                continue
            if (workflow := keys.get(seen.workflow_id)) is not None:
                found.append(facts.Undone(workflow=workflow, run_id=run, seen=seen))
        decided = facts.decided(ctx, BY_A_PERSON, found)
    except PlatformError as error:
        return Outside(unreachable=one_line(error))
    return Outside(compensations=decided.compensations, refusals=decided.refusals, unknown=tuple(unknown))


def refuse(outside: Outside) -> None:
    """Raises :class:`Refused` where the declared inverses cannot all be done: then nothing is begun."""
    if outside.unreachable:
        raise Refused(f"undo: the runs' steps cannot be looked up ({outside.unreachable}); undo without --compensate")
    if outside.unknown:
        raise Refused(
            f"undo: the platform does not know run {', '.join(outside.unknown)}, so nothing tells what to take back; "
            "undo without --compensate, and take it back by hand"
        )
    if outside.refusals:
        raise Refused(outside.refusals[0])


def take_back(
    ctx: AppContext, outside: Outside, *, recovery: str, plan_hash: str, say: Say = quiet
) -> list[tuple[Compensation, Outcome]]:
    """Do the inverses, latest run first, each once over all calls. A critical one that fails ends it: what comes after
    it in the order stays undone, and the next call goes on there. Takes the app's lease."""

    def live(workflow: str) -> Version:
        platform_id = ctx.infos()[workflow].id
        return ctx.platform.live_version(platform_id) or ctx.platform.draft_version(platform_id)

    frame = compensation.Frame(recovery=recovery, incident=None, plan_hash=plan_hash, version_of=live)
    done: list[tuple[Compensation, Outcome]] = []
    holder = f"compensations of an undo by process {os.getpid()} on {socket.gethostname()}"
    with ctx.ledger.lease(ctx.app.key, holder, LEASE_S) as lease:
        past = compensated.known(ctx)
        for one in (c for c in outside.compensations if c.action == "do"):
            lease.check()
            run = facts.facts_of(ctx, facts.Undone(workflow=one.workflow, run_id=one.run_id))
            outcome = compensation.once(ctx, frame, one, run, compensated.of(past, one), say=say)
            done.append((one, outcome))
            if one.critical and not outcome.taken_back:
                break
    return done


def stays_done(ctx: AppContext, recoveries: Iterable[str]) -> list[str]:
    """What undoing these recoveries does not undo: inverses done outside the database. One sentence per step."""
    kinds = {
        (w.key, s.name): s.compensation.kind for w in ctx.app.workflows for s in w.steps if s.compensation is not None
    }
    grouped: dict[tuple[str, str], list[str]] = {}
    for recovery in recoveries:
        for (workflow, run, step, _), past in compensated.known(ctx, recovery=recovery).items():
            if past.status == "done" and (past.by or kinds.get((workflow, step)) != "sql"):
                grouped.setdefault((workflow, step), []).append(run)
    return [
        f"{step} of {workflow} stays taken back for run {named(runs)}: it left the database, so no undo reaches it"
        for (workflow, step), runs in sorted(grouped.items())
    ]


def named(runs: Iterable[str]) -> str:
    unique = sorted(set(runs), key=number)
    return ", ".join(unique[:NAMED]) + (f" and {len(unique) - NAMED} more" if len(unique) > NAMED else "")
