"""What the platform tells about runs to be undone, for deciding about their steps and for the values of inverses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from platforms.base import Permanent, Run
from recovery import compensated
from recovery.compensating import Decided, Facts, World, decide
from recovery.context import AppContext
from recovery.events import look_up
from recovery.plan import PERSON, Compensation, Event

THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Undone:
    """One run to be undone, as a selection names it; ``seen`` is the platform's short word on it, where it is known."""

    workflow: str
    run_id: str
    seen: Run | None = None


def concerned(ctx: AppContext) -> frozenset[str]:
    """The workflows with a step that undoing rows does not take back."""
    return frozenset(w.key for w in ctx.app.workflows if any(s.inverse != "reversible" for s in w.steps))


def facts_of(ctx: AppContext, run: Undone, replayed: Collection[tuple[str, str]] = ()) -> Facts:
    """One run. ``replayed`` are events to be sent again, by workflow and key."""
    try:
        detail = ctx.platform.run_detail(run.run_id)
    except Permanent:
        state, started = (run.seen.state, run.seen.started_at) if run.seen else (None, None)
        return Facts(
            workflow=run.workflow, run_id=run.run_id, state=state, started_at=started, event=None, outputs=None
        )
    path = ctx.app.workflow(run.workflow).trigger.event_key
    key = look_up(detail.event, path) if path else None
    return Facts(
        workflow=run.workflow,
        run_id=run.run_id,
        state=detail.run.state,
        started_at=detail.run.started_at,
        event=detail.event,
        # Runs that events of the ingress stand in for have no nodes.
        outputs=detail.outputs if ctx.platform.capabilities.executions else None,
        replayed=key is not None and (run.workflow, key) in replayed,
    )


def decided(ctx: AppContext, incident: str, runs: Iterable[Undone], events: Iterable[Event] = ()) -> Decided:
    """What becomes of the steps of ``runs`` that undoing rows does not take back."""
    about = concerned(ctx)
    asked = [r for r in runs if r.workflow in about]
    if not asked:
        return Decided(compensations=(), refusals=())
    replayed = {(e.workflow, e.key) for e in events}
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        found = list(pool.map(lambda run: facts_of(ctx, run, replayed), asked))
    world = World(
        incident=incident,
        nodes={w: nodes(ctx, w, found) for w in {r.workflow for r in asked}},
        settled=compensated.settled(ctx),
        replays=ctx.platform.capabilities.replays_privately,
    )
    return decide(ctx.app.workflows, found, world)


def nodes(ctx: AppContext, workflow: str, found: Iterable[Facts]) -> dict[str, frozenset[str]]:
    """The nodes of the workflow, in what is saved now, in the versions the platform keeps, and in its runs, each with
    those that lead to it in any of them."""
    platform_id = ctx.infos()[workflow].id
    versions = [ctx.platform.draft_version(platform_id), *ctx.platform.versions(platform_id)]
    outlines = [ctx.platform.outline(v.definition) for v in versions]
    known: dict[str, set[str]] = {n.name: set() for o in outlines for n in o.nodes}
    for run in (f for f in found if f.workflow == workflow):
        known |= {name: known.get(name, set()) for name in run.outputs or {}}
    for before, after in (link for o in outlines for link in o.links):
        known.setdefault(after, set()).add(before)
    return {name: frozenset(leading) for name, leading in known.items()}


def notes(found: Iterable[Compensation]) -> list[str]:
    """What keeps a plan from approving itself: compensable steps that are left to a person. Pure."""
    counted = Counter((c.workflow, c.step, c.why) for c in found if c.action == "manual" and c.inverse == "compensable")
    return [
        f"step {step!r} of {workflow} is not taken back for {n} run{'s' if n > 1 else ''} ({why}); {PERSON}"
        for (workflow, step, why), n in sorted(counted.items())
    ]


def through(ctx: AppContext, found: Iterable[Compensation], run: Collection[str]) -> list[str]:
    """The workflows that do inverses: those of the plan, and of the workflows that the recovery itself runs."""
    planned = {c.through for c in found if c.action == "do"}
    own = {s.compensation.workflow for key in run for s in ctx.app.workflow(key).steps if s.compensation is not None}
    return sorted(w for w in planned | own if w is not None)


def undone_runs(selection: Iterable[tuple[str, str | None]], runs: Mapping[str, list[Run]]) -> list[Undone]:
    """The runs of a selection, each once."""
    seen = {(workflow, r.id): r for workflow, of_workflow in runs.items() for r in of_workflow}
    pairs = dict.fromkeys((w, i) for w, i in selection if i is not None)
    return [Undone(workflow=w, run_id=i, seen=seen.get((w, i))) for w, i in pairs]
