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
    why: Literal["bad-version", "interrupted", "entangled"]
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

    def canonical(self) -> str:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

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
