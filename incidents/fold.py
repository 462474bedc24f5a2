"""What entries make of an incident. Pure: the values, and how each kind of entry changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from incidents.severity import Severity, worse
from ledger import kinds
from ledger.entry import Entry
from ledger.metrics import instant


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


class Await(StrEnum):
    """What a plan that was shown came to, as long as nothing followed it."""

    APPROVAL = "waiting-for-approval"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True, slots=True)
class Awaiting:
    """What an open incident waits for: a decision about the plan of this hash, or, once that was rejected or not made
    in time, a new plan. ``by`` and ``reason`` tell of a rejection."""

    what: Await
    plan_hash: str
    recovery: str | None
    expires_at: datetime | None = None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """One incident as the ledger tells it. Times are UTC. ``findings`` are as the detectors recorded them.
    ``playbook`` (key, title, owner, steps) is that of the worst finding; empty when the catalogue has none."""

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
    playbook: Mapping[str, Any] = field(default_factory=dict)
    awaiting: Awaiting | None = None


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
        workflows=texts_of(body.get("workflows")),
        detected_at=instant(body.get("detected_at")) or entry.at,
        opened_at=entry.at,
        findings=findings_of(body),
        playbook=_playbook(body),
    )


def _joined(known: Incident, entry: Entry) -> Incident:
    body = entry.body
    severity = worse(known.severity, _severity(body) or known.severity)
    return replace(
        known,
        severity=severity,
        impact=_sentences(known.impact, str(body.get("impact") or "")),
        playbook=known.playbook if severity is known.severity and known.playbook else _playbook(body) or known.playbook,
        workflows=_union(known.workflows, texts_of(body.get("workflows"))),
        findings=known.findings + findings_of(body),
    )


def _contained(known: Incident, entry: Entry) -> Incident:
    # A recovery proves the pause again as its first step; that is not a step back.
    status = Status.CONTAINED if known.status in (Status.OPEN, Status.RECOVERED) else known.status
    workflows = _union(known.workflows, texts_of(entry.body.get("workflows")))
    return replace(known, status=status, contained_at=known.contained_at or entry.at, workflows=workflows)


def _recovering(known: Incident, entry: Entry) -> Incident:
    recoveries = _union(known.recoveries, (entry.recovery,) if entry.recovery else ())
    return replace(known, status=Status.RECOVERING, recoveries=recoveries, awaiting=None)


def _stopped(known: Incident, _entry: Entry) -> Incident:
    return replace(known, status=Status.STOPPED)


def _recovered(known: Incident, entry: Entry) -> Incident:
    if entry.body.get("state", kinds.RESUMED) == kinds.RESUMED:
        return replace(known, status=Status.RECOVERED, recovered_at=entry.at)
    return replace(known, status=Status.RESTORED)


def _closed(known: Incident, entry: Entry) -> Incident:
    status = Status.FALSE_ALARM if entry.body.get("resolution") == Status.FALSE_ALARM else Status.RESOLVED
    return replace(known, status=status, closed_at=entry.at, reason=str(entry.body.get("reason", "")), awaiting=None)


def _shown(known: Incident, entry: Entry) -> Incident:
    waiting = Awaiting(
        what=Await.APPROVAL,
        plan_hash=str(entry.body.get("plan_hash", "")),
        recovery=entry.recovery,
        expires_at=instant(entry.body.get("expires_at")),
    )
    return replace(known, awaiting=waiting)


def _decided(known: Incident, entry: Entry) -> Incident:
    """A decision about another plan than the one that waits changes nothing."""
    waiting, body = known.awaiting, entry.body
    if waiting is None or waiting.plan_hash != str(body.get("plan_hash", "")):
        return known
    if entry.kind == kinds.PLAN_APPROVED:
        return replace(known, awaiting=None)
    what = Await.REJECTED if entry.kind == kinds.PLAN_REJECTED else Await.EXPIRED
    by, reason = str(body.get("by") or ""), str(body.get("reason") or "")
    return replace(known, awaiting=replace(waiting, what=what, by=by, reason=reason))


TRANSITIONS: dict[str, Callable[[Incident, Entry], Incident]] = {
    kinds.INCIDENT_JOINED: _joined,
    kinds.INCIDENT_CONTAINED: _contained,
    kinds.CONTAIN_PROVEN: _contained,
    kinds.RECOVERY_STARTED: _recovering,
    kinds.RECOVERY_STOPPED: _stopped,
    kinds.RECOVERY_ABANDONED: _stopped,
    kinds.RECOVERY_FINISHED: _recovered,
    kinds.INCIDENT_CLOSED: _closed,
    kinds.PLAN_SHOWN: _shown,
    kinds.PLAN_APPROVED: _decided,
    kinds.PLAN_REJECTED: _decided,
    kinds.PLAN_EXPIRED: _decided,
}
FOLDED = (kinds.INCIDENT_OPENED, *TRANSITIONS)
"""The kinds that change an incident."""


def _severity(body: Mapping[str, Any]) -> Severity | None:
    word = body.get("severity")
    return Severity(word) if word in list(Severity) else None


def findings_of(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    value = body.get("findings")
    return tuple(f for f in value if isinstance(f, dict)) if isinstance(value, list) else ()


def _playbook(body: Mapping[str, Any]) -> Mapping[str, Any]:
    value = body.get("playbook")
    return value if isinstance(value, dict) else {}


def _sentences(known: str, more: str) -> str:
    """The impact of both, nothing twice."""
    return known if more in known else f"{known} {more}".strip()


def texts_of(value: object) -> tuple[str, ...]:
    return tuple(str(v) for v in value) if isinstance(value, list) else ()


def _union(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))
