"""The incident record: a read of the ledger, nothing of its own.

An incident is opened, joined by further findings, contained, recovered and closed by entries; its status and fields
are the fold of them. At most one incident is open per app: who detects a second anomaly joins the open one. Both are
decided while nobody else writes, so two detectors at the same instant make one incident.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from incidents.errors import AlreadyClosed, UnknownIncident
from incidents.fold import FOLDED, Await, Awaiting, Incident, Status, findings_of, fold, texts_of
from incidents.severity import Severity, worse
from ledger import kinds
from ledger.entry import Draft

if TYPE_CHECKING:
    from ledger.ledger import Ledger, View

__all__ = [
    "FOLDED",
    "Await",
    "Awaiting",
    "Incident",
    "Status",
    "all_of",
    "close",
    "find_open",
    "fold",
    "open_incident",
    "read",
]


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
    """Open an incident for ``app``, or join its open one, and return it. What the open one knows already (the same
    detectors and workflows, nothing worse, nobody's word) is not recorded again. ``further`` fields go into the entry's
    body (``first_bad_at``, ``objectives``, ``playbook``). Raises ``ValueError`` for a word that is no severity."""
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
        if found is None:
            return Draft(kind=kinds.INCIDENT_OPENED, app=app, incident=_next_id(view), body=body)
        if by is None and _known(found, body):
            raise _NothingNewError(found.id)
        return Draft(kind=kinds.INCIDENT_JOINED, app=app, incident=found.id, body=body)

    try:
        return read(ledger, str(ledger.append_with(compose).incident))
    except _NothingNewError as known:
        return read(ledger, str(known))


class _NothingNewError(Exception):
    """A join that would say what is on record already."""


def _known(found: Incident, body: Mapping[str, Any]) -> bool:
    """Whether the open incident holds everything that ``body`` says. Findings count by their detector: the same rule
    broken by more rows is the same news."""
    detectors = {f.get("detector") for f in findings_of(body)}
    return (
        bool(detectors)
        and detectors <= {f.get("detector") for f in found.findings}
        and set(texts_of(body["workflows"])) <= set(found.workflows)
        and worse(found.severity, str(body["severity"])) is found.severity
    )


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


def _open_one(source: Ledger | View, app: str) -> Incident | None:
    incidents = fold(source.entries(app=app, kinds=FOLDED)).values()
    return next((i for i in incidents if i.closed_at is None), None)


def _next_id(view: View) -> str:
    """``INC-`` day ``-`` number of the day: short enough to be said on the telephone."""
    prefix = f"INC-{view.now():%Y%m%d}-"
    taken = [str(e.incident) for e in view.entries(kinds=[kinds.INCIDENT_OPENED])]
    numbers = [int(i.removeprefix(prefix)) for i in taken if i.startswith(prefix) and i.removeprefix(prefix).isdigit()]
    return f"{prefix}{max(numbers, default=0) + 1:04d}"
