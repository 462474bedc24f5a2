"""Bringing paused workflows back, stage by stage: each becomes active with exactly the version it should run, read
back live, and the detectors are watched before the next stage. A relapse contains everything again."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from checks import confirm, detectors
from checks.model import Finding
from incidents import record
from ledger import kinds
from platforms.base import Version
from recovery import definitions, dependents, earlier, history, outline, publishing, relapses, verification, windows
from recovery.containment import Say, contain, live_before, lower_fence, not_on_record, recorded
from recovery.context import AppContext
from recovery.errors import NothingToRecover, Refused, Relapse, StepFailed
from recovery.plan import Plan
from snapshots.model import Position

NAMED = re.compile(r"\b[0-9a-f]{8,64}\b")
"""A version in the reason of an override: the beginning of its hash."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumption:
    """What to bring back. ``wanted`` is the version each workflow must run."""

    incident: str
    recovery: str | None
    contained: tuple[str, ...]
    active_before: tuple[str, ...]
    wanted: dict[str, str]

    @property
    def unknown(self) -> list[str]:
        """What was active, nobody knows with which version."""
        return [w for w in self.active_before if w not in self.wanted]


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
    )


def of_incident(ctx: AppContext, incident: str) -> Resumption:
    """From the record alone: what finished recoveries published, else what was live before the containment."""
    contained = recorded(ctx, incident)
    if contained is None:
        raise NothingToRecover(
            f"incident {incident}: nothing is contained, so there is nothing to resume; "
            'close it with `reinstate resume --override "reason"`'
        )
    wanted = live_before(ctx, incident)
    for entry in ctx.ledger.entries(incident=incident, kinds=["step.outcome"]):
        detail = entry.body.get("detail", {})
        if entry.body.get("status") == "done" and str(entry.step).startswith("publish:"):
            wanted[detail["workflow"]] = detail["version"]
    return Resumption(
        incident=incident,
        recovery=None,
        contained=tuple(contained["workflows"]),
        active_before=tuple(contained["active_before"]),
        wanted=wanted,
    )


def resume(ctx: AppContext, incident: str, *, by: str, override: str | None, say: Say) -> tuple[str, ...]:
    """Verify, then resume every stage and close the incident. Returns what is active again; nothing when the
    verification failed and nobody overrode it. An override is recorded with its reason before anything resumes, and
    closes an incident in which nothing was ever contained."""
    if recorded(ctx, incident) is None and override is not None:
        body = {"what": "close an incident in which nothing was contained", "by": by, "reason": override}
        ctx.ledger.append("override", app=ctx.app.key, incident=incident, body=body)
        record.close(ctx.ledger, incident, by=by, reason=override, false_alarm=True)
        return ()
    what = of_incident(ctx, incident)
    if what.unknown:
        contain(ctx, what.contained, incident=incident, say=say)  # what it can still find out goes on record
        what = of_incident(ctx, incident)
        if what.unknown:
            name_unknown(ctx, what, by=by, override=override)
            what = of_incident(ctx, incident)
    problems = objections(ctx, what)
    if not problems or override is not None:
        if windows.open_for_all(ctx, incident):
            # An earlier resume was interrupted half way: nothing can be proven of an app at work.
            contain(ctx, what.contained, incident=incident, say=say)
        problems += verification.verify(ctx, incident=incident).problems
    if problems:
        if override is None:
            say(f"not resumed: {'; '.join(problems)}")
            return ()
        ctx.ledger.append(
            "override",
            app=ctx.app.key,
            incident=incident,
            body={"what": f"resume although: {'; '.join(problems)}", "by": by, "reason": override},
        )
    back: list[str] = []
    calls = dependents.read_calls(ctx.app, ctx.platform, ctx.infos(partly=True), of=what.contained)
    for members in outline.stages(ctx.app.resume_order, what.contained, calls):
        back += stage(ctx, what, members, outline.STAGE_WATCH_S, say)
    if ctx.events is not None:
        from recovery import held

        held.release(ctx, back, incident=incident, say=say)
    record.close(ctx.ledger, incident, by=by, reason=override or "verified, then resumed")
    return tuple(back)


def name_unknown(ctx: AppContext, what: Resumption, *, by: str, override: str | None) -> None:
    """Put on record the versions that the override names for workflows of which nobody knows what was live. What is
    saved may be somebody's draft: it does not go live unnamed. Raises :class:`Refused`."""
    chosen: dict[str, str] = {}
    infos = ctx.infos(partly=True)
    for workflow in what.unknown:
        held = {s.version for s in history.listing(ctx, workflow) if s.version}
        if (info := infos.get(workflow)) is not None:
            held |= {v.hash for v in (ctx.platform.draft_version(info.id), *ctx.platform.versions(info.id))}
        named = {v for v in held for text in NAMED.findall((override or "").lower()) if v.startswith(text)}
        if len(named) != 1:
            raise Refused(
                f"{not_on_record(ctx, workflow, what.incident)}; save the right one with `reinstate workflow publish "
                f'{workflow} VERSION --inactive`, or name it: `reinstate resume --override "{workflow} ran VERSION"`'
            )
        chosen[workflow] = named.pop()
    named_so = ", ".join(f"{workflow} with version {version[:12]}" for workflow, version in chosen.items())
    said = {"what": f"resume {named_so}", "by": by, "reason": override}
    ctx.ledger.append(kinds.OVERRIDE, app=ctx.app.key, incident=what.incident, body=said)
    body = {"versions": chosen, "sources": dict.fromkeys(chosen, "override")}
    ctx.ledger.append(kinds.CONTAIN_LIVE_BEFORE, app=ctx.app.key, incident=what.incident, body=body)


def objections(ctx: AppContext, what: Resumption) -> list[str]:
    """What no suite sees: a recovery that stopped half way, and a blamed version that would go live again."""
    found = [
        f"recovery {r} has begun and not finished: run `reinstate recover --continue`"
        for r in earlier.unfinished(ctx, what.incident)
    ]
    for entry in ctx.ledger.entries(incident=what.incident, kinds=["incident.diagnosed"])[-1:]:
        workflow, bad = entry.body["workflow"], entry.body["bad_version"]
        if workflow in what.active_before and what.wanted.get(workflow) == bad:
            found.append(
                f"{workflow} would run version {bad[:12]}, which the diagnosis blames: "
                "run `reinstate recover --mode logic`"
            )
    return found


def stage(ctx: AppContext, what: Resumption, members: Sequence[str], watch_s: float, say: Say) -> list[str]:
    """Resume one stage. Workflows that were not active before the containment stay inactive; one that was deleted
    meanwhile is made again."""
    back = [w for w in members if w in what.active_before]
    targets = {w: target(ctx, what, w, say) for w in back}
    with ctx.connect("recoverer", "resume") as connection:
        since = windows.resuming_since(ctx, connection, what.incident, what.recovery, members)
        lower_fence(ctx, connection, members, what.incident)
    calls = dependents.read_calls(ctx.app, ctx.platform, ctx.infos(partly=True), of=back)
    for workflow in dependents.called_first(back, calls):
        platform_id, version = targets[workflow]
        wanted = as_now(ctx, what, workflow)
        ctx.platform.activate(platform_id, version)
        live = _live(ctx, platform_id, wanted)
        if live is None or live.hash != wanted:
            found = "nothing" if live is None else f"version {live.hash[:12]}"
            why = f"{workflow} runs {found} instead of version {wanted[:12]}"
            relapse(ctx, what, why, say, damage=False)
        if not publishing.served(ctx, workflow, platform_id, say):
            why = f"{workflow} is live by the platform's word and its entry does not answer"
            relapse(ctx, what, why, say, damage=False)
        say(f"{workflow} is active again, running version {live.hash[:12]} (read back live)")
    watch(ctx, what, since, watch_s, say)
    return back


def target(ctx: AppContext, what: Resumption, workflow: str, say: Say) -> tuple[str, str | None]:
    """What to activate: the platform's id of the workflow, and its name of the version; ``None`` where the platform has
    no names for versions: there it is what is saved.

    What is saved may be newer than the wanted version, or become so while a stage waits: it must not go live by our
    hand. Where the platform does not have the wanted version, or no longer has the workflow, our own history saves it
    again."""
    if workflow not in what.wanted:
        raise StepFailed(
            f"{not_on_record(ctx, workflow, what.incident)}; save the right one with `reinstate workflow publish "
            f"{workflow} VERSION --inactive`, then go on"
        )
    wanted = as_now(ctx, what, workflow)
    info = ctx.infos(partly=True).get(workflow)
    if info is not None and (found := activatable(ctx, info.id, wanted)) is not None:
        return info.id, found.platform_version
    kept = history.load(ctx, what.wanted[workflow], workflow=workflow)
    if kept is None:
        where = "no longer in the platform" if info is None else "neither saved nor in the platform's history"
        raise StepFailed(
            f"workflow {workflow}: version {wanted[:12]} is {where}, our own history does not hold it, and what "
            "is saved may not go live by itself; save that version again, then resume"
        )
    done = publishing.publish(
        ctx,
        workflow,
        kept,
        by="reinstate",
        reason=f"resume after {what.incident}: it was live before",
        activate=False,
        incident=what.incident,
        recovery=what.recovery,
        say=say,
    )
    if (found := activatable(ctx, done.platform_id, done.version)) is None:
        raise StepFailed(
            f"workflow {workflow}: somebody saved another version just after {done.version[:12]} was saved again from "
            "our own history; stop them, then go on"
        )
    say(f"{workflow} holds version {kept.hash[:12]} again, from our own history")
    return done.platform_id, found.platform_version


def activatable(ctx: AppContext, platform_id: str, wanted: str) -> Version | None:
    """The wanted version as the platform can make it live: what is saved, else one that it kept under a name."""
    if (draft := ctx.platform.draft_version(platform_id)).hash == wanted:
        return draft
    kept = ctx.platform.versions(platform_id)
    return next((v for v in kept if v.hash == wanted and v.platform_version is not None), None)


def as_now(ctx: AppContext, what: Resumption, workflow: str) -> str:
    """The wanted version's hash as it reads back now: another one where a call had to follow a workflow to a new id."""
    return definitions.expected(ctx, workflow, what.wanted[workflow])


def _live(ctx: AppContext, platform_id: str, wanted: str) -> Version | None:
    return publishing.wait_live(ctx, platform_id, lambda found: found.hash == wanted, publishing.LIVE_S)


def watch(ctx: AppContext, what: Resumption, since: Position, seconds: float, say: Say) -> list[Finding]:
    """Run the detectors until the time is up; a confirmed finding contains again. Returns the mere warnings."""
    deadline = time.monotonic() + seconds
    with ctx.connect("capturer", "watch") as connection:
        while True:
            findings = detectors.run(connection, ctx.app, since=since)
            connection.rollback()
            if serious := confirm.confirmed(findings):
                why = "; ".join(f.message for f in serious)
                relapse(ctx, what, why, say, damage=True)
            if time.monotonic() >= deadline:
                return findings
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))


def relapse(ctx: AppContext, what: Resumption, why: str, say: Say, *, damage: bool) -> NoReturn:
    """Contain again and say so. The recovery is over: what it proved no longer holds. ``damage``: detectors found
    rows, so that the diagnosis is out of date too. What a process that dies here leaves undone, the watcher does
    (:func:`recovery.handling.finish_begun`)."""
    next_step = (
        "run `reinstate diagnose`, then recover again"
        if damage
        else "publish that version by hand, then run `reinstate resume`"
    )
    say(f"relapse: {why}; containing again")
    body = {"findings": [why], "workflows": list(what.contained), "damage": damage}
    entry = ctx.ledger.append("relapse", app=ctx.app.key, incident=what.incident, recovery=what.recovery, body=body)
    relapses.end(ctx, entry)
    contain(ctx, what.contained, incident=what.incident, say=say)
    raise Relapse(f"app {ctx.app.key}: {why}; it was contained again: {next_step}")
