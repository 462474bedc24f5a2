"""One recovery of an incident, from its plan to its end, as the ledger tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from incidents.report.model import Decision, Publication, Recovery, StepLine, TableChange
from incidents.report.reading import dicts, items, number, shown, size
from ledger import kinds, steps
from ledger.entry import Entry
from ledger.metrics import instant

DECIDED = {kinds.PLAN_APPROVED: "approved", kinds.PLAN_REJECTED: "rejected", kinds.PLAN_EXPIRED: "expired"}


def recovery_of(recovery: str, entries: Sequence[Entry]) -> Recovery:
    plan = _last_body(entries, {kinds.PLAN_MADE})
    started = [e for e in entries if e.kind == kinds.RECOVERY_STARTED]
    ended = [
        e for e in entries if e.kind in (kinds.RECOVERY_FINISHED, kinds.RECOVERY_STOPPED, kinds.RECOVERY_ABANDONED)
    ]
    lines = _steps(plan, entries)
    outcomes = {e.step: e.body.get("detail") for e in entries if e.kind == kinds.STEP_OUTCOME}
    over = bool(ended) and (not started or ended[-1].seq > started[-1].seq)
    final = ended[-1] if over else None
    return Recovery(
        id=recovery,
        mode=str(plan.get("mode") or (started[-1].body.get("mode") if started else "") or ""),
        policy=str(plan.get("policy") or ""),
        plan_hash=str(plan.get("hash") or (started[-1].body.get("plan_hash") if started else "") or ""),
        publications=_publications(plan, lines),
        planned=_changes(plan.get("effects")),
        changed=_changed(lines, outcomes),
        events=size(plan.get("events")),
        left=sum(size(d.get("left")) for d in _details(lines, outcomes, "undo")),
        replayed=_replayed(lines, outcomes),
        left_out=size(final.body.get("left_out")) if final else 0,
        unknown=size(final.body.get("unknown")) if final else 0,
        taken_back=_taken_back(lines, outcomes),
        by_hand=tuple(shown(s) for d in _details(lines, outcomes, "compensate") for s in items(d.get("by_hand"))),
        carried=size(plan.get("carried_xids")),
        conflicts=_conflicts(plan, lines, outcomes),
        suspects=size(plan.get("suspects")),
        notes=tuple(shown(n) for n in items(plan.get("notes"))),
        steps=lines,
        decisions=tuple(decision_of(e, DECIDED[e.kind]) for e in entries if e.kind in DECIDED),
        waits_until=_waits_until(entries),
        started_at=started[0].at if started else None,
        ended_at=final.at if final else None,
        state=str(final.body.get("state") or final.kind.rpartition(".")[2]) if final else "",
        reason=shown(final.body.get("reason")) if final else "",
        flow_run=str((started[-1].body.get("flow_run") if started else "") or ""),
    )


def _publications(plan: dict[str, Any], lines: Iterable[StepLine]) -> tuple[Publication, ...]:
    done = {s.step for s in lines if s.kind == "publish" and s.status == "done"}
    return tuple(
        Publication(
            workflow=shown(p.get("workflow")) or "?",
            before=str(p.get("from_version") or ""),
            after=str(p.get("to_version") or ""),
            source=str(p.get("source") or ""),
            done=f"publish:{p.get('workflow')}" in done,
        )
        for p in dicts(plan.get("publications"))
    )


def _waits_until(entries: Iterable[Entry]) -> datetime | None:
    """Until when the newest plan that was shown may be approved, while nobody has decided."""
    until = None
    for entry in entries:
        if entry.kind == kinds.PLAN_SHOWN:
            until = instant(entry.body.get("expires_at"))
        elif entry.kind in DECIDED or entry.kind in (kinds.RECOVERY_STARTED, kinds.RECOVERY_ABANDONED):
            until = None
    return until


def _steps(plan: dict[str, Any], entries: Iterable[Entry]) -> tuple[StepLine, ...]:
    """The plan's steps with how they went, then steps nobody planned."""
    entries = [e for e in entries if e.kind in (kinds.STEP_INTENT, kinds.STEP_OUTCOME)]
    known = steps.fold(entries)
    intents = {e.step: e.body for e in entries if e.kind == kinds.STEP_INTENT}
    planned = {str(s.get("id")): s for s in dicts(plan.get("steps"))}
    lines = []
    for step in dict.fromkeys([*planned, *known]):
        about = planned.get(step) or intents.get(step, {})
        state = known.get(step)
        body = state.body if state is not None and state.finished else {}
        detail = body.get("detail")
        detail = detail if isinstance(detail, dict) else {}
        if state is None:
            status = "not reached"
        else:
            status = type(state).__name__.lower() if state.finished else "no outcome on record"
        lines.append(
            StepLine(
                step=step,
                title=shown(about.get("title")) or step,
                kind=str(about.get("kind") or ""),
                status=status,
                attempts=state.attempt if state else 0,
                seconds=number(body.get("seconds")),
                error=shown(body.get("error") or detail.get("error")),
                facts=_facts(detail),
            )
        )
    return tuple(lines)


def _facts(detail: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = []
    for name, value in detail.items():
        if isinstance(value, bool):
            facts.append((name, "yes" if value else "no"))
        elif isinstance(value, int | float):
            facts.append((name, f"{value:,}"))
        elif isinstance(value, list | dict):
            facts.append((name, f"{len(value):,} items" if len(value) != 1 else "1 item"))
    return tuple((shown(name.replace("_", " ")), text) for name, text in facts)


def _details(lines: Iterable[StepLine], outcomes: dict[str | None, Any], kind: str) -> list[dict[str, Any]]:
    """What the steps of one kind that ended well recorded."""
    found = [outcomes.get(s.step) for s in lines if s.kind == kind and s.status == "done"]
    return [d for d in found if isinstance(d, dict)]


def _changed(lines: Sequence[StepLine], outcomes: dict[str | None, Any]) -> tuple[TableChange, ...] | None:
    details = _details(lines, outcomes, "undo")
    counts = [c for d in details for c in dicts(d.get("counts"))]
    for detail in details:
        tables = detail.get("tables")
        if isinstance(tables, dict):
            counts += [{**c, "table": name} for name, c in sorted(tables.items()) if isinstance(c, dict)]
    return _changes(counts) if details else None


def _replayed(lines: Sequence[StepLine], outcomes: dict[str | None, Any]) -> int | None:
    details = _details(lines, outcomes, "replay")
    return sum(size(d.get("replayed")) + size(d.get("already_there")) for d in details) if details else None


def _taken_back(lines: Sequence[StepLine], outcomes: dict[str | None, Any]) -> int | None:
    details = _details(lines, outcomes, "compensate")
    return sum(size(d.get("done")) + size(d.get("not_needed")) for d in details) if details else None


def _conflicts(
    plan: dict[str, Any], lines: Sequence[StepLine], outcomes: dict[str | None, Any]
) -> tuple[tuple[str, int], ...]:
    """Conflicts by kind, as the data step found them, else as planned."""
    found: Counter[str] = Counter()
    for detail in _details(lines, outcomes, "undo"):
        conflicts = detail.get("conflicts")
        if isinstance(conflicts, dict):
            found.update({str(k): size(n) for k, n in conflicts.items()})
        else:
            found.update(str(c.get("kind")) for c in dicts(conflicts))
    planned = plan.get("conflicts")
    if not found and isinstance(planned, dict):
        found.update({str(k): size(n) for k, n in planned.items()})
    return tuple(sorted((k, n) for k, n in found.items() if n))


def _changes(value: object) -> tuple[TableChange, ...]:
    return tuple(
        TableChange(
            table=str(c.get("table", "?")),
            delete=size(c.get("delete")),
            update=size(c.get("update")),
            insert=size(c.get("insert")),
            merged=size(c.get("merged")),
        )
        for c in dicts(value)
    )


def decision_of(entry: Entry, what: str) -> Decision:
    body = entry.body
    return Decision(
        at=entry.at,
        what=what,
        by=str(body.get("by") or ("nobody in time" if entry.kind == kinds.PLAN_EXPIRED else "not recorded")),
        reason=shown(body.get("reason")),
        proven=body.get("identity_proven") is True,
    )


def _last_body(entries: Iterable[Entry], wanted: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entries:
        if entry.kind in wanted:
            found = entry.body
    return found
