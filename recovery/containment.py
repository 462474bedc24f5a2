"""Containment: pause, drain, fence, prove. Runs in the process that noticed, straight over the platform's API.

The order is pause, then drain or stop what is ``running``, ``waiting`` or ``new``, then the fence, then the settle
time without an attributed write. The pause counts as proven only when the platform says inactive, its entry answers
as paused, nothing is in flight and nothing was written. If that cannot be shown in time the fence goes up all the
same (no write can do more harm) and :class:`PauseNotProven` names what is still alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from platforms.base import PlatformError, Run, RunState
from recovery.context import AppContext
from recovery.errors import PauseNotProven, RecoveryError, one_line
from snapshots import fence, position
from snapshots.model import Position

IN_FLIGHT = tuple(s for s in RunState if s.in_flight)
POLL_S = 0.05
STOPS_AT_ONCE = 8

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contained:
    """What was paused. ``active_before`` and ``live_before`` are what a resume restores, exactly."""

    incident: str
    workflows: tuple[str, ...]
    active_before: tuple[str, ...]
    live_before: dict[str, str]
    stopped_runs: tuple[str, ...]
    seconds: float
    at: str


def quiet(_: str) -> None:
    """Say nothing."""


def contain(ctx: AppContext, keys: Iterable[str], *, incident: str, say: Say = quiet) -> Contained:
    """Pause ``keys`` and their dependents and prove it. Idempotent: a repeated call keeps the first record of what
    was active and proves the pause again. Raises :class:`PauseNotProven`; whatever fails, the fence goes up."""
    started = time.monotonic()
    closure = tuple(
        sorted({*ctx.app.dependents(frozenset(keys)), *(recorded(ctx, incident) or {}).get("workflows", ())})
    )
    ids: dict[str, str] = {}
    failure: PlatformError | RecoveryError | None = None
    try:
        ids = pause(ctx, closure, incident, say)
    except (PlatformError, RecoveryError) as error:
        failure = error
    try:
        with ctx.connect("recoverer", "fence") as connection:
            try:
                since = position.current(connection)
                connection.rollback()
                if failure is not None:
                    raise PauseNotProven(not_proven(ctx, one_line(failure))) from failure
                stopped = drain(ctx, closure, ids, say)
            finally:
                raise_fence(ctx, connection, closure, incident)
            stopped, proven = settle(ctx, connection, closure, ids, since, stopped, say)
    except (PlatformError, RecoveryError) as error:
        body = {"workflows": list(closure), "reason": one_line(error)}
        ctx.ledger.append("contain.failed", app=ctx.app.key, incident=incident, body=body)
        raise
    seconds = time.monotonic() - started
    active_before = (recorded(ctx, incident) or {}).get("active_before", [])
    entry = ctx.ledger.append(
        "contain.proven",
        app=ctx.app.key,
        incident=incident,
        body={
            "workflows": list(closure),
            "roles": list(ctx.roles(closure)),
            "active_before": active_before,
            "stopped_runs": stopped,
            "seconds": round(seconds, 3),
            "position": {**asdict(proven), "at": proven.at.isoformat()},
        },
    )
    say(f"pause proven and fence up after {seconds:.1f} s; {len(stopped)} unfinished runs were stopped")
    return Contained(
        incident=incident,
        workflows=closure,
        active_before=tuple(active_before),
        live_before=live_before(ctx, incident),
        stopped_runs=tuple(stopped),
        seconds=seconds,
        at=entry.at.isoformat(),
    )


def pause(ctx: AppContext, closure: tuple[str, ...], incident: str, say: Say) -> dict[str, str]:
    """Deactivate the workflows, once it is on record which of them were active with which version: after a kill
    nobody could tell any more. Returns their ids in the platform."""
    before: dict[str, Any] = recorded(ctx, incident) or {"workflows": [], "active_before": []}
    infos = ctx.infos()
    if missing := [k for k in closure if k not in before["workflows"]]:
        active = {k for k in missing if infos[k].active}
        body = {"workflows": list(closure), "active_before": sorted({*active, *before["active_before"]})}
        ctx.ledger.append("contain.started", app=ctx.app.key, incident=incident, body=body)
    known = live_before(ctx, incident)
    say(f"pausing {', '.join(closure)}")
    failures: list[PlatformError] = []
    versions: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=len(closure)) as pool:
        unknown = [k for k in closure if infos[k].active and k not in known]
        live = {k: pool.submit(ctx.platform.live_version, infos[k].id) for k in unknown}
        for key, future in live.items():
            try:
                if (version := future.result()) is not None:
                    versions[key] = version.hash
            except PlatformError as error:  # the pause comes first, whatever cannot be read
                failures.append(error)
        if versions:
            read = {"versions": versions}
            ctx.ledger.append("contain.live-before", app=ctx.app.key, incident=incident, body=read)
        for done in [pool.submit(ctx.platform.deactivate, infos[k].id) for k in closure]:
            try:
                done.result()
            except PlatformError as error:
                failures.append(error)
    if failures:
        raise failures[0]
    return {k: infos[k].id for k in closure}


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
    """Live version by workflow when it was first paused."""
    found: dict[str, str] = {}
    for entry in ctx.ledger.entries(incident=incident, kinds=["contain.live-before"]):
        for key, version in entry.body["versions"].items():
            found.setdefault(key, version)
    return found


def in_flight(ctx: AppContext, ids: Iterable[str]) -> list[Run]:
    """Unfinished runs of these workflows; one question to the platform, whatever their number."""
    wanted = set(ids)
    return [r for r in ctx.platform.runs(states=IN_FLIGHT) if r.workflow_id in wanted]


def latest_runs(ctx: AppContext, ids: dict[str, str]) -> dict[str, str | None]:
    """The youngest run of each workflow: whether one started in between, however short, shows in the next answer."""
    with ThreadPoolExecutor(max_workers=len(ids)) as pool:
        return dict(zip(ids, pool.map(ctx.platform.latest_run, ids.values()), strict=True))


def last_look(ctx: AppContext, ids: dict[str, str]) -> tuple[dict[str, str | None], list[Run], list[str]]:
    """The youngest run of each workflow, what is in flight, and which of them are active; asked at the same time."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        latest = pool.submit(latest_runs, ctx, ids)
        alive = pool.submit(in_flight, ctx, ids.values())
        infos = pool.submit(ctx.infos)
        return latest.result(), alive.result(), [k for k in ids if infos.result()[k].active]


def drain(ctx: AppContext, keys: tuple[str, ...], ids: dict[str, str], say: Say) -> list[str]:
    """Wait until nothing starts or runs; stop what outlasts the drain time. Returns the stopped runs' ids.

    What is in flight is asked again after every entry answered as paused: nothing can have started since."""
    limits = ctx.app.containment
    began = time.monotonic()
    stopped: dict[str, None] = {}
    answering = list(keys)
    with ThreadPoolExecutor(max_workers=STOPS_AT_ONCE) as pool:
        while True:
            paused = pool.map(lambda k: ctx.platform.ingress_paused(ids[k]), answering)
            answering = [k for k, is_paused in zip(answering, paused, strict=True) if not is_paused]
            alive = in_flight(ctx, ids.values())
            elapsed = time.monotonic() - began
            if not answering and not alive:
                return list(stopped)
            if elapsed > limits.timeout_s:
                what = [f"the entry of {k} still answers" for k in answering]
                what += [f"run {r.id} of {r.workflow_id} is {r.state}" for r in alive[:5]]
                raise PauseNotProven(not_proven(ctx, "; ".join(what)))
            if elapsed > limits.drain_s and alive:
                say(f"stopping {len(alive)} runs that are unfinished after {elapsed:.1f} s")
                list(pool.map(lambda r: ctx.platform.stop(r.id), alive))
                stopped.update(dict.fromkeys(r.id for r in alive))
            time.sleep(POLL_S)


def not_proven(ctx: AppContext, what: str) -> str:
    return (
        f"app {ctx.app.key}: the pause is not proven: {what}; the fence is up so nothing can be written; "
        "restart the platform, then run `reinstate contain` again"
    )


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


def settle(
    ctx: AppContext,
    connection: psycopg.Connection,
    keys: tuple[str, ...],
    ids: dict[str, str],
    since: Position,
    stopped: list[str],
    say: Say,
) -> tuple[list[str], Position]:
    """Wait for open transactions of the fenced roles to end, then for the settle time without a write of theirs and
    without a run: a pause that lies shows in runs that still start. Returns all stopped runs and the position from
    which on nothing was written.

    A statement that was running when its grant was revoked still completes: the fence alone proves nothing."""
    limits = ctx.app.containment
    roles = ctx.roles(keys)
    began = time.monotonic()
    while True:
        youngest = latest_runs(ctx, ids)
        found = fence.wait_quiet(connection, roles, since=since, settle_s=limits.settle_s, timeout_s=limits.timeout_s)
        if not found.quiet:
            open_ones = ", ".join(f"{w.role} (process {w.pid}, {w.state})" for w in found.writers)
            raise PauseNotProven(
                not_proven(ctx, f"open transactions of {open_ones}" if open_ones else "writes keep arriving")
            )
        proven = position.current(connection)
        connection.rollback()
        now, alive, active = last_look(ctx, ids)
        if active:
            raise PauseNotProven(not_proven(ctx, f"{', '.join(active)} came alive again"))
        started = [k for k in keys if now[k] != youngest[k]]
        if not started and not alive:
            return stopped, proven
        if time.monotonic() - began > limits.timeout_s:
            raise PauseNotProven(not_proven(ctx, f"runs of {', '.join(started) or 'the workflows'} keep starting"))
        stopped = list(dict.fromkeys([*stopped, *drain(ctx, keys, ids, say)]))
