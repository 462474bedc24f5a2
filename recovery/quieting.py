"""Getting paused workflows quiet, and proving it: nothing in flight, no open transaction, no write, no new run.

What the platform cannot tell or do shapes how: runs that it does not show are left to the fence, to the transactions
that are open in the database and to the settle time; runs that it cannot stop are waited for, behind the fence. A run
that is seen and does not end, asleep in a waiting node say, is never called quiet: it would go on after the resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg

from platforms.base import Capabilities, Permanent, Run, RunState
from recovery.errors import PauseNotProven
from snapshots import fence, position
from snapshots.model import Position

if TYPE_CHECKING:
    from recovery.context import AppContext

IN_FLIGHT = tuple(s for s in RunState if s.in_flight)
CUT = (RunState.CANCELED, RunState.CRASHED)
POLL_S = 0.05
AT_ONCE = 8

Say = Callable[[str], None]


@dataclass(kw_only=True, slots=True)
class Stopped:
    """Runs that were asked to stop. ``cut`` are those that the platform then called canceled: if one of them is
    called anything else later, it went on."""

    runs: dict[str, None] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)


def in_flight(ctx: AppContext, ids: Iterable[str]) -> list[Run]:
    """Unfinished runs of these workflows, as far as the platform tells; one question, whatever their number."""
    wanted = set(ids)
    return [r for r in ctx.platform.runs(states=IN_FLIGHT) if r.workflow_id in wanted]


def latest_runs(ctx: AppContext, ids: Mapping[str, str]) -> dict[str, str | None]:
    """The youngest run of each workflow: whether one started in between, however short, shows in the next answer."""
    with ThreadPoolExecutor(max_workers=max(1, len(ids))) as pool:
        return dict(zip(ids, pool.map(ctx.platform.latest_run, ids.values()), strict=True))


def last_look(ctx: AppContext, ids: Mapping[str, str]) -> tuple[dict[str, str | None], list[Run], list[str]]:
    """The youngest run of each workflow, what is in flight, and which of them are active; asked at the same time."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        latest = pool.submit(latest_runs, ctx, ids)
        alive = pool.submit(in_flight, ctx, ids.values())
        infos = pool.submit(ctx.infos, partly=True)
        active = [k for k in ids if (info := infos.result().get(k)) is not None and info.active]
        return latest.result(), alive.result(), active


def drain(ctx: AppContext, ids: Mapping[str, str], stopped: Stopped, say: Say, *, fenced: bool) -> None:
    """Wait until nothing starts or runs. What outlasts the drain time is stopped; where the platform cannot stop it, it
    is left to the fence, and waited for once that is up. The policy *stop* gives no drain time.

    What is in flight is asked again after every entry answered as paused: nothing can have started since."""
    limits, can = ctx.app.containment, ctx.platform.capabilities
    patience_s = limits.drain_s if limits.in_flight == "drain" else 0.0
    began = time.monotonic()
    answering = list(ids)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        while True:
            paused = pool.map(lambda k: ctx.platform.ingress_paused(ids[k]), answering)
            answering = [k for k, is_paused in zip(answering, paused, strict=True) if not is_paused]
            alive = in_flight(ctx, ids.values())
            elapsed = time.monotonic() - began
            stopped.cut |= cut(ctx, stopped.runs.keys() - stopped.cut - {a.id for a in alive})
            if not answering and not alive:
                return
            if elapsed > limits.timeout_s:
                what = [f"the entry of {k} still answers" for k in answering]
                what += [f"run {r.id} of {name_of(r, ids)} is {r.state}" for r in alive[:5]]
                raise PauseNotProven(not_proven(ctx.app.key, "; ".join(what)))
            if elapsed > patience_s and alive and can.stops_runs:
                say(f"stopping {len(alive)} runs that are unfinished after {elapsed:.1f} s")
                list(pool.map(lambda r: ctx.platform.stop(r.id), alive))
                stopped.runs.update(dict.fromkeys(r.id for r in alive))
            elif elapsed > patience_s and alive and not answering and not fenced:
                say(f"{len(alive)} runs are unfinished and cannot be stopped: they are left to the fence")
                return
            time.sleep(POLL_S)


def settle(
    ctx: AppContext,
    connection: psycopg.Connection,
    ids: Mapping[str, str],
    roles: Sequence[str],
    since: Position,
    stopped: Stopped,
    say: Say,
) -> Position:
    """Wait for open transactions of the fenced roles to end, then for the settle time without a write of theirs and
    without a run: a pause that lies shows in runs that still start. Returns the position from which on nothing was
    written.

    A statement that was running when its grant was revoked still completes: the fence alone proves nothing."""
    limits = ctx.app.containment
    began = time.monotonic()
    while True:
        youngest = latest_runs(ctx, ids)
        found = fence.wait_quiet(connection, roles, since=since, settle_s=limits.settle_s, timeout_s=limits.timeout_s)
        if not found.quiet:
            open_ones = ", ".join(f"{w.role} (process {w.pid}, {w.state})" for w in found.writers)
            raise PauseNotProven(
                not_proven(ctx.app.key, f"open transactions of {open_ones}" if open_ones else "writes keep arriving")
            )
        proven = position.current(connection)
        connection.rollback()
        now, alive, active = last_look(ctx, ids)
        if active:
            raise PauseNotProven(not_proven(ctx.app.key, f"{', '.join(active)} came alive again"))
        if went_on := sorted(stopped.cut - cut(ctx, stopped.cut)):
            raise PauseNotProven(not_proven(ctx.app.key, continued(went_on)))
        started = [k for k in ids if now[k] != youngest[k]]
        if not started and not alive:
            return proven
        if time.monotonic() - began > limits.timeout_s:
            what = [f"runs of {', '.join(started)} keep starting"] if started else []
            what += [f"run {r.id} of {name_of(r, ids)} is {r.state} and does not end" for r in alive[:5]]
            raise PauseNotProven(not_proven(ctx.app.key, "; ".join(what)))
        drain(ctx, ids, stopped, say, fenced=True)


def cut(ctx: AppContext, runs: Iterable[str]) -> set[str]:
    """Those of ``runs`` that the platform now calls canceled or crashed, or has forgotten."""

    def is_cut(run_id: str) -> bool:
        try:
            return ctx.platform.run_detail(run_id).run.state in CUT
        except Permanent:
            return True

    asked = list(runs)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return {r for r, yes in zip(asked, pool.map(is_cut, asked), strict=True) if yes}


def dropped(ctx: AppContext, ids: Mapping[str, str], since: datetime, stopped: Stopped) -> list[str]:
    """Runs that the pause itself threw away, on platforms that do so: cut off since it began, and not by us."""
    if not ctx.platform.capabilities.drops_in_flight:
        return []
    ours = set(ids.values())
    found = ctx.platform.runs(since=since, states=CUT)
    return [r.id for r in found if r.workflow_id in ours and r.id not in stopped.runs]


def continued(runs: Sequence[str]) -> str:
    """What it means that canceled runs are not canceled any more."""
    return f"run {', '.join(runs[:5])} was stopped, and went on to its end all the same"


def proof(can: Capabilities, *, roles: Sequence[str], settle_s: float, dropped_runs: Sequence[str]) -> list[str]:
    """What the pause rests on, as sentences for the record. Pure."""
    said = ["the platform says inactive, and every entry answers as paused"]
    if can.executions and can.shows_in_flight:
        said.append("no run is in flight, and none started during the settle time")
    else:
        said.append(
            "the platform does not show unfinished runs: that none writes is told by the fence, by the transactions "
            "open in the database and by the settle time alone"
        )
    if not can.stops_runs:
        said.append("the platform cannot stop runs: they were waited for, behind the fence")
    said.append(f"{', '.join(roles)}: fenced, no transaction open, no write for {settle_s:g} s")
    if dropped_runs:
        said.append(f"the pause dropped what was in flight: {', '.join(dropped_runs)}")
    elif can.drops_in_flight:
        said.append("the pause drops what is in flight: nothing is known to have been")
    return said


def name_of(run: Run, ids: Mapping[str, str]) -> str:
    return next((key for key, platform_id in ids.items() if platform_id == run.workflow_id), run.workflow_id)


def not_proven(app: str, what: str) -> str:
    return (
        f"app {app}: the pause is not proven: {what}; the fence is up so nothing can be written; "
        "restart the platform, or give it three minutes if it just did so itself, then run `reinstate contain` again"
    )
