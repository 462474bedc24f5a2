"""Collecting the report of an incident from the ledger. Tolerant: a failed or half-done recovery is reported
with what is on record; what is missing stays empty and the page says so.

Values of rows never get in: keys of rows are counted, not named; error texts lose what looks like values.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from incidents.errors import UnknownIncident
from incidents.record import Incident, Status, fold
from incidents.report.model import (
    Cause,
    Notice,
    ReportData,
    Stage,
    Start,
    Verification,
)
from incidents.report.reading import dicts, items, number, shown, size
from incidents.report.recoveries import decision_of, recovery_of
from incidents.severity import Severity
from ledger import kinds
from ledger.entry import Entry
from ledger.metrics import instant, measure
from ledger.timeline import TimelineLine, line, story

if TYPE_CHECKING:
    from ledger.ledger import Ledger


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
        incident=replace(
            incident, title=shown(incident.title), impact=shown(incident.impact), reason=shown(incident.reason)
        ),
        made_at=datetime.now(UTC),
        cause=_cause(diagnosed[-1].body) if diagnosed else None,
        undiagnosed=shown(undiagnosed[-1].body.get("why")) if undiagnosed and not diagnosed else "",
        findings=tuple(
            (shown(f.get("message")), shown(f.get("table")), size(f.get("rows"))) for f in incident.findings
        ),
        timeline=tuple(_line(e) for e in entries),
        recoveries=tuple(recovery_of(r, [e for e in entries if e.recovery == r]) for r in ids),
        verifications=tuple(_verification(e) for e in entries if e.kind in (kinds.VERIFY_PASSED, kinds.VERIFY_FAILED)),
        stages=tuple(_stage(e) for e in entries if e.kind == kinds.RESUME_STAGE),
        notices=tuple(_notice(e) for e in entries if e.kind in (kinds.NOTICE_SENT, kinds.NOTICE_FAILED)),
        starts=tuple(_start(e) for e in entries if e.kind in (kinds.RECOVERY_REQUESTED, kinds.RECOVERY_CONTINUED)),
        overrides=tuple(decision_of(e, str(e.body.get("what", "a rule"))) for e in entries if e.kind == kinds.OVERRIDE),
        metrics=measure(entries),
        rto_s=goals.get("rto_s", rto_s),
        rpo_s=goals.get("rpo_s", rpo_s),
        head=ledger.head(),
        problems=tuple(ledger.verify()),
        transactions=_transactions(entries),
        versions=_versions(entries),
    )


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
    runs = Counter((shown(r.get("workflow")), shown(r.get("why"))) for r in dicts(body.get("bad_runs")))
    return Cause(
        workflow=shown(body.get("workflow")) or "not recorded",
        bad_version=str(body.get("bad_version") or ""),
        good_version=str(body.get("good_version") or ""),
        published_at=instant(body.get("published_at")),
        first_bad_at=instant(body.get("first_bad_at")),
        confidence=number(body.get("confidence")),
        point=str(body["point_id"]) if body.get("point_id") else None,
        runs=tuple((workflow, why, n) for (workflow, why), n in sorted(runs.items())),
        unattributed=size(body.get("unattributed")),
        evidence=tuple(shown(e) for e in items(body.get("evidence"))),
    )


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
    given = body.get("number")
    why = f"continued: {shown(body.get('why')) or 'its process had died'}"
    return Start(
        at=entry.at,
        what=why
        if entry.kind == kinds.RECOVERY_CONTINUED
        else f"started by {shown(body.get('trigger')) or 'somebody'}",
        number=given if isinstance(given, int) and not isinstance(given, bool) else None,
        flow_run=shown(body.get("flow_run")),
    )


def _verification(entry: Entry) -> Verification:
    suites = entry.body.get("suites")
    suites = suites if isinstance(suites, dict) else {}
    ran = suites.get("ran")
    return Verification(
        at=entry.at,
        passed=entry.kind == kinds.VERIFY_PASSED,
        ran=ran if isinstance(ran, int) else None,
        failed=tuple(_failure(f) for f in items(suites.get("failed"))),
        agreement=tuple(
            (shown(c.get("name")), c.get("holds") is True, shown(c.get("detail")))
            for c in dicts(entry.body.get("agreement"))
        ),
    )


def _stage(entry: Entry) -> Stage:
    return Stage(
        at=entry.at,
        stage=str(entry.body.get("stage", "?")),
        workflows=tuple(str(w) for w in items(entry.body.get("workflows"))),
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


def _goals(entries: Iterable[Entry]) -> dict[str, float]:
    goals: dict[str, float] = {}
    for entry in entries:
        recorded = entry.body.get("objectives")
        if isinstance(recorded, dict):
            goals |= {k: n for k in ("rto_s", "rpo_s") if (n := number(recorded.get(k))) is not None}
    return goals


def _transactions(entries: Iterable[Entry]) -> tuple[tuple[str, int], ...]:
    found = []
    for entry in entries:
        detail = entry.body.get("detail") if entry.kind == kinds.STEP_OUTCOME else None
        xid = detail.get("xid") if isinstance(detail, dict) else None
        if isinstance(xid, int) and not isinstance(xid, bool):
            found.append((shown(entry.step), xid))
    return tuple(found)


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
