"""Containment: pause, drain, fence, prove. Runs in the process that noticed, straight over the platform's API.

The order is pause (the ingress first, where there is one), then drain or stop what is ``running``, ``waiting`` or
``new``, then the fence, then the settle time without an attributed write. The pause counts as proven only when the
platform says inactive, its entry answers as paused, nothing is in flight and nothing was written
(:mod:`recovery.quieting`). If that cannot be shown in time the fence goes up all the same (no write can do more harm)
and :class:`PauseNotProven` names what is still alive.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from ledger import kinds
from platforms.base import PlatformError
from platforms.limits import limits
from recovery import dependents, history
from recovery.context import AppContext
from recovery.errors import PauseNotProven, RecoveryError, one_line
from recovery.quieting import (
    IN_FLIGHT,
    Say,
    Stopped,
    continued,
    cut,
    drain,
    dropped,
    in_flight,
    not_proven,
    proof,
    settle,
)
from recovery.seen import Look
from snapshots import fence, position
from snapshots.errors import SnapshotError

__all__ = ["IN_FLIGHT", "Contained", "Say", "contain", "in_flight", "live_before", "quiet", "recorded"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contained:
    """What was paused. ``active_before`` and ``live_before`` are what a resume restores, exactly. ``dropped_runs`` are
    those that the pause itself threw away; ``proof`` says what it rests on."""

    incident: str
    workflows: tuple[str, ...]
    active_before: tuple[str, ...]
    live_before: dict[str, str]
    stopped_runs: tuple[str, ...]
    seconds: float
    at: str
    dropped_runs: tuple[str, ...] = ()
    proof: tuple[str, ...] = ()


def quiet(_: str) -> None:
    """Say nothing."""


def contain(ctx: AppContext, keys: Iterable[str], *, incident: str, say: Say = quiet) -> Contained:
    """Pause ``keys`` and their dependents and prove it. Idempotent: a repeated call keeps the first record of what
    was active and proves the pause again. Raises :class:`PauseNotProven`; whatever fails, the fence goes up."""
    started = time.monotonic()
    known = (recorded(ctx, incident) or {}).get("workflows", ())
    why = dependents.closure(ctx.app, [*keys, *known])
    ids: dict[str, str] = {}
    failure: PlatformError | RecoveryError | None = None
    try:
        ids = pause(ctx, why, incident, say)
        if wider := with_callers(ctx, why):
            why = wider
            ids = pause(ctx, why, incident, say)
    except (PlatformError, RecoveryError) as error:
        failure = error
    closure = tuple(sorted(why))
    stopped = Stopped()
    try:
        with ctx.connect("recoverer", "fence") as connection:
            try:
                since = position.current(connection)
                connection.rollback()
                if failure is not None:
                    raise PauseNotProven(not_proven(ctx.app.key, one_line(failure))) from failure
                refuse_revived(ctx, incident)
                drain(ctx, ids, stopped, say, fenced=False)
            finally:
                raise_fence(ctx, connection, closure, incident)
            proven = settle(ctx, connection, ids, ctx.roles(closure), since, stopped, say)
            begun = ctx.ledger.entries(incident=incident, kinds=["contain.started"])[0].at
            lost = dropped(ctx, ids, begun, stopped)
    except (PlatformError, RecoveryError) as error:
        body: dict[str, Any] = {"workflows": list(closure), "reason": one_line(error)}
        if isinstance(error, Revived):
            body["went_on"] = list(error.runs)
        ctx.ledger.append("contain.failed", app=ctx.app.key, incident=incident, body=body)
        raise
    seconds = time.monotonic() - started
    active_before = (recorded(ctx, incident) or {}).get("active_before", [])
    rests_on = proof(
        ctx.platform.capabilities,
        roles=ctx.roles(closure),
        settle_s=ctx.app.containment.settle_s,
        dropped_runs=lost,
    )
    gone = sorted(set(closure) - set(ids))
    rests_on += [f"{key} is not in the platform any more: nothing of it can run" for key in gone]
    entry = ctx.ledger.append(
        "contain.proven",
        app=ctx.app.key,
        incident=incident,
        body={
            "workflows": list(closure),
            "roles": list(ctx.roles(closure)),
            "active_before": active_before,
            "stopped_runs": list(stopped.runs),
            "cut_runs": sorted(stopped.cut),
            "dropped_runs": lost,
            "because": {key: reason for key, reason in sorted(why.items()) if reason},
            "proof": rests_on,
            "limits": list(limits(ctx.platform.capabilities)),
            "seconds": round(seconds, 3),
            "position": {**asdict(proven), "at": proven.at.isoformat()},
        },
    )
    say(f"pause proven and fence up after {seconds:.1f} s; {len(stopped.runs)} unfinished runs were stopped")
    with suppress(PlatformError, SnapshotError):  # what was live goes into our own history, if it can be had now
        history.observe(ctx)
    return Contained(
        incident=incident,
        workflows=closure,
        active_before=tuple(active_before),
        live_before=live_before(ctx, incident),
        stopped_runs=tuple(stopped.runs),
        seconds=seconds,
        at=entry.at.isoformat(),
        dropped_runs=tuple(lost),
        proof=tuple(rests_on),
    )


def would_pause(ctx: AppContext, keys: Iterable[str]) -> dict[str, str]:
    """What :func:`contain` would pause, each with the reason (empty for ``keys``). Changes nothing."""
    why = dependents.closure(ctx.app, keys)
    return with_callers(ctx, why) or why


def with_callers(ctx: AppContext, why: Mapping[str, str]) -> dict[str, str]:
    """``why`` with the workflows that call one of them, and what depends on those; empty when that adds nothing."""
    others = [w.key for w in ctx.app.workflows if w.key not in why]
    if not others:
        return {}
    calls = dependents.read_calls(ctx.app, ctx.platform, ctx.infos(partly=True), of=others)
    wider = dependents.closure(ctx.app, why, calls)
    return {k: why.get(k, reason) for k, reason in wider.items()} if len(wider) > len(why) else {}


def pause(ctx: AppContext, keys: Iterable[str], incident: str, say: Say) -> dict[str, str]:
    """Deactivate the workflows, once it is on record which of them were active with which version: after a kill
    nobody could tell any more. Returns the ids of those that the platform has."""
    closure = tuple(sorted(keys))
    before: dict[str, Any] = recorded(ctx, incident) or {"workflows": [], "active_before": []}
    infos = ctx.infos(partly=True)
    known = live_before(ctx, incident)
    deleted = {k: last for k in closure if k not in infos and (last := history.newest(ctx, k)) is not None}
    versions: dict[str, str] = {k: last.used for k, last in deleted.items() if last.active and k not in known}
    if missing := [k for k in closure if k not in before["workflows"]]:
        active = {k for k in missing if (infos[k].active if k in infos else k in versions)}
        body = {"workflows": list(closure), "active_before": sorted({*active, *before["active_before"]})}
        ctx.ledger.append("contain.started", app=ctx.app.key, incident=incident, body=body)
    say(f"pausing {', '.join(closure)}")
    was_active = [k for k in closure if k in (recorded(ctx, incident) or before)["active_before"]]
    if ctx.events is not None:
        from recovery import held

        # Before the first event is turned away. What was switched off already goes on answering as it did.
        held.hold(ctx, was_active, incident)
    failures: list[PlatformError] = []
    unread: set[str] = set()
    there = [k for k in closure if k in infos]
    with ThreadPoolExecutor(max_workers=max(1, len(closure))) as pool:
        unknown = [k for k in there if infos[k].active and k not in known]
        live = {k: pool.submit(ctx.platform.live_version, infos[k].id) for k in unknown}
        for key, future in live.items():
            try:
                if (version := future.result()) is not None:
                    versions[key] = version.hash
            except PlatformError as error:  # the pause comes first, whatever cannot be read
                failures.append(error)
                unread.add(key)
        # An earlier pause switched off what it could not read: the platform will not tell any more. What could not be
        # read just now may still be told by a pause that finds it active.
        owed = [k for k in was_active if k not in known and k not in versions and k not in unread]
        remembered = {k: v for k in owed if (v := last_live(ctx, k, incident)) is not None}
        for key in owed:
            told = f"by our own history it was {remembered[key][:12]}" if key in remembered else "nor does our history"
            say(f"{key}: the platform does not tell which version was live; {told}")
        if versions or remembered:
            read: dict[str, Any] = {"versions": versions | remembered}
            if others := {*remembered, *(k for k in deleted if k in versions)}:
                read["sources"] = dict.fromkeys(sorted(others), "history")
            ctx.ledger.append("contain.live-before", app=ctx.app.key, incident=incident, body=read)
        for done in [pool.submit(ctx.platform.deactivate, infos[k].id) for k in there]:
            try:
                done.result()
            except PlatformError as error:
                failures.append(error)
    if failures:
        raise failures[0]
    return {k: infos[k].id for k in there}


def recorded(ctx: AppContext, incident: str) -> dict[str, Any] | None:
    """The widest containment recorded for the incident so far."""
    entries = ctx.ledger.entries(incident=incident, kinds=["contain.started"])
    return dict(entries[-1].body) if entries else None


def is_proven(ctx: AppContext, incident: str) -> bool:
    """Whether the last thing that happened to the incident's pause is its proof."""
    kinds = ["contain.started", "contain.proven", "contain.failed", "resume.begun"]
    entries = ctx.ledger.entries(incident=incident, kinds=kinds)
    return bool(entries) and entries[-1].kind == "contain.proven"


def live_before(ctx: AppContext, incident: str) -> dict[str, str]:
    """Live version by workflow when it was first paused, as it was read then. Where it was not read: what a person
    published since, else what our own history had seen live, or an override named."""
    found: dict[str, str] = {}
    read: set[str] = set()
    for entry in ctx.ledger.entries(incident=incident, kinds=[kinds.CONTAIN_LIVE_BEFORE]):
        for key, version in entry.body["versions"].items():
            if key not in found and key not in entry.body.get("sources", {}):
                read.add(key)
            found.setdefault(key, version)
    started = ctx.ledger.entries(incident=incident, kinds=[kinds.CONTAIN_STARTED])
    if started and (open_ := set(started[-1].body["active_before"]) - read):
        published = [kinds.WORKFLOW_PUBLISHED]
        for entry in ctx.ledger.entries(app=ctx.app.key, kinds=published, after_seq=started[0].seq):
            if entry.incident is None and entry.body["workflow"] in open_:
                found[entry.body["workflow"]] = str(entry.body["version"])
    return found


def last_live(ctx: AppContext, workflow: str, incident: str) -> str | None:
    """The version that our own history saw live last before the incident paused the workflow. What was seen since may
    be anything: somebody may have saved a draft meanwhile."""
    started = ctx.ledger.entries(incident=incident, kinds=[kinds.CONTAIN_STARTED])
    paused_at = next((e.at for e in started if workflow in e.body["workflows"]), None)
    for item in reversed(ctx.book.record().items):
        if item.workflow != workflow or (paused_at is not None and item.at >= paused_at):
            continue
        live = item.version if isinstance(item, Look) else None if item.passed else item.live
        if live is not None:
            return live
    return None


def not_on_record(ctx: AppContext, workflow: str, incident: str) -> str:
    """What keeps a workflow from being brought back whose version nobody knows: a sentence without its next step."""
    info = ctx.infos(partly=True).get(workflow)
    saved = "" if info is None else f" ({ctx.platform.draft_version(info.id).hash[:12]})"
    return (
        f"workflow {workflow}: which version was live before incident {incident} is neither on record nor in our own "
        f"history, and what is saved{saved} may be another"
    )


class Revived(PauseNotProven):
    """A run that an earlier pause had stopped went on."""

    def __init__(self, app: str, runs: list[str]) -> None:
        super().__init__(not_proven(app, continued(runs)))
        self.runs = tuple(runs)


def refuse_revived(ctx: AppContext, incident: str) -> None:
    """A run that this incident's pause had stopped, and that is on record as such, went on since. Said once: then it
    has ended, and its end is what the platform says. Raises :class:`Revived`."""
    entries = ctx.ledger.entries(incident=incident, kinds=["contain.proven", "contain.failed"])
    before = {r for e in entries if e.kind == "contain.proven" for r in e.body.get("cut_runs", ())}
    before -= {r for e in entries for r in e.body.get("went_on", ())}
    if went_on := sorted(before - cut(ctx, before)):
        raise Revived(ctx.app.key, went_on)


def raise_fence(ctx: AppContext, connection: psycopg.Connection, keys: Iterable[str], incident: str) -> None:
    """Fence the workflows' roles; raises when one of them can still write."""
    roles = ctx.roles(tuple(keys))
    for role in roles:
        fence.raise_(connection, role, incident)
    leaks = fence.leaks(connection, roles)
    connection.rollback()
    if leaks:
        named = "; ".join(f"{x.role} can {x.privilege} {x.table} through {x.through}" for x in leaks[:5])
        raise RecoveryError(f"fence of app {ctx.app.key}: {named}; revoke it by hand, then contain again")


def lower_fence(ctx: AppContext, connection: psycopg.Connection, keys: Iterable[str], incident: str) -> None:
    """Give the workflows' roles back exactly the grants that the fence took."""
    for role in ctx.roles(tuple(keys)):
        fence.lower(connection, role, incident)
