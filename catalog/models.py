"""What is protected: one app, its workflows, tables, goals and policies, as validated values.

Loaded from YAML by :mod:`catalog.load`; nothing here reads files or the environment. Names of tables are always
``schema.table``. Secrets are references (``env:NAME`` or ``file:PATH``), never values.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from catalog.errors import UnknownApp

TableName = Annotated[str, StringConstraints(pattern=r"^[^.\s]+\.[^.\s]+$")]
SecretRef = Annotated[str, StringConstraints(pattern=r"^(env|file):.+$")]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tier(StrEnum):
    """Criticality, most critical first."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Owned(Model):
    owner: str
    deputy: str
    tier: Tier = Tier.NORMAL


class PlatformRef(Model):
    kind: Literal["n8n", "node-red", "directus", "fake"]
    url: SecretRef
    api_key: SecretRef


class DatabaseRef(Model):
    """Connection strings of the three least-privilege roles (``reinstate roles --print-sql``)."""

    installer: SecretRef
    capturer: SecretRef
    recoverer: SecretRef


class Trigger(Model):
    """What starts a run. ``event_key`` and ``event_time`` are dotted paths into the trigger's input
    (``body.event_id``); without a key, the run's events are not replayed."""

    kind: Literal["webhook", "schedule", "manual"]
    event_key: str | None = None
    event_time: str | None = None
    replay: Literal["once", "discard"] = "once"
    replay_timeout_s: float = Field(default=60.0, gt=0)
    """A replayed run, or a canary's, that goes on for longer once its answer was waited for is stopped."""
    during_pause: Literal["replay", "discard", "reject"] = "replay"
    """What the ingress does with events that come while the workflow is paused: keep them and send them afterwards,
    once and in order; take and only record them; or turn them away, so that the sender tries again."""
    replay_per_s: float | None = Field(default=None, gt=0)
    """At most so many kept events a second are sent afterwards."""


class Compensation(Model):
    """What takes back a step with effects outside the rows: SQL in the app's database, an HTTP call, or a run of
    another workflow. ``values`` are dotted paths into ``{"event": ..., "outputs": {node: [item, ...]}, "run": id}`` of
    the run to be taken back (``outputs.Charge.0.id``); with ``*`` for the item's number (``outputs.Charge.*.id``) the
    inverse is done for each item that the step's node returned. SQL takes values as ``:name``; the URL and the texts
    in the body as ``{name}`` (a text that is nothing but a name keeps the value's type); a workflow gets them as the
    body of its event. Each attempt carries the same idempotency key."""

    kind: Literal["sql", "http", "workflow"]
    values: dict[str, str] = {}
    sql: str | None = None
    url: str | None = None
    """An address, or a reference to a secret that holds one."""
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, SecretRef] = {}
    body: dict[str, str] = {}
    not_needed: tuple[int, ...] = ()
    """HTTP statuses (400 to 499) by which the other side says that there is nothing (more) to take back. 410 always
    does, 404 does for DELETE."""
    workflow: Key | None = None
    retries: int = Field(default=3, ge=0, le=20)
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    """Of one attempt."""


class Step(Model):
    """One mutating step and its inverse (needs A3, D6), in the order in which the workflow does them."""

    name: str
    inverse: Literal["reversible", "compensable", "irreversible"]
    node: str | None = None
    """The platform's node that does it: the step was done if the run has outputs of it. Every run did it if omitted."""
    manual: str | None = None
    """What a person does where it cannot be taken back by itself."""
    compensation: Compensation | None = None
    critical: bool = True
    """When it cannot be taken back: stop the recovery, or go on and leave it, by name, to a person."""
    unsure: Literal["manual", "compensate"] = "manual"
    """When a run was cut off and nobody can tell whether it got to this step: leave it to a person, or take it back
    all the same, because the other side knows what there is."""


class Canary(Model):
    """A synthetic event sent through the resumed workflow; ``expect`` is SQL that must return no rows (the columns
    it returns say what is wrong). ``:run`` in it is the canary's run id. What the canary wrote is undone afterwards."""

    event: str
    """Path of a JSON file, relative to the catalogue: the trigger's input body."""
    expect: str


class Workflow(Owned):
    key: Key
    name: str
    """The workflow's name in the platform; ids change when a workflow is deleted and recreated."""
    role: str
    """The database role its credential uses: one per workflow."""
    trigger: Trigger
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    """``schema.table`` or ``schema.table.column``."""
    downstream: tuple[Key, ...] = ()
    """Workflows that depend on what this one writes; they are paused with it."""
    steps: tuple[Step, ...] = ()
    canary: Canary | None = None


class Reference(Model):
    columns: tuple[str, ...]
    table: TableName
    to: tuple[str, ...]


class Table(Model):
    name: TableName
    key: tuple[str, ...] = ()
    """Primary key columns; read from the database when omitted."""
    unique: tuple[tuple[str, ...], ...] = ()
    """Business keys that must be unique although no constraint says so."""
    references: tuple[Reference, ...] = ()
    """Relations that must hold although no foreign key says so."""
    additive: tuple[str, ...] = ()
    """Counters: undo merges them by difference, not by value."""
    public: tuple[str, ...] = ()
    """Columns whose values may appear in reports and logs; all others are masked."""
    triggers: dict[str, Literal["suppress", "fire", "derived"]] = {}
    """What an undo does with each of the app's own triggers; an undeclared one refuses the plan."""
    derives: tuple[TableName, ...] = ()
    """Tables that the suppressed triggers maintain."""
    event_time: str | None = None
    """Column with the business time of a row."""
    subject: str | None = None
    """Column that names the person a row is about (an address, a number): `reinstate erase` finds their rows by it."""


class Detector(Model):
    """One rule of the watcher. ``contain`` says that a confirmed finding contains; otherwise it only warns."""

    key: Key
    kind: Literal["duplicates", "orphans", "partial", "value-drift", "volume-drift", "rule", "mass-delete"]
    table: TableName
    columns: tuple[str, ...] = ()
    """duplicates: the business key. value-drift: one numeric column. rule: optionally the columns of the row that its
    condition depends on: who changed none of them is not to blame."""
    reference: Reference | None = None
    children: Reference | None = None
    """partial: a parent row without any row in ``children.table`` after ``grace_s`` is partial."""
    sql: str | None = None
    """rule: a SQL condition over the row (alias ``r``) that must hold for each changed row; NULL counts as holding,
    as in a CHECK constraint."""
    grace_s: float = 0.0
    """Rows whose first recent change is younger are not judged yet: their run may still be writing."""
    min_rows: int = 1
    """Findings below this many rows are not confirmed."""
    percent_floor: float = 25.0
    """drift: smaller deviations than this never count, however flat the history. mass-delete: percent of the table's
    rows that one actor must have deleted."""
    mads: float = 6.0
    bucket_s: float = 3600.0
    """value-drift: width of the buckets of history, by the table's ``event_time``."""
    history_buckets: int = 168
    """drift: how many buckets back the history goes."""
    contain: bool = True
    severity: Literal["sev1", "sev2", "sev3"] = "sev2"
    impact: str = ""
    """What it means to the business, in words."""
    playbook: Key | None = None
    """The playbook that handles it; the app's first one when omitted."""


class Objectives(Model):
    """Recovery time and point objectives in seconds, and the data state goals that must hold afterwards."""

    rto_s: int
    rpo_s: int
    goals: tuple[str, ...] = ()


class Autonomy(Model):
    """How far Reinstate goes without a person."""

    contain: bool = True
    """Whether a confirmed anomaly is contained; else the incident is only opened and announced."""
    recover: bool = False
    """Whether an automatic recovery approves its own plan within the limits below; else it waits for a person."""
    max_rows: int = 10_000
    """Plans that touch more rows wait for a person."""
    most_critical: Tier = Tier.CRITICAL
    """Apps and workflows of a more critical tier wait for a person."""
    compensate: bool = False
    """Whether a plan with compensations may approve itself: they act outside the database (refunds, calls)."""
    cooldown_s: int = 600
    """So long after an automatic recovery, the next one waits for a person."""


class Approvals(Model):
    """How long a plan that was shown may be approved, in seconds: the app goes on meanwhile."""

    expires_s: int = Field(default=3600, gt=0)


class Channel(Model):
    """Where notices go. ``to`` is an Apprise URL: chat, mail, webhook, ..."""

    key: Key
    audience: Literal["responders", "business", "customers"]
    to: SecretRef
    severities: tuple[Literal["sev1", "sev2", "sev3"], ...] = ("sev1", "sev2", "sev3")
    updates_every_s: int = Field(default=900, gt=0)
    """When the next update is promised."""


class Schedules(Model):
    """Cron lines (UTC) of what `reinstate up` runs by itself; an empty one switches it off."""

    protect: str = "0 * * * *"
    drill: str = "0 5 * * 0"
    maintain: str = "30 3 * * *"


class Containment(Model):
    """Limits of the proven pause, in seconds."""

    in_flight: Literal["drain", "stop"] = "drain"
    """Whether unfinished runs get time to end, or are stopped at once."""
    drain_s: float = 0.8
    """How long running runs may finish before they are stopped."""
    settle_s: float = 0.5
    """How long no attributed write may arrive before the pause counts as proven."""
    timeout_s: float = 20.0


class Caps(Model):
    """Limits a data step may not pass, whatever the plan says."""

    max_deleted_rows: int = 5_000
    max_deleted_share: float = 0.2
    """Of a table's rows."""
    max_changed_rows: int = 100_000
    drift_rows: int = 200
    """How far the recomputed row counts may be from the planned ones."""


class JournalPolicy(Model):
    retention_days: int = 14
    size_cap_mb: int = 1024


class Keep(Model):
    """How many recovery points stay: the newest ones, and the newest of each hour, day, week and month (UTC)."""

    last: int = Field(default=24, ge=1)
    hourly: int = Field(default=24, ge=0)
    daily: int = Field(default=14, ge=0)
    weekly: int = Field(default=8, ge=0)
    monthly: int = Field(default=12, ge=0)


class StorePolicy(Model):
    """Where recovery points live. ``url`` is a folder or an fsspec address; beside the ledger when omitted."""

    url: SecretRef | None = None
    options: dict[str, SecretRef] = {}
    """Credentials and endpoints, as fsspec's backend names them."""
    keys: tuple[SecretRef, ...] = ()
    """Encryption keys (32 bytes, base64): any of them may open the store; `reinstate store rotate` makes the first one
    the only one that does. None: not encrypted."""
    keep: Keep = Keep()


class CapturePolicy(Model):
    """How points are captured. Without a usable base, or after ``full_after`` increments, a point is full."""

    method: Literal["auto", "full", "journal", "scan"] = "auto"
    workers: int = Field(default=2, ge=1, le=64)
    runner: Literal["threads", "dask"] = "threads"
    full_after: int = Field(default=24, ge=0)
    fingerprint: bool = False
    """Whether each point carries fingerprints for the audit of the journal; they cost a scan of the tables."""


class IngressPolicy(Model):
    """The small server in front of webhooks (`reinstate ingress`). Senders call it at the same path and method."""

    listen: str = "127.0.0.1:8420"
    queue: SecretRef | None = None
    """Where events are kept: a SQLAlchemy address; a file beside the ledger when omitted."""
    keep_days: int = Field(default=14, ge=1)
    largest_mb: int = Field(default=16, ge=1)
    """Larger requests are turned away."""


class Playbook(Model):
    key: Key
    title: str
    scenario: str
    trigger: str
    impact: str
    steps: tuple[str, ...]
    verification: tuple[str, ...]
    rollback: tuple[str, ...]
    complete_when: tuple[str, ...]
    terminate_when: tuple[str, ...]
    owner: str
    contacts: tuple[str, ...]


class Connector(Model):
    key: Key
    what: str
    owner: str


class App(Owned):
    key: Key
    title: str
    platform: PlatformRef
    database: DatabaseRef
    objectives: Objectives
    workflows: tuple[Workflow, ...]
    tables: tuple[Table, ...]
    detectors: tuple[Detector, ...] = ()
    suites: str = "checks"
    """Folder of Great Expectations suites, relative to the catalogue."""
    playbooks: tuple[Playbook, ...] = ()
    connectors: tuple[Connector, ...] = ()
    caches: tuple[Connector, ...] = ()
    resume_order: tuple[tuple[Key, ...], ...] = ()
    """Stages of the staged resume; workflows not named come last, together."""
    autonomy: Autonomy = Autonomy()
    containment: Containment = Containment()
    caps: Caps = Caps()
    journal: JournalPolicy = JournalPolicy()
    capture: CapturePolicy = CapturePolicy()
    store: StorePolicy = StorePolicy()
    approvals: Approvals = Approvals()
    ingress: IngressPolicy | None = None
    channels: tuple[Channel, ...] = ()
    schedules: Schedules = Schedules()

    def workflow(self, key: str) -> Workflow:
        return next(w for w in self.workflows if w.key == key)

    def table(self, name: str) -> Table:
        return next(t for t in self.tables if t.name == name)

    def dependents(self, keys: frozenset[str]) -> frozenset[str]:
        """``keys``, everything downstream of them, and what writes as the same database role; transitively."""
        seen: set[str] = set()
        todo = list(keys)
        while todo:
            key = todo.pop()
            if key not in seen:
                seen.add(key)
                todo.extend(self.workflow(key).downstream)
                todo.extend(w.key for w in self.workflows if w.role == self.workflow(key).role)
        return frozenset(seen)


class Catalog(Model):
    apps: Annotated[tuple[App, ...], Field(min_length=1)]

    def app(self, key: str) -> App:
        """The app of that key. Raises ``UnknownApp`` naming those there are."""
        for app in self.apps:
            if app.key == key:
                return app
        raise UnknownApp(key, [a.key for a in self.apps])
