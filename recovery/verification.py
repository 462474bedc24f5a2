"""Proof of the restored state: suites on one snapshot, and the named clauses of agreement between logic and data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from checks import agreement, suites
from checks.model import Clause, SuiteReport
from platforms.canonical import settings_hash
from recovery import windows
from recovery.containment import recorded
from recovery.context import AppContext
from recovery.definitions import known_good
from recovery.plan import Mode, Plan
from recovery.steps.data import remaining
from snapshots.capture import capture


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
    with capture.open_snapshot(ctx.dsn("capturer")) as snapshot:
        report = suites.run(ctx.dsn("capturer"), ctx.suites, snapshot=snapshot.id)
    return Proof(suites=report, clauses=tuple(clauses(ctx, incident=incident, plan=plan)))


def clauses(ctx: AppContext, *, incident: str, plan: Plan | None = None) -> list[Clause]:
    """Agreement of the paused app: with a plan, also that its versions are saved and its undo is complete."""
    contained = recorded(ctx, incident)
    paused = set(contained["workflows"]) if contained else set()
    infos = ctx.infos()
    found: list[Clause] = []
    if plan is not None:
        found += [
            agreement.live_version(
                ctx.platform, infos[p.workflow].id, workflow=p.workflow, planned=p.to_version, paused=True
            )
            for p in plan.publications
        ]
        found += [settings(ctx, plan, p.workflow, p.platform_id) for p in plan.publications]
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
    return found


def settings(ctx: AppContext, plan: Plan, workflow: str, platform_id: str) -> Clause:
    """What the platform keeps per workflow, not per version, is as the known-good definition has it."""
    wanted = settings_hash(known_good(ctx, plan, workflow).definition)
    saved = ctx.platform.draft_version(platform_id).settings_hash
    holds = saved in ("", wanted)
    says = "as planned" if holds else f"saved are {saved[:12]}, planned {wanted[:12]}; someone changed them"
    return Clause(name=f"settings:{workflow}", holds=holds, detail=says)
