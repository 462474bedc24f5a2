"""What a notice can say of an incident at one state change, from the ledger and the catalogue. Pure.

Texts that people or machines wrote into the ledger pass :func:`incidents.report.reading.shown` and the ledger's mask:
no value of a row and no secret gets into a notice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from catalog.models import App, Playbook
from incidents.notices.states import Change, State
from incidents.record import Incident, fold
from incidents.report.model import Recovery
from incidents.report.reading import dicts, items, shown
from incidents.report.recoveries import recovery_of
from ledger import kinds
from ledger.entry import Entry
from ledger.mask import Guard
from ledger.metrics import instant, measure

FIRST_STEPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Names of workflows are those of the platform, which people know; ``keys`` are the catalogue's. Times are UTC."""

    app: App
    incident: str
    state: State
    why: str
    severity: str
    update: int
    at: datetime
    now: datetime
    next_by: datetime | None
    noticed_at: datetime
    wrong_since: datetime | None
    contained_at: datetime | None
    ended_at: datetime | None
    goal_by: datetime
    impact: str
    findings: tuple[str, ...]
    paused: tuple[str, ...]
    paused_keys: tuple[str, ...]
    working: tuple[str, ...]
    proven: bool
    repaired: bool
    """A recovery of the data was finished."""
    verified: bool
    """The newest verification passed and nobody overrode a rule."""
    blamed: str
    blamed_version: str
    bad_runs: int
    undiagnosed: str
    playbook: Playbook | None
    recovery: Recovery | None
    recovery_id: str | None
    plan_hash: str
    expires_at: datetime | None
    flow_run: str
    by: str
    reason: str
    next_step: str
    earlier: tuple[Change, ...]
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def lasted_s(self) -> float:
        """How long the app has not worked as it should."""
        return ((self.ended_at or self.now) - (self.wrong_since or self.noticed_at)).total_seconds()

    @property
    def late(self) -> bool:
        """Whether the goal for the recovery has passed."""
        return self.now > self.goal_by

    @property
    def rows(self) -> int:
        """Rows that were put right."""
        changed = self.recovery.changed if self.recovery else None
        return sum(c.delete + c.update + c.insert for c in changed or ())

    @property
    def left(self) -> int:
        """What is known to be wrong still: rows left because of a conflict, events that failed again."""
        return self.recovery.left + self.recovery.left_out if self.recovery and self.state.final else 0

    @property
    def doubtful(self) -> int:
        """Later writes that may rest on a damaged value."""
        return self.recovery.suspects if self.recovery and self.state.final else 0


def gather(
    app: App,
    story: Sequence[Entry],
    changes: Sequence[Change],
    about: Change,
    *,
    update: int,
    now: datetime,
    next_by: datetime | None,
    addresses: Mapping[str, str] | None = None,
) -> Facts:
    """The facts about ``about``, one of the incident's ``changes``, from the incident's ``story``: everything up to
    the state change that followed it."""
    after = next((c.seq for c in changes if c.seq > about.seq), None)
    known = [e for e in story if after is None or e.seq < after]
    incident = fold(known)[about.incident]
    measured = measure(known)
    paused = _paused(known) if not about.state.final else ()
    diagnosed = _last(known, kinds.INCIDENT_DIAGNOSED)
    undiagnosed = _last(known, kinds.INCIDENT_UNDIAGNOSED)
    cause = diagnosed.body if diagnosed else {}
    own = next(e for e in known if e.seq == about.seq)
    recovery_id = about.recovery or next((e.recovery for e in reversed(known) if e.recovery), None)
    asked = _last(known, kinds.PLAN_SHOWN)
    noticed_at = measured.detected_at or incident.detected_at
    return Facts(
        app=app,
        incident=about.incident,
        state=about.state,
        why=about.why,
        severity=incident.severity.value,
        update=update,
        at=about.at,
        now=now,
        next_by=None if about.state.final else next_by,
        noticed_at=noticed_at,
        wrong_since=measured.first_bad_at,
        contained_at=incident.contained_at,
        ended_at=own.at if about.state.final else None,
        goal_by=noticed_at + timedelta(seconds=app.objectives.rto_s),
        impact=clean(incident.impact),
        findings=tuple(dict.fromkeys(clean(f.get("message")) for f in incident.findings if f.get("message"))),
        paused=tuple(_name(app, k) for k in paused),
        paused_keys=paused,
        working=tuple(w.name for w in app.workflows if w.key not in paused),
        proven=about.proven,
        repaired=any(e.kind == kinds.RECOVERY_FINISHED and e.body.get("mode", "both") != "logic" for e in known),
        verified=_verified(known),
        blamed=_name(app, clean(cause.get("workflow"))) if cause.get("workflow") else "",
        blamed_version=clean(cause.get("bad_version"))[:12],
        bad_runs=len(items(cause.get("bad_runs"))),
        undiagnosed=clean(undiagnosed.body.get("why")) if undiagnosed and not diagnosed else "",
        playbook=_playbook(app, known, incident),
        recovery=recovery_of(recovery_id, [e for e in known if e.recovery == recovery_id]) if recovery_id else None,
        recovery_id=recovery_id,
        plan_hash=about.plan_hash[:12],
        expires_at=instant(asked.body.get("expires_at")) if asked else None,
        flow_run=clean(own.body.get("flow_run")),
        by=clean(own.body.get("by")),
        reason=clean(own.body.get("reason") or own.body.get("why") or _sentences(own)),
        next_step=clean(own.body.get("next")),
        earlier=tuple(c for c in changes if c.seq < about.seq),
        addresses=dict(addresses or {}),
    )


def clean(value: object) -> str:
    """A text of the record without values of rows and without secrets."""
    return Guard().text(shown(value))


def duration(value: float) -> str:
    """Seconds in words: ``42 seconds``, ``3 minutes 5 seconds``, ``2 hours 10 minutes``, ``3 days 4 hours``."""
    whole = max(0, round(value))
    for unit, smaller, name, small in (
        (86400, 3600, "day", "hour"),
        (3600, 60, "hour", "minute"),
        (60, 1, "minute", "second"),
    ):
        if whole >= unit:
            rest = whole % unit // smaller
            return _count(whole // unit, name) + (f" {_count(rest, small)}" if rest else "")
    return _count(whole, "second") if whole else "less than a second"


def moment(at: datetime) -> str:
    """A time in words, with its zone: ``23:50 UTC on 21 November 2026``."""
    utc = at.astimezone(UTC)
    return f"{utc:%H:%M} UTC on {utc.day} {_MONTHS[utc.month - 1]} {utc.year}"


def latest(at: datetime) -> str:
    """A time that is promised: the full minute not before it, so that the promise is not kept a few seconds late."""
    rounded = at.replace(second=0, microsecond=0)
    return moment(rounded if rounded == at else rounded + timedelta(minutes=1))


def _paused(known: Iterable[Entry]) -> tuple[str, ...]:
    """What was contained, or was to be, and was not let through again since."""
    found: dict[str, None] = {}
    for entry in known:
        keys = [str(w) for w in items(entry.body.get("workflows"))]
        if entry.kind in (kinds.CONTAIN_STARTED, kinds.CONTAIN_FAILED, *kinds.CONTAINED):
            found |= dict.fromkeys(keys)
        elif entry.kind == kinds.RESUME_STAGE and entry.body.get("ok"):
            found = {k: None for k in found if k not in keys}
    return tuple(found)


def _verified(known: Iterable[Entry]) -> bool:
    found = [e.kind for e in known if e.kind in (kinds.VERIFY_PASSED, kinds.VERIFY_FAILED, kinds.OVERRIDE)]
    return bool(found) and found[-1] == kinds.VERIFY_PASSED and kinds.OVERRIDE not in found


def _playbook(app: App, known: Iterable[Entry], incident: Incident) -> Playbook | None:
    """The one on record, else that of the detector that fired, else the app's first."""
    recorded = [e.body.get("playbook") for e in known if e.kind in (kinds.INCIDENT_OPENED, kinds.INCIDENT_JOINED)]
    named = [str(r.get("key")) for r in recorded if isinstance(r, dict)]
    fired = {str(f.get("detector")) for f in incident.findings}
    named += [d.playbook for d in app.detectors if d.key in fired and d.playbook]
    by_key = {p.key: p for p in app.playbooks}
    return next((by_key[k] for k in named if k in by_key), app.playbooks[0] if app.playbooks else None)


def _sentences(entry: Entry) -> str:
    findings = items(entry.body.get("findings"))
    return "; ".join(str(f) for f in findings if isinstance(f, str)) if not dicts(findings) else ""


def _name(app: App, key: str) -> str:
    return next((w.name for w in app.workflows if w.key == key), key)


def _last(entries: Sequence[Entry], kind: str) -> Entry | None:
    return next((e for e in reversed(entries) if e.kind == kind), None)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
