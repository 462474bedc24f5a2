"""What the report of an incident says, as values. Collected by :mod:`incidents.report.collect`, shown by the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from incidents.record import Incident
from ledger.metrics import Metrics
from ledger.timeline import TimelineLine


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """The newest diagnosis. ``runs`` counts runs by workflow and reason, ``confidence`` is 0 to 1."""

    workflow: str
    bad_version: str
    good_version: str
    published_at: datetime | None
    first_bad_at: datetime | None
    confidence: float | None
    point: str | None
    runs: tuple[tuple[str, str, int], ...]
    unattributed: int
    evidence: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableChange:
    table: str
    delete: int
    update: int
    insert: int
    merged: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLine:
    """``facts`` are the numbers of the outcome, never texts of rows."""

    step: str
    title: str
    kind: str
    status: str
    attempts: int
    seconds: float | None
    error: str = ""
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What was decided about a plan (``approved``, ``rejected``; ``expired`` by nobody), or overridden."""

    at: datetime
    what: str
    by: str
    reason: str
    proven: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """``failed`` names suite, table, expectation and number of violating rows."""

    at: datetime
    passed: bool
    ran: int | None
    failed: tuple[tuple[str, str, str, int | None], ...]
    agreement: tuple[tuple[str, bool, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    at: datetime
    stage: str
    workflows: tuple[str, ...]
    ok: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """A workflow that goes back from one version to another. ``done``: it is on record as published."""

    workflow: str
    before: str
    after: str
    source: str
    done: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What was told to whom; ``why`` says what kept it from being sent."""

    at: datetime
    state: str
    audience: str
    channel: str
    subject: str
    sent: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A flow run that was to recover, or to go on: ``what`` started it."""

    at: datetime
    what: str
    number: int | None
    flow_run: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """One attempt. ``planned`` from the plan, ``changed`` from what the data step recorded (``None``: it did not run).
    ``left`` are rows left as they are because of a conflict, ``left_out`` events that failed in the good version too,
    ``unknown`` events of which nobody knows whether they ran, ``taken_back`` steps outside the rows (``None``: no plan
    had any), ``by_hand`` what a person has to take back, in sentences,
    ``state`` is where it ended, empty while it has not, ``waits_until`` the expiry of a plan nobody has decided on."""

    id: str
    mode: str = ""
    policy: str = ""
    plan_hash: str = ""
    publications: tuple[Publication, ...] = ()
    planned: tuple[TableChange, ...] = ()
    changed: tuple[TableChange, ...] | None = None
    left: int = 0
    events: int = 0
    replayed: int | None = None
    left_out: int = 0
    unknown: int = 0
    taken_back: int | None = None
    by_hand: tuple[str, ...] = ()
    carried: int = 0
    conflicts: tuple[tuple[str, int], ...] = ()
    suspects: int = 0
    notes: tuple[str, ...] = ()
    steps: tuple[StepLine, ...] = ()
    decisions: tuple[Decision, ...] = ()
    waits_until: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    state: str = ""
    reason: str = ""
    flow_run: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """Everything the page shows. ``problems`` is what verifying the ledger found, ``transactions`` the steps' own ones
    in the app's database."""

    incident: Incident
    made_at: datetime
    cause: Cause | None
    undiagnosed: str
    findings: tuple[tuple[str, str, int], ...]
    timeline: tuple[TimelineLine, ...]
    recoveries: tuple[Recovery, ...]
    verifications: tuple[Verification, ...]
    stages: tuple[Stage, ...]
    notices: tuple[Notice, ...]
    starts: tuple[Start, ...]
    overrides: tuple[Decision, ...]
    metrics: Metrics
    rto_s: float | None
    rpo_s: float | None
    head: tuple[int, str]
    problems: tuple[str, ...]
    transactions: tuple[tuple[str, int], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
