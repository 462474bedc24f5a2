"""Making a plan: diagnosis to selection, closure over entangled runs, events, publications, effects, steps.

Reads only. What cannot be planned safely is refused here, before anything is touched, with what stands in the way and
what the alternative (a diff against a recovery point) would lose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg

from checks import diagnosis as diagnosing
from checks.model import BadRun, Diagnosis
from platforms.base import Run, RunState, Version
from platforms.limits import limits
from recovery import closure, definitions, dependents, earlier, events, facts, outline, private
from recovery.containment import Say, in_flight, is_proven, live_before, not_on_record, quiet, recorded
from recovery.context import AppContext
from recovery.errors import NothingToRecover, Refused
from recovery.good_point import chosen as good_point_of
from recovery.offer import offer_diff, refuse_gaps
from recovery.plan import PERSON, Compensation, Mode, Plan, Publication, RunSelection, TableEffect
from recovery.selection import undo_spec
from snapshots.model import Policy, UndoPreview
from snapshots.undo import undo


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    selection: tuple[RunSelection, ...]
    carried: tuple[int, ...]
    preview: UndoPreview
    runs: dict[str, list[Run]]
    """All runs since the first bad commit, by workflow."""
    undone: frozenset[tuple[str, str | None]]
    """Runs that an earlier recovery undid, and replayed."""


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
    refuse_unproven(ctx, incident, contained["workflows"])
    good_version, good_point = good_point_of(ctx, diagnosis, point_id)
    live = live_before(ctx, incident)
    notes = list(limits(ctx.platform.capabilities))
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
    compensations: tuple[Compensation, ...] = ()
    if mode is not Mode.LOGIC:
        with ctx.connect("recoverer", "plan") as connection:
            refuse_gaps(ctx, connection, diagnosis.first_bad_at, diagnosis.point_id)
            selected = select(ctx, connection, incident, diagnosis, contained["workflows"], policy, notes, say)
            refuse_problems(ctx, connection, diagnosis, selected, policy)
            spec = undo_spec(ctx.tables, selected.selection, carried=selected.carried, policy=policy, caps=ctx.app.caps)
            suspects = undo.suspects(connection, spec).count
        choice = choose_events(ctx, selected, notes)
        compensations = take_back(ctx, incident, selected, choice, notes)
    conflicts: dict[str, int] = {}
    effects: tuple[TableEffect, ...] = ()
    if selected is not None:
        conflicts = dict(selected.preview.conflict_counts)
        if erased := sum(selected.preview.erased.values()):
            notes.append(f"{erased} row images of the selection were erased with a person: those rows stay as they are")
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
    through = facts.through(ctx, compensations, {*replayed, *canaries} if selected is not None else set())
    used = {*replayed, *canaries, *through}
    active_before = {*contained["active_before"]}
    resumed = active_before if mode is Mode.BOTH else set()
    known = {diagnosis.workflow, *live}
    refuse_unknown(ctx, incident, ((used & active_before) | resumed) - known)
    good = {diagnosis.workflow: good_version}

    def version_of(workflow: str) -> Version:
        refuse_unknown(ctx, incident, ({workflow} & active_before) - known)
        good.setdefault(workflow, live.get(workflow) or in_use(ctx, workflow))
        return definitions.find(ctx, workflow, good[workflow], good_point)

    published = version_of(diagnosis.workflow)
    private.reach(ctx, sorted(used), version_of, contained["workflows"])
    # What is saved calls what it will call; of the workflow that goes back, what its good version calls.
    calls = dependents.read_calls(ctx.app, ctx.platform, ctx.infos(partly=True), of=sorted(resumed))
    calls[diagnosis.workflow] = private.called(ctx, published)
    return Plan(
        recovery_id=earlier.next_id(ctx, incident),
        incident_id=incident,
        app=ctx.app.key,
        mode=mode,
        policy=policy,
        made_at=datetime.now(UTC).isoformat(),
        point_id=good_point,
        publications=publications,
        good_versions=good,
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
            compensations=sum(c.action == "do" for c in compensations),
            left=sum(c.action == "manual" for c in compensations),
            through=through,
            calls=calls,
            held=ctx.events is not None,
        ),
        notes=tuple(notes),
        compensations=compensations,
    )


def select(
    ctx: AppContext,
    connection: psycopg.Connection,
    incident: str,
    diagnosis: Diagnosis,
    contained: list[str],
    policy: Policy,
    notes: list[str],
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
        ids={key: info.id for key, info in infos.items()},
    )
    connection.rollback()
    undone = earlier.undone(ctx, connection)
    fresh = [r for r in runs[diagnosis.workflow] if (diagnosis.workflow, r.id) not in undone]
    refuse_stale(incident, diagnosis, fresh)
    bad = {(b.workflow, b.run_id): b for b in (*interrupted, *diagnosis.bad_runs)}
    known = doubt(ctx, [b for key, b in bad.items() if key not in undone], policy, notes)
    start = [selection_of(ctx, b) for b in known]
    selection, carried = closure.close(ctx, connection, diagnosis, start, runs, policy)
    spec = undo_spec(ctx.tables, selection, carried=carried, policy=policy, caps=ctx.app.caps)
    preview = undo.preview(connection, spec)
    return Selected(selection=selection, carried=carried, preview=preview, runs=runs, undone=undone)


def refuse_unproven(ctx: AppContext, incident: str, contained: list[str]) -> None:
    """What still runs may still write: a plan made now would miss it."""
    again = f"run `reinstate contain --incident {incident}` again"
    if not is_proven(ctx, incident):
        raise Refused(f"incident {incident}: its pause is not proven; {again}")
    infos = ctx.infos()
    if alive := in_flight(ctx, [infos[k].id for k in contained]):
        raise Refused(f"incident {incident}: run {alive[0].id} of a paused workflow is {alive[0].state}; {again}")


def refuse_unknown(ctx: AppContext, incident: str, workflows: set[str]) -> None:
    """What is saved of a workflow that was active may be somebody's draft: nothing is sent through it, or resumed."""
    for workflow in sorted(workflows):
        raise Refused(
            f"{not_on_record(ctx, workflow, incident)}; save the right one with `reinstate workflow publish {workflow} "
            "VERSION --inactive`, or, if it is saved, make it live by hand and contain again"
        )


def in_use(ctx: AppContext, workflow: str) -> str:
    """What a workflow runs that the incident did not switch off; of an inactive one what it would run."""
    info = ctx.infos()[workflow]
    live = ctx.platform.live_version(info.id) if info.active else None
    return (live or ctx.platform.draft_version(info.id)).hash


def refuse_stale(incident: str, diagnosis: Diagnosis, runs: list[Run]) -> None:
    """Runs of the bad version that the diagnosis does not know came after it."""
    known = {b.run_id for b in diagnosis.bad_runs}
    if later := [r.id for r in runs if r.version_hash == diagnosis.bad_version and r.id not in known]:
        raise Refused(
            f"incident {incident}: {len(later)} runs of the bad version (run {later[0]}) are newer than the diagnosis; "
            "run `reinstate diagnose` again"
        )


def contained_since(ctx: AppContext, incident: str) -> datetime:
    """When the containment of the incident began."""
    return ctx.ledger.entries(incident=incident, kinds=["contain.started"])[0].at


def doubt(ctx: AppContext, bad: list[BadRun], policy: Policy, notes: list[str]) -> list[BadRun]:
    """The runs to undo, of those whose version is not known. Where its event is replayed a run may well have been a
    good one: it leaves again what it had left. Where it is not, *refuse* says so, and any other policy leaves the run
    alone and lists it."""
    unknown = [b for b in bad if b.why == "version-unknown"]
    for workflow in sorted({b.workflow for b in unknown}):
        runs = [b.run_id for b in unknown if b.workflow == workflow]
        named = f"{len(runs)} runs of {workflow} ({', '.join(runs[:5])}) do not tell their version and may be bad"
        if events.replayable(ctx, workflow):
            notes.append(f"{named}: they are undone and replayed like bad ones")
        elif policy is Policy.REFUSE:
            raise Refused(
                f"plan for app {ctx.app.key}: {named}, and the catalogue does not say how to replay them: name the "
                "event's key, or choose `--policy keep-later`, which leaves them as they are"
            )
        else:
            notes.append(f"{named}: they are left as they are; {PERSON} at what they wrote")
    left = {b.workflow for b in unknown if not events.replayable(ctx, b.workflow)}
    return [b for b in bad if b.why != "version-unknown" or b.workflow not in left]


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
        # What an earlier recovery replayed is handled, however its first run ended.
        replace(r, state=RunState.SUCCESS) if (r.workflow, r.run_id) in selected.undone else r
        for workflow, ids in by_workflow.items()
        for r in events.read(ctx, workflow, selected.runs.get(workflow, []), frozenset(ids))
    ]
    for workflow, ids in sorted(by_workflow.items()):
        if not events.replayable(ctx, workflow):
            notes.append(f"{len(ids)} runs of {workflow} are undone and not replayed: the catalogue names no event key")
    choice = events.choose(received)
    if choice.handled_elsewhere:
        notes.append(f"{choice.handled_elsewhere} events were handled by a good run as well; they are not replayed")
    notes += [f"run {r.run_id} of {r.workflow} has no event key; {PERSON} at its input" for r in choice.unreplayable]
    return choice


def take_back(
    ctx: AppContext, incident: str, selected: Selected, choice: events.Choice, notes: list[str]
) -> tuple[Compensation, ...]:
    """What becomes of the steps of the undone runs that left the rows. Raises :class:`Refused` where one that is
    critical cannot be taken back."""
    runs = facts.undone_runs(((s.workflow, s.run_id) for s in selected.selection), selected.runs)
    found = facts.decided(ctx, incident, runs, choice.events)
    if found.refusals:
        more = f" ({len(found.refusals) - 1} more like it)" if len(found.refusals) > 1 else ""
        raise Refused(f"plan for app {ctx.app.key}: {found.refusals[0]}{more}")
    notes += facts.notes(found.compensations)
    return found.compensations


def refuse_problems(
    ctx: AppContext, connection: psycopg.Connection, diagnosis: Diagnosis, selected: Selected, policy: Policy
) -> None:
    problems = [
        f"table {t.name}: triggers {', '.join(t.undeclared_triggers)} are not declared: "
        "say in the catalogue whether an undo suppresses them"
        for t in ctx.tables
        if t.undeclared_triggers
    ]
    problems += selected.preview.problems
    blocking = [c for c in selected.preview.conflicts if c.blocking]
    if policy is Policy.REFUSE and blocking:
        kinds = sorted({c.kind for c in blocking})
        problems.append(
            f"{len(blocking)} conflicting rows ({', '.join(kinds)}); "
            "see `reinstate plan --policy non-conflicting-only`, which leaves them as they are"
        )
    if problems:
        offer = offer_diff(ctx, connection, diagnosis.point_id)
        raise Refused(f"plan for app {ctx.app.key}: {'; '.join(dict.fromkeys(problems))}. {offer}")
