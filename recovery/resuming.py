"""Bringing paused workflows back, stage by stage: each becomes active with exactly the version it should run, read
back live, and the detectors are watched before the next stage. A relapse contains everything again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from checks import confirm, detectors
from checks.model import Finding
from incidents import record
from platforms.base import Version
from recovery import outline, verification
from recovery.containment import Say, contain, live_before, lower_fence, recorded
from recovery.context import AppContext
from recovery.errors import NothingToRecover, Relapse
from recovery.plan import Plan
from snapshots import position
from snapshots.model import Position

LIVE_S = 15.0
POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumption:
    """What to bring back. ``wanted`` is the version each workflow must run; ``published`` those whose saved content
    is that version because the recovery put it there."""

    incident: str
    recovery: str | None
    contained: tuple[str, ...]
    active_before: tuple[str, ...]
    wanted: dict[str, str]
    published: frozenset[str]


def of_plan(ctx: AppContext, plan: Plan) -> Resumption:
    """The planned versions, and for workflows that were only paused the ones that were live before."""
    wanted = live_before(ctx, plan.incident_id)
    wanted.update({p.workflow: p.to_version for p in plan.publications})
    return Resumption(
        incident=plan.incident_id,
        recovery=plan.recovery_id,
        contained=plan.contained,
        active_before=plan.active_before,
        wanted=wanted,
        published=frozenset(p.workflow for p in plan.publications),
    )


def of_incident(ctx: AppContext, incident: str) -> Resumption:
    """From the record alone: what finished recoveries published, else what was live before the containment."""
    contained = recorded(ctx, incident)
    if contained is None:
        raise NothingToRecover(f"incident {incident}: nothing is contained, so there is nothing to resume")
    wanted = live_before(ctx, incident)
    published: set[str] = set()
    for entry in ctx.ledger.entries(incident=incident, kinds=["step.outcome"]):
        detail = entry.body.get("detail", {})
        if entry.body.get("status") == "done" and str(entry.step).startswith("publish:"):
            wanted[detail["workflow"]] = detail["version"]
            published.add(detail["workflow"])
    return Resumption(
        incident=incident,
        recovery=None,
        contained=tuple(contained["workflows"]),
        active_before=tuple(contained["active_before"]),
        wanted=wanted,
        published=frozenset(published),
    )


def resume(ctx: AppContext, incident: str, *, by: str, override: str | None, say: Say) -> tuple[str, ...]:
    """Verify, then resume every stage and close the incident. Returns what is active again; nothing when the
    verification failed and nobody overrode it. An override is recorded with its reason before anything resumes."""
    what = of_incident(ctx, incident)
    proof = verification.verify(ctx, incident=incident)
    if not proof.passed:
        if override is None:
            return ()
        ctx.ledger.append(
            "override",
            app=ctx.app.key,
            incident=incident,
            body={"what": f"resume although: {'; '.join(proof.problems)}", "by": by, "reason": override},
        )
    back: list[str] = []
    for members in outline.stages(ctx.app.resume_order, what.contained):
        back += stage(ctx, what, members, outline.STAGE_WATCH_S, say)
    record.close(ctx.ledger, incident, by=by, reason=override or "verified, then resumed")
    return tuple(back)


def stage(ctx: AppContext, what: Resumption, members: Sequence[str], watch_s: float, say: Say) -> list[str]:
    """Resume one stage. Workflows that were not active before the containment stay inactive."""
    infos = ctx.infos()
    with ctx.connect("recoverer", "resume") as connection:
        since = position.current(connection)
        connection.rollback()
        lower_fence(ctx, connection, members, what.incident)
    back = [w for w in members if w in what.active_before]
    for workflow in back:
        wanted = what.wanted.get(workflow)
        ctx.platform.activate(infos[workflow].id, platform_version(ctx, what, workflow, infos[workflow].id))
        live = wait_live(ctx, infos[workflow].id, wanted)
        if live is None or wanted not in (None, live.hash):
            found = "nothing" if live is None else f"version {live.hash[:12]}"
            relapse(ctx, what, f"{workflow} runs {found} instead of version {str(wanted)[:12]}", say)
        say(f"{workflow} is active again, running version {live.hash[:12]} (read back live)")
    watch(ctx, what, since, watch_s, say)
    return back


def platform_version(ctx: AppContext, what: Resumption, workflow: str, platform_id: str) -> str | None:
    """The platform's own name of the version to activate; ``None`` activates the saved content.

    A workflow that was only paused may have a newer draft than what was live: it must not go live by our hand."""
    wanted = what.wanted.get(workflow)
    if wanted is None or workflow in what.published or ctx.platform.draft_version(platform_id).hash == wanted:
        return None
    return next((v.platform_version for v in ctx.platform.versions(platform_id) if v.hash == wanted), None)


def wait_live(ctx: AppContext, platform_id: str, wanted: str | None) -> Version | None:
    """The live version once it is the wanted one, or whatever it is when time is up."""
    deadline = time.monotonic() + LIVE_S
    while True:
        live = ctx.platform.live_version(platform_id)
        if (live is not None and wanted in (None, live.hash)) or time.monotonic() > deadline:
            return live
        time.sleep(POLL_S)


def watch(ctx: AppContext, what: Resumption, since: Position, seconds: float, say: Say) -> list[Finding]:
    """Run the detectors until the time is up; a confirmed finding contains again. Returns the mere warnings."""
    deadline = time.monotonic() + seconds
    with ctx.connect("capturer", "watch") as connection:
        while True:
            findings = detectors.run(connection, ctx.app, since=since)
            connection.rollback()
            if serious := confirm.confirmed(findings):
                relapse(ctx, what, "; ".join(f.message for f in serious), say)
            if time.monotonic() >= deadline:
                return findings
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))


def relapse(ctx: AppContext, what: Resumption, why: str, say: Say) -> NoReturn:
    """Contain again and say so."""
    say(f"relapse: {why}; containing again")
    contain(ctx, what.contained, incident=what.incident, say=say)
    ctx.ledger.append(
        "relapse",
        app=ctx.app.key,
        incident=what.incident,
        recovery=what.recovery,
        body={"findings": [why], "workflows": list(what.contained)},
    )
    raise Relapse(f"app {ctx.app.key}: {why}; it was contained again: run `reinstate diagnose`")
