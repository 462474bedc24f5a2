"""Proof of the restored state: suites on one snapshot, and the named clauses of agreement between logic and data.

It is the gate before a resume (:func:`verify`), and can be asked of an app at work (:func:`standing`): then what should
be is what the newest verified recovery point holds, with what Reinstate published since.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from checks import agreement, statements, suites
from checks.model import Clause, SuiteReport
from checks.persisting import persisting
from incidents import record
from ledger import kinds
from platforms.base import Version, WorkflowInfo
from recovery import credentials, following, history, windows
from recovery.containment import recorded
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.errors import Outcome
from recovery.plan import Mode, Plan
from recovery.steps.data import remaining
from snapshots.capture import capture
from snapshots.model import RecoveryPoint
from snapshots.points import points

LOOK_AGAIN_S = (2.0, 5.0)
"""Longer than most runs take from their first write to their last; a longer one fails the proof, which can be asked for
again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """``passed`` needs both; ``agreed`` the clauses alone, without the suites."""

    suites: SuiteReport
    clauses: tuple[Clause, ...]

    @property
    def agreed(self) -> bool:
        return not agreement.drift(self.clauses)

    @property
    def passed(self) -> bool:
        return self.suites.passed and self.suites.ran > 0 and self.agreed

    @property
    def problems(self) -> list[str]:
        failed = [f"{f.suite}: {f.expectation} ({f.unexpected} rows)" for f in self.suites.failed]
        if not self.suites.ran:
            failed.append("suites: no expectation ran, so nothing is proven")
        elif not self.suites.passed and not failed:
            failed.append("suites: they did not pass")
        return failed + [f"{c.name}: {c.detail}" for c in self.clauses if not c.holds]

    def body(self) -> dict[str, Any]:
        """For the ledger: without row keys, which may be personal."""
        failed = [{**asdict(f), "keys": []} for f in self.suites.failed]
        return {
            "suites": {"ran": self.suites.ran, "failed": failed, "seconds": self.suites.seconds},
            "agreement": [asdict(c) for c in self.clauses],
        }


def verify(ctx: AppContext, *, incident: str, plan: Plan | None = None) -> Proof:
    """Run the suites on one snapshot of the paused app, then every clause. Changes nothing."""
    contained = recorded(ctx, incident)
    working = _active(ctx).difference(contained["workflows"] if contained else ())
    return Proof(suites=_suites(ctx, working), clauses=tuple(clauses(ctx, incident=incident, plan=plan)))


def standing(ctx: AppContext) -> Proof:
    """The same of an app at work, or, in an incident, of the paused app and its plan. Changes nothing."""
    found = record.find_open(ctx.ledger, ctx.app.key)
    if found is not None and recorded(ctx, found.id) is not None:
        return verify(ctx, incident=found.id, plan=_plan(ctx, found.id))
    return Proof(suites=_suites(ctx, _active(ctx)), clauses=tuple(at_work(ctx)))


def clauses(ctx: AppContext, *, incident: str, plan: Plan | None = None) -> list[Clause]:
    """Agreement of the paused app: with a plan, also that its versions are saved and its undo is complete."""
    contained = recorded(ctx, incident)
    paused = set(contained["workflows"]) if contained else set()
    infos = ctx.infos()
    found: list[Clause] = []
    good: dict[str, Version] = {}
    if plan is not None:
        good = {p.workflow: known_good(ctx, plan, p.workflow) for p in plan.publications}
        found += _planned(ctx, infos, good, paused=True)
        if plan.mode is not Mode.LOGIC:
            found.append(agreement.data_undone(lambda: remaining(ctx, plan)))
    ids = {k: i.id for k, i in infos.items()}
    others = {k for k, i in infos.items() if i.active and k not in paused}
    found.append(agreement.active_set(ctx.platform, ids, expected=others))
    roles = ctx.roles(frozenset(paused))
    with ctx.connect("capturer", "agreement") as connection:
        if (since := windows.proven_at(ctx, incident)) is not None:
            allowed = windows.allowed(ctx, connection, incident)
            found.append(agreement.no_late_writes(connection, roles=roles, since=since, allowed=allowed))
        found.append(agreement.schema(connection, ctx.app))
        found.append(agreement.credentials_roles(connection, ctx.app, fenced=roles))
    used = _in_use(ctx, infos)
    found.append(_definitions(ctx, used, _point(ctx, plan.point_id if plan else None)))
    found.append(_credentials(ctx, infos, used, incident=incident))
    return found


def at_work(ctx: AppContext) -> list[Clause]:
    """Agreement of an app in which nothing is paused."""
    point = _point(ctx, None)
    listed = ctx.platform.workflows()
    infos = {w.key: i for w in ctx.app.workflows if (i := history.present(ctx, w.key, listed)) is not None}
    found = [agreement.present(workflow=w.key, found=w.key in infos) for w in ctx.app.workflows]
    good, active = wanted(ctx, point)
    running = {k: v for k, v in good.items() if k in infos and k in active}
    resting = {k: v for k, v in good.items() if k in infos and k not in active}
    found += _planned(ctx, infos, running, paused=False)
    found += _planned(ctx, infos, resting, paused=True)
    if good:
        ids = {k: i.id for k, i in infos.items()}
        found.append(agreement.active_set(ctx.platform, ids, expected=active))
    with ctx.connect("capturer", "agreement") as connection:
        found.append(agreement.schema(connection, ctx.app))
        found.append(agreement.credentials_roles(connection, ctx.app, fenced=()))
    used = _in_use(ctx, infos)
    found.append(_definitions(ctx, used, point))
    found.append(_credentials(ctx, infos, used, incident=None))
    return found


def wanted(ctx: AppContext, point: RecoveryPoint | None) -> tuple[dict[str, Version], set[str]]:
    """What should be live by workflow, and which workflows should be active: as the point has it, and what was
    published through us since. Workflows of which neither says anything are left out."""
    good: dict[str, Version] = {}
    active: set[str] = set()
    for state in point.workflows if point else ():
        good[state.workflow] = Version(
            workflow_id=state.platform_id, hash=state.version_hash, definition=state.definition
        )
        if state.active:
            active.add(state.workflow)
    for entry in ctx.ledger.entries(app=ctx.app.key, kinds=[kinds.WORKFLOW_PUBLISHED]):
        if point is not None and entry.at <= point.taken_at:
            continue
        workflow = str(entry.body["workflow"])
        version = history.load(ctx, str(entry.body["version"]), workflow=workflow)
        if version is not None:
            good[workflow] = version
        if entry.body.get("outcome") == Outcome.LIVE:
            active.add(workflow)
    known = {w.key for w in ctx.app.workflows}
    return {k: following.followed(ctx, v) for k, v in good.items() if k in known}, active & known


def _suites(ctx: AppContext, working: Collection[str]) -> SuiteReport:
    """The suites' report. A run of one of the workflows that are at work may be half done in a snapshot: what fails is
    looked at again on later ones, and counts if the same rows fail there."""

    def look() -> SuiteReport:
        with capture.open_snapshot(ctx.dsn("capturer")) as snapshot:
            return suites.run(ctx.dsn("capturer"), ctx.suites, snapshot=snapshot.id)

    report = last = look()
    for wait_s in LOOK_AGAIN_S if working else ():
        if report.passed:
            break
        time.sleep(wait_s)
        before, last = last, look()
        report = persisting(before, last)
    return report


def _active(ctx: AppContext) -> set[str]:
    return {key for key, info in ctx.infos(partly=True).items() if info.active}


def _planned(
    ctx: AppContext, infos: Mapping[str, WorkflowInfo], good: Mapping[str, Version], *, paused: bool
) -> list[Clause]:
    found = [
        agreement.live_version(ctx.platform, infos[w].id, workflow=w, planned=v.hash, paused=paused)
        for w, v in good.items()
    ]
    return found + [
        agreement.settings(ctx.platform, infos[w].id, workflow=w, planned=ctx.platform.hashes(v.definition)[1])
        for w, v in good.items()
    ]


def _in_use(ctx: AppContext, infos: Mapping[str, WorkflowInfo]) -> dict[str, Version]:
    """What is live, or would be next."""
    return {
        key: (ctx.platform.live_version(info.id) if info.active else None) or ctx.platform.draft_version(info.id)
        for key, info in infos.items()
    }


def _definitions(ctx: AppContext, used: Mapping[str, Version], point: RecoveryPoint | None) -> Clause:
    then = {t.name: {c.name: c.type for c in t.columns} for t in point.tables} if point else {}
    with ctx.connect("capturer", "agreement") as connection:
        return agreement.definitions(
            statements.fits(
                connection,
                {key: ctx.platform.outline(version.definition) for key, version in used.items()},
                tables={t.name for t in ctx.app.tables},
                roles={w.key: w.role for w in ctx.app.workflows},
                then=then,
            )
        )


def _credentials(
    ctx: AppContext, infos: Mapping[str, WorkflowInfo], used: Mapping[str, Version], *, incident: str | None
) -> Clause:
    opened = record.read(ctx.ledger, incident).opened_at if incident else None
    problems: list[str] = []
    looked_at = 0
    for key, version in used.items():
        listed = ctx.platform.credentials(infos[key].id)
        looked_at += len(listed)
        good = credentials.good(ctx, key, version.hash, before=opened)
        problems += [t.sentence for t in credentials.judged(key, listed, good)]
    return agreement.credentials(problems, looked_at=looked_at)


def _point(ctx: AppContext, point_id: str | None) -> RecoveryPoint | None:
    if point_id is not None:
        return points.load(ctx.store, ctx.app.key, point_id)
    return points.latest_verified(ctx.store, ctx.app.key)


def _plan(ctx: AppContext, incident: str) -> Plan | None:
    """The plan that was started last for the incident."""
    started = ctx.ledger.entries(incident=incident, kinds=[kinds.RECOVERY_STARTED])
    made = ctx.ledger.entries(incident=incident, kinds=[kinds.PLAN_MADE])
    for entry in reversed(made):
        if any(s.body.get("plan_hash") == entry.body.get("hash") for s in started):
            body = {k: v for k, v in entry.body.items() if k in Plan.model_fields}
            return Plan.model_validate(body)
    return None
