"""The plan of a recovery: what is shown, approved and executed is this one frozen value. Pure; no I/O.

A plan freezes the selection (runs, versions, tables, policy, caps) and the expected counts, not every row: rows are
recomputed under lock by the same rule at execution. ``Plan.hash`` is the SHA-256 of the canonical JSON of everything
but itself, so that an approval can be bound to it.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

PERSON: Final = "a person must look"
"""Notes of a plan that hold these words keep it from approving itself."""


class Mode(StrEnum):
    """Which half comes back: definitions, rows, or both in agreement."""

    LOGIC = "logic"
    DATA = "data"
    BOTH = "both"


StepKind = Literal[
    "contain",
    "publish",
    "undo",
    "compensate",
    "replay",
    "carry",
    "verify",
    "canary",
    "resume",
    "watch",
    "release",
    "close",
]


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(Value):
    """One idempotent unit of work. ``id`` is unique in the plan and names it in ledger, Prefect and report."""

    id: str
    kind: StepKind
    title: str
    params: dict[str, Any] = {}


class RunSelection(Value):
    workflow: str
    role: str
    run_id: str | None
    xids: tuple[int, ...]
    why: Literal["bad-version", "version-unknown", "interrupted", "entangled"]
    attribution: str


class Event(Value):
    """An event to replay. ``run_id`` is the (first) undone run that received it; its payload stays in the platform."""

    workflow: str
    key: str
    run_id: str
    order: int


class Publication(Value):
    workflow: str
    platform_id: str
    from_version: str | None
    to_version: str
    source: Literal["point", "platform-history"]


class TableEffect(Value):
    table: str
    delete: int
    update: int
    insert: int
    merged: int
    table_rows: int = 0


class Compensation(Value):
    """What becomes of one step of one run to be undone that rows cannot take back. ``do``: its declared inverse is
    performed; ``manual``: a person must (``why`` and ``manual`` say so); ``settled``: it was taken back before.
    ``key`` is the idempotency key of all attempts. ``declared`` is the digest of the inverse as the catalogue declared
    it, ``values`` name what it is given, masked. ``item``: the inverse is done once per item of the step's node."""

    workflow: str
    run_id: str
    step: str
    item: int | None = None
    inverse: Literal["compensable", "irreversible"]
    action: Literal["do", "manual", "settled"]
    key: str
    kind: Literal["sql", "http", "workflow"] | None = None
    through: str | None = None
    """The workflow that does it."""
    critical: bool = True
    declared: str = ""
    values: dict[str, str] = {}
    why: str = ""
    manual: str | None = None
    again: bool = False
    """The event of the run is replayed, so the step will be done anew."""


ADDED_LATER: Final = ("compensations",)
"""Fields that plans on record may lack: an empty one is left out of the canonical form, so that their hashes hold."""


class Plan(Value):
    """See the module. Times are ISO 8601 strings, so that the canonical form is one."""

    recovery_id: str
    incident_id: str
    app: str
    mode: Mode
    policy: str
    made_at: str
    point_id: str | None
    publications: tuple[Publication, ...]
    good_versions: dict[str, str] = {}
    """Version by workflow that replay and canary go through, also where nothing is published."""
    selection: tuple[RunSelection, ...]
    carried_xids: tuple[int, ...]
    tables: tuple[str, ...]
    effects: tuple[TableEffect, ...]
    conflicts: dict[str, int]
    suspects: int
    events: tuple[Event, ...]
    contained: tuple[str, ...]
    active_before: tuple[str, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    compensations: tuple[Compensation, ...] = ()
    """In the order in which they are done: the latest run first, of each run the last step first."""

    def canonical(self) -> str:
        plain = self.model_dump(mode="json")
        shown = {k: v for k, v in plain.items() if v or k not in ADDED_LATER}
        return json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Rows the data step is expected to change."""
        return sum(e.delete + e.update + e.insert for e in self.effects)


class Approval(Value):
    """A verified decision about one exact plan. Identity is unproven until one-time codes are in use."""

    plan_hash: str
    by: str
    at: str
    reason: str
    identity_proven: bool = False

    def covers(self, plan: Plan) -> bool:
        return self.plan_hash == plan.hash
