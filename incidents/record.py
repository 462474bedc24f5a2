"""The incident record: a read of the ledger, nothing of its own.

An incident is opened, joined by further findings, contained, recovered and closed by entries; its status and fields
are the fold of them. At most one incident is open per app: who detects a second anomaly joins the open one. Both are
decided while nobody else writes, so two detectors at the same instant make one incident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from incidents.errors import AlreadyClosed, UnknownIncident
from incidents.severity import Severity, worse
from ledger import kinds
from ledger.entry import Draft, Entry
from ledger.metrics import instant

if TYPE_CHECKING:
    from ledger.ledger import Ledger, View


class Status(StrEnum):
    """Where an incident stands. ``stopped``: a recovery ended at a safe state short of its goal, the app is still
    contained; ``restored``: one half is back, the app still paused; ``recovered``: back at work, not yet closed."""

    OPEN = "open"
    CONTAINED = "contained"
    RECOVERING = "recovering"
    STOPPED = "stopped"
    RESTORED = "restored"
    RECOVERED = "recovered"
    RESOLVED = "resolved"
    FALSE_ALARM = "false-alarm"

    @property
    def closed(self) -> bool:
        return self in (Status.RESOLVED, Status.FALSE_ALARM)


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """One incident as the ledger tells it. Times are UTC. ``findings`` are as the detectors recorded them."""

    id: str
    app: str
    severity: Severity
    status: Status
    title: str
    impact: str
    workflows: tuple[str, ...]
    detected_at: datetime
    opened_at: datetime
    contained_at: datetime | None = None
    recovered_at: datetime | None = None
    closed_at: datetime | None = None
    recoveries: tuple[str, ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""


def open_incident(
    ledger: Ledger,
    app: str,
    *,
    severity: str,
    title: str,
    impact: str = "",
    workflows: Sequence[str] = (),
    findings: Sequence[Mapping[str, Any]] = (),
    detected_at: datetime | None = None,
    by: str | None = None,
    **further: Any,
) -> Incident:
    """Open an incident for ``app``, or join its open one, and return it. ``further`` fields go into the entry's body
    (``first_bad_at``, ``objectives``). Raises ``ValueError`` for a word that is no severity."""
    body: dict[str, Any] = {
        **further,
        "severity": Severity(severity).value,
        "title": title,
        "impact": impact,
        "workflows": list(workflows),
        "findings": list(findings),
    }
    body |= {k: v for k, v in (("detected_at", detected_at), ("by", by)) if v is not None}

    def compose(view: View) -> Draft:
        found = _open_one(view, app)
        if found is not None:
            return Draft(kind=kinds.INCIDENT_JOINED, app=app, incident=found.id, body=body)
        return Draft(kind=kinds.INCIDENT_OPENED, app=app, incident=_next_id(view), body=body)

    entry = ledger.append_with(compose)
    return read(ledger, str(entry.incident))


def read(ledger: Ledger, incident: str) -> Incident:
    """The incident as it stands. Raises ``UnknownIncident``."""
    found = fold(ledger.entries(incident=incident)).get(incident)
    if found is None:
        raise UnknownIncident(f"incident {incident}: the ledger knows no such incident; see `reinstate status`")
    return found


def find_open(ledger: Ledger, app: str) -> Incident | None:
    """The app's open incident."""
    return _open_one(ledger, app)


def all_of(ledger: Ledger, app: str | None = None) -> list[Incident]:
    """Every incident, oldest first."""
    return list(fold(ledger.entries(app=app, kinds=FOLDED)).values())


def close(ledger: Ledger, incident: str, *, reason: str, by: str = "reinstate", false_alarm: bool = False) -> Incident:
    """Close it for good. Closing it again the same way changes nothing. Raises ``UnknownIncident``, and
    ``AlreadyClosed`` when it was closed another way."""
    resolution = Status.FALSE_ALARM if false_alarm else Status.RESOLVED

    def compose(view: View) -> Draft:
        found = fold(view.entries(incident=incident)).get(incident)
        if found is None:
            raise UnknownIncident(f"incident {incident}: the ledger knows no such incident; see `reinstate status`")
        if found.closed_at is not None:
            raise AlreadyClosed(
                f"incident {incident}: closed as {found.status} at {found.closed_at:%Y-%m-%d %H:%M:%S} UTC; "
                "open a new one"
            )
        body = {"resolution": resolution.value, "by": by, "reason": reason}
        return Draft(kind=kinds.INCIDENT_CLOSED, app=found.app, incident=incident, body=body)

    try:
        ledger.append_with(compose)
    except AlreadyClosed:
        if (known := read(ledger, incident)).status is resolution:
            return known
        raise
    return read(ledger, incident)


def fold(entries: Iterable[Entry]) -> dict[str, Incident]:
    """Incidents by id from entries in order. Pure; entries of other kinds change nothing."""
    found: dict[str, Incident] = {}
    for entry in entries:
        if entry.incident is None:
            continue
        if entry.kind == kinds.INCIDENT_OPENED:
            found[entry.incident] = _opened(entry)
        elif entry.incident in found and entry.kind in TRANSITIONS:
            found[entry.incident] = TRANSITIONS[entry.kind](found[entry.incident], entry)
    return found


def _opened(entry: Entry) -> Incident:
    body = entry.body
    return Incident(
        id=str(entry.incident),
        app=entry.app,
        severity=_severity(body) or Severity.SEV3,
        status=Status.OPEN,
        title=str(body.get("title", "")),
        impact=str(body.get("impact", "")),
        workflows=_texts(body.get("workflows")),
        detected_at=instant(body.get("detected_at")) or entry.at,
        opened_at=entry.at,
        findings=_findings(body),
    )


def _joined(known: Incident, entry: Entry) -> Incident:
    body = entry.body
    return replace(
        known,
        severity=worse(known.severity, _severity(body) or known.severity),
        workflows=_union(known.workflows, _texts(body.get("workflows"))),
        findings=known.findings + _findings(body),
    )


def _contained(known: Incident, entry: Entry) -> Incident:
    # A recovery proves the pause again as its first step; that is not a step back.
    status = Status.CONTAINED if known.status in (Status.OPEN, Status.RECOVERED) else known.status
    workflows = _union(known.workflows, _texts(entry.body.get("workflows")))
    return replace(known, status=status, contained_at=known.contained_at or entry.at, workflows=workflows)


def _recovering(known: Incident, entry: Entry) -> Incident:
    recoveries = _union(known.recoveries, (entry.recovery,) if entry.recovery else ())
    return replace(known, status=Status.RECOVERING, recoveries=recoveries)


def _stopped(known: Incident, _entry: Entry) -> Incident:
    return replace(known, status=Status.STOPPED)


def _recovered(known: Incident, entry: Entry) -> Incident:
    if entry.body.get("state", kinds.RESUMED) == kinds.RESUMED:
        return replace(known, status=Status.RECOVERED, recovered_at=entry.at)
    return replace(known, status=Status.RESTORED)


def _closed(known: Incident, entry: Entry) -> Incident:
    status = Status.FALSE_ALARM if entry.body.get("resolution") == Status.FALSE_ALARM else Status.RESOLVED
    return replace(known, status=status, closed_at=entry.at, reason=str(entry.body.get("reason", "")))


TRANSITIONS: dict[str, Callable[[Incident, Entry], Incident]] = {
    kinds.INCIDENT_JOINED: _joined,
    kinds.INCIDENT_CONTAINED: _contained,
    kinds.CONTAIN_PROVEN: _contained,
    kinds.RECOVERY_STARTED: _recovering,
    kinds.RECOVERY_STOPPED: _stopped,
    kinds.RECOVERY_ABANDONED: _stopped,
    kinds.RECOVERY_FINISHED: _recovered,
    kinds.INCIDENT_CLOSED: _closed,
}
FOLDED = (kinds.INCIDENT_OPENED, *TRANSITIONS)
"""The kinds that change an incident."""


def _open_one(source: Ledger | View, app: str) -> Incident | None:
    incidents = fold(source.entries(app=app, kinds=FOLDED)).values()
    return next((i for i in incidents if i.closed_at is None), None)


def _next_id(view: View) -> str:
    """``INC-`` day ``-`` number of the day: short enough to be said on the telephone."""
    prefix = f"INC-{view.now():%Y%m%d}-"
    taken = [str(e.incident) for e in view.entries(kinds=[kinds.INCIDENT_OPENED])]
    numbers = [int(i.removeprefix(prefix)) for i in taken if i.startswith(prefix) and i.removeprefix(prefix).isdigit()]
    return f"{prefix}{max(numbers, default=0) + 1:04d}"


def _severity(body: Mapping[str, Any]) -> Severity | None:
    word = body.get("severity")
    return Severity(word) if word in list(Severity) else None


def _findings(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    value = body.get("findings")
    return tuple(f for f in value if isinstance(f, dict)) if isinstance(value, list) else ()


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(v) for v in value) if isinstance(value, list) else ()


def _union(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))
