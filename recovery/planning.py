"""Making a plan: diagnosis to selection, closure over entangled runs, events, publications, effects, steps.

Reads only. What cannot be planned safely is refused here, before anything is touched, with what stands in the way and
what the alternative (a diff against a recovery point) would lose.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from checks import diagnosis as diagnosing
from checks.model import BadRun, Diagnosis
from ledger import steps as ledger_steps
from platforms.base import Run
from recovery import closure, events, outline
from recovery.containment import Say, live_before, quiet, recorded
from recovery.context import AppContext
from recovery.errors import NothingToRecover, Refused
from recovery.good_point import chosen as good_point_of
from recovery.offer import offer_diff
from recovery.plan import Mode, Plan, Publication, RunSelection, TableEffect
from recovery.selection import undo_spec
from snapshots import undo
from snapshots.model import Policy, UndoPreview


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    selection: tuple[RunSelection, ...]
    carried: tuple[int, ...]
    preview: UndoPreview
    runs: dict[str, list[Run]]
    """All runs since the first bad commit, by workflow."""


def make_plan(
    ctx: AppContext,
    incident: str,
    diagnosis: Diagnosis,
    *,
    mode: Mode,
    policy: Policy,
    point_id: str | None = None,
    say: Say = quiet,
) -> Plan:
    """The plan for an incident. Raises :class:`Refused` with the reason and the offer, changing nothing."""
    contained = recorded(ctx, incident)
    if contained is None:
        raise NothingToRecover(
            f"incident {incident}: nothing is contained; run `reinstate contain --incident {incident}` first"
        )
    good_version, good_point = good_point_of(ctx, diagnosis, point_id)
    live = live_before(ctx, incident)
    notes: list[str] = []
    publications: tuple[Publication, ...] = ()
    if mode is not Mode.DATA:
        infos = ctx.infos()
        publications = (
            Publication(
                workflow=diagnosis.workflow,
                platform_id=infos[diagnosis.workflow].id,
                from_version=live.get(diagnosis.workflow, diagnosis.bad_version),
                to_version=good_version,
                source="point" if good_point else "platform-history",
            ),
        )
    selected: Selected | None = None
    choice = events.Choice(events=(), unreplayable=(), handled_elsewhere=0)
    suspects = 0
    if mode is not Mode.LOGIC:
        with ctx.connect("recoverer", "plan") as connection:
            selected = select(ctx, connection, incident, diagnosis, contained["workflows"], policy, say)
            refuse_problems(ctx, connection, diagnosis, selected, policy)
            spec = undo_spec(ctx.tables, selected.selection, carried=selected.carried, policy=policy, caps=ctx.app.caps)
            suspects = undo.suspects(connection, spec).count
        choice = choose_events(ctx, selected, notes)
    conflicts: dict[str, int] = {}
    effects: tuple[TableEffect, ...] = ()
    if selected is not None:
        conflicts = dict(selected.preview.conflict_counts)
        effects = tuple(
            TableEffect(
                table=c.table,
                delete=c.delete,
                update=c.update,
                insert=c.insert,
                merged=c.merged,
                table_rows=c.table_rows,
            )
            for c in selected.preview.counts
        )
    replayed = sorted({e.workflow for e in choice.events})
    canaries = [w.key for w in ctx.app.workflows if w.canary and w.key in contained["workflows"]]
    return Plan(
        recovery_id=recovery_id(ctx, incident),
        incident_id=incident,
        app=ctx.app.key,
        mode=mode,
        policy=policy,
        made_at=datetime.now(UTC).isoformat(),
        point_id=good_point,
        publications=publications,
        selection=selected.selection if selected else (),
        carried_xids=selected.carried if selected else (),
        tables=tuple(t.name for t in ctx.tables),
        effects=effects,
        conflicts=conflicts,
        suspects=suspects,
        events=choice.events,
        contained=tuple(contained["workflows"]),
        active_before=tuple(contained["active_before"]),
        steps=outline.steps(
            mode,
            published=[p.workflow for p in publications],
            contained=contained["workflows"],
            resume_order=ctx.app.resume_order,
            replayed=replayed,
            canaries=canaries,
            events=len(choice.events),
            carried=len(selected.carried) if selected else 0,
        ),
        notes=tuple(notes),
    )


def recovery_id(ctx: AppContext, incident: str) -> str:
    """``R1-INC-...``: recoveries of one incident are numbered; an unfinished one must be resumed, not planned again."""
    earlier = {e.recovery for e in ctx.ledger.entries(incident=incident, kinds=["recovery.started"]) if e.recovery}
    for recovery in sorted(earlier):
        finished = ctx.ledger.entries(recovery=recovery, kinds=["recovery.finished", "recovery.abandoned"])
        if not finished and ledger_steps.state(ctx.ledger, recovery):
            raise Refused(
                f"incident {incident}: recovery {recovery} has started and not finished; "
                f"continue it with `reinstate recover --incident {incident} --continue`"
            )
    return f"R{len(earlier) + 1}-{incident}"


def select(
    ctx: AppContext,
    connection: psycopg.Connection,
    incident: str,
    diagnosis: Diagnosis,
    contained: list[str],
    policy: Policy,
    say: Say,
) -> Selected:
    """Bad and interrupted runs, and everything entangled with them."""
    say("reading runs and journal")
    infos = ctx.infos()
    runs = {
        w.key: ctx.platform.runs(infos[w.key].id, since=diagnosis.first_bad_at - closure.MARGIN)
        for w in ctx.app.workflows
    }
    interrupted = diagnosing.interrupted(
        connection,
        ctx.app,
        ctx.platform,
        workflows=frozenset(contained),
        since=diagnosis.first_bad_at,
        contained_at=contained_since(ctx, incident),
    )
    connection.rollback()
    bad = {(b.workflow, b.run_id): b for b in (*interrupted, *diagnosis.bad_runs)}
    start = [selection_of(ctx, b) for b in bad.values()]
    selection, carried = closure.close(ctx, connection, diagnosis, start, runs, policy)
    spec = undo_spec(ctx.tables, selection, carried=carried, policy=policy, caps=ctx.app.caps)
    preview = undo.preview(connection, spec)
    return Selected(selection=selection, carried=carried, preview=preview, runs=runs)


def contained_since(ctx: AppContext, incident: str) -> datetime:
    """When the containment of the incident began."""
    return ctx.ledger.entries(incident=incident, kinds=["contain.started"])[0].at


def selection_of(ctx: AppContext, bad: BadRun) -> RunSelection:
    return RunSelection.model_validate(
        {
            "workflow": bad.workflow,
            "role": ctx.app.workflow(bad.workflow).role,
            "run_id": bad.run_id,
            "xids": bad.xids,
            "why": bad.why,
            "attribution": bad.attribution,
        }
    )


def choose_events(ctx: AppContext, selected: Selected, notes: list[str]) -> events.Choice:
    by_workflow: dict[str, set[str]] = {}
    for s in selected.selection:
        if s.run_id is not None:
            by_workflow.setdefault(s.workflow, set()).add(s.run_id)
    received = [
        r
        for workflow, ids in by_workflow.items()
        for r in events.read(ctx, workflow, selected.runs.get(workflow, []), frozenset(ids))
    ]
    choice = events.choose(received)
    if choice.handled_elsewhere:
        notes.append(f"{choice.handled_elsewhere} events were handled by a good run as well; they are not replayed")
    for r in choice.unreplayable:
        notes.append(f"run {r.run_id} of {r.workflow} has no event key; a person must look at its input")
    return choice


def refuse_problems(
    ctx: AppContext, connection: psycopg.Connection, diagnosis: Diagnosis, selected: Selected, policy: Policy
) -> None:
    problems = list(selected.preview.problems)
    blocking = [c for c in selected.preview.conflicts if c.blocking]
    if policy is Policy.REFUSE and blocking:
        kinds = sorted({c.kind for c in blocking})
        problems.append(
            f"{len(blocking)} conflicting rows ({', '.join(kinds)}); "
            "see `reinstate plan --policy non-conflicting-only`, which leaves them as they are"
        )
    if problems:
        offer = offer_diff(ctx, connection, diagnosis)
        raise Refused(f"plan for app {ctx.app.key}: {'; '.join(problems)}. {offer}")
