"""Collecting the report of an incident from the ledger. Tolerant: a failed or half-done recovery is reported
with what is on record; what is missing stays empty and the page says so.

Values of rows never get in: keys of rows are counted, not named; error texts lose what looks like values.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from incidents.errors import UnknownIncident
from incidents.record import Incident, Status, fold
from incidents.report.model import (
    Cause,
    Decision,
    Notice,
    Publication,
    Recovery,
    ReportData,
    Stage,
    Start,
    StepLine,
    TableChange,
    Verification,
)
from incidents.severity import Severity
from ledger import kinds, steps
from ledger.entry import Entry
from ledger.metrics import instant, measure
from ledger.timeline import TimelineLine, line, story

if TYPE_CHECKING:
    from ledger.ledger import Ledger

HIDDEN = "•••"
DECIDED = {kinds.PLAN_APPROVED: "approved", kinds.PLAN_REJECTED: "rejected", kinds.PLAN_EXPIRED: "expired"}
_VALUES = (
    # PostgreSQL's DETAIL: Key (email)=(a@b.example) already exists.
    (re.compile(r"=\([^)]*\)"), f"=({HIDDEN})"),
    # Failing row contains (1, a@b.example, ...).
    (re.compile(r"contains \(.*?\)(?=[.;,]|$)"), f"contains ({HIDDEN})"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), HIDDEN),
)


def collect(ledger: Ledger, incident_id: str, *, rto_s: float | None = None, rpo_s: float | None = None) -> ReportData:
    """The report's data as of now. Goals (seconds) on record win over those given. Raises ``UnknownIncident``."""
    entries = story(ledger, incident_id)
    if not entries:
        raise UnknownIncident(f"incident {incident_id}: nothing about it in the ledger; see `reinstate status`")
    goals = _goals(entries)
    diagnosed = [e for e in entries if e.kind == kinds.INCIDENT_DIAGNOSED]
    undiagnosed = [e for e in entries if e.kind == kinds.INCIDENT_UNDIAGNOSED]
    ids = dict.fromkeys(e.recovery for e in entries if e.recovery)
    incident = fold(entries).get(incident_id) or _unopened(incident_id, entries[0])
    return ReportData(
        incident=incident,
        made_at=datetime.now(UTC),
        cause=_cause(diagnosed[-1].body) if diagnosed else None,
        undiagnosed=shown(undiagnosed[-1].body.get("why")) if undiagnosed and not diagnosed else "",
        findings=tuple(
            (shown(f.get("message")), shown(f.get("table")), _count(f.get("rows"))) for f in incident.findings
        ),
        timeline=tuple(_line(e) for e in entries),
        recoveries=tuple(_recovery(r, [e for e in entries if e.recovery == r]) for r in ids),
        verifications=tuple(_verification(e) for e in entries if e.kind in (kinds.VERIFY_PASSED, kinds.VERIFY_FAILED)),
        stages=tuple(_stage(e) for e in entries if e.kind == kinds.RESUME_STAGE),
        notices=tuple(_notice(e) for e in entries if e.kind in (kinds.NOTICE_SENT, kinds.NOTICE_FAILED)),
        starts=tuple(_start(e) for e in entries if e.kind in (kinds.RECOVERY_REQUESTED, kinds.RECOVERY_CONTINUED)),
        overrides=tuple(_decision(e, str(e.body.get("what", "a rule"))) for e in entries if e.kind == kinds.OVERRIDE),
        metrics=measure(entries),
        rto_s=goals.get("rto_s", rto_s),
        rpo_s=goals.get("rpo_s", rpo_s),
        head=ledger.head(),
        problems=tuple(ledger.verify()),
        versions=_versions(entries),
    )


def shown(value: object) -> str:
    """A text without what looks like values of rows."""
    text = "" if value is None else " ".join(str(value).split())
    for pattern, replacement in _VALUES:
        text = pattern.sub(replacement, text)
    return text


def _line(entry: Entry) -> TimelineLine:
    found = line(entry)
    return TimelineLine(seq=found.seq, at=found.at, kind=found.kind, text=shown(found.text), tone=found.tone)


def _unopened(incident: str, first: Entry) -> Incident:
    return Incident(
        id=incident,
        app=first.app,
        severity=Severity.SEV3,
        status=Status.OPEN,
        title="Its opening is not on record",
        impact="",
        workflows=(),
        detected_at=first.at,
        opened_at=first.at,
    )


def _cause(body: dict[str, Any]) -> Cause:
    runs = Counter((shown(r.get("workflow")), shown(r.get("why"))) for r in _dicts(body.get("bad_runs")))
    return Cause(
        workflow=shown(body.get("workflow")) or "not recorded",
        bad_version=str(body.get("bad_version") or ""),
        good_version=str(body.get("good_version") or ""),
        published_at=instant(body.get("published_at")),
        first_bad_at=instant(body.get("first_bad_at")),
        confidence=_number(body.get("confidence")),
        point=str(body["point_id"]) if body.get("point_id") else None,
        runs=tuple((workflow, why, n) for (workflow, why), n in sorted(runs.items())),
        unattributed=_count(body.get("unattributed")),
        evidence=tuple(shown(e) for e in _list(body.get("evidence"))),
    )


def _recovery(recovery: str, entries: Sequence[Entry]) -> Recovery:
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
        events=_count(plan.get("events")),
        left=sum(_count(d.get("left")) for d in _details(lines, outcomes, "undo")),
        replayed=_replayed(lines, outcomes),
        left_out=_count(final.body.get("left_out")) if final else 0,
        carried=_count(plan.get("carried_xids")),
        conflicts=_conflicts(plan, lines, outcomes),
        suspects=_count(plan.get("suspects")),
        notes=tuple(shown(n) for n in _list(plan.get("notes"))),
        steps=lines,
        decisions=tuple(_decision(e, DECIDED[e.kind]) for e in entries if e.kind in DECIDED),
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
        for p in _dicts(plan.get("publications"))
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


def _notice(entry: Entry) -> Notice:
    body = entry.body
    return Notice(
        at=entry.at,
        state=shown(body.get("state")),
        audience=shown(body.get("audience")),
        channel=shown(body.get("channel")),
        subject=shown(body.get("subject")),
        sent=entry.kind == kinds.NOTICE_SENT,
        why=shown(body.get("why")),
    )


def _start(entry: Entry) -> Start:
    body = entry.body
    number = body.get("number")
    why = f"continued: {shown(body.get('why')) or 'its process had died'}"
    return Start(
        at=entry.at,
        what=why
        if entry.kind == kinds.RECOVERY_CONTINUED
        else f"started by {shown(body.get('trigger')) or 'somebody'}",
        number=number if isinstance(number, int) and not isinstance(number, bool) else None,
        flow_run=shown(body.get("flow_run")),
    )


def _steps(plan: dict[str, Any], entries: Iterable[Entry]) -> tuple[StepLine, ...]:
    """The plan's steps with how they went, then steps nobody planned."""
    entries = [e for e in entries if e.kind in (kinds.STEP_INTENT, kinds.STEP_OUTCOME)]
    known = steps.fold(entries)
    intents = {e.step: e.body for e in entries if e.kind == kinds.STEP_INTENT}
    planned = {str(s.get("id")): s for s in _dicts(plan.get("steps"))}
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
                seconds=_number(body.get("seconds")),
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
    counts = [c for d in details for c in _dicts(d.get("counts"))]
    for detail in details:
        tables = detail.get("tables")
        if isinstance(tables, dict):
            counts += [{**c, "table": name} for name, c in sorted(tables.items()) if isinstance(c, dict)]
    return _changes(counts) if details else None


def _replayed(lines: Sequence[StepLine], outcomes: dict[str | None, Any]) -> int | None:
    details = _details(lines, outcomes, "replay")
    return sum(_count(d.get("replayed")) + _count(d.get("already_there")) for d in details) if details else None


def _conflicts(
    plan: dict[str, Any], lines: Sequence[StepLine], outcomes: dict[str | None, Any]
) -> tuple[tuple[str, int], ...]:
    """Conflicts by kind, as the data step found them, else as planned."""
    found: Counter[str] = Counter()
    for detail in _details(lines, outcomes, "undo"):
        conflicts = detail.get("conflicts")
        if isinstance(conflicts, dict):
            found.update({str(k): _count(n) for k, n in conflicts.items()})
        else:
            found.update(str(c.get("kind")) for c in _dicts(conflicts))
    planned = plan.get("conflicts")
    if not found and isinstance(planned, dict):
        found.update({str(k): _count(n) for k, n in planned.items()})
    return tuple(sorted((k, n) for k, n in found.items() if n))


def _changes(value: object) -> tuple[TableChange, ...]:
    return tuple(
        TableChange(
            table=str(c.get("table", "?")),
            delete=_count(c.get("delete")),
            update=_count(c.get("update")),
            insert=_count(c.get("insert")),
            merged=_count(c.get("merged")),
        )
        for c in _dicts(value)
    )


def _verification(entry: Entry) -> Verification:
    suites = entry.body.get("suites")
    suites = suites if isinstance(suites, dict) else {}
    ran = suites.get("ran")
    return Verification(
        at=entry.at,
        passed=entry.kind == kinds.VERIFY_PASSED,
        ran=ran if isinstance(ran, int) else None,
        failed=tuple(_failure(f) for f in _list(suites.get("failed"))),
        agreement=tuple(
            (shown(c.get("name")), c.get("holds") is True, shown(c.get("detail")))
            for c in _dicts(entry.body.get("agreement"))
        ),
    )


def _stage(entry: Entry) -> Stage:
    return Stage(
        at=entry.at,
        stage=str(entry.body.get("stage", "?")),
        workflows=tuple(str(w) for w in _list(entry.body.get("workflows"))),
        ok=entry.body.get("ok") is True,
    )


def _failure(value: object) -> tuple[str, str, str, int | None]:
    if not isinstance(value, dict):
        return (shown(value), "", "", None)
    unexpected = value.get("unexpected")
    return (
        shown(value.get("suite")),
        shown(value.get("table")),
        shown(value.get("expectation")),
        unexpected if isinstance(unexpected, int) else None,
    )


def _decision(entry: Entry, what: str) -> Decision:
    body = entry.body
    return Decision(
        at=entry.at,
        what=what,
        by=str(body.get("by") or ("nobody in time" if entry.kind == kinds.PLAN_EXPIRED else "not recorded")),
        reason=shown(body.get("reason")),
        proven=body.get("identity_proven") is True,
    )


def _goals(entries: Iterable[Entry]) -> dict[str, float]:
    goals: dict[str, float] = {}
    for entry in entries:
        recorded = entry.body.get("objectives")
        if isinstance(recorded, dict):
            goals |= {k: n for k in ("rto_s", "rpo_s") if (n := _number(recorded.get(k))) is not None}
    return goals


def _versions(entries: Iterable[Entry]) -> dict[str, str]:
    found = {"Python": platform.python_version()}
    try:
        found["Reinstate"] = metadata.version("reinstate")
    except metadata.PackageNotFoundError:
        found["Reinstate"] = "not installed as a package"
    for entry in entries:
        recorded = entry.body.get("versions")
        if entry.kind == kinds.RECOVERY_STARTED and isinstance(recorded, dict):
            found |= {str(k): str(v) for k, v in recorded.items()}
    return dict(sorted(found.items()))


def _last_body(entries: Iterable[Entry], wanted: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entries:
        if entry.kind in wanted:
            found = entry.body
    return found


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [v for v in _list(value) if isinstance(v, dict)]


def _count(value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    return len(value) if isinstance(value, list | dict) else 0


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
