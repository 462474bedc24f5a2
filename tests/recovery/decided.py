"""A ledger with a clock of its own, an app with limits, and plans without content: what approvals and requests need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from incidents import record
from ledger import Ledger, kinds
from recovery import approvals, requests
from recovery.plan import Mode, Plan

APP = "kiosk"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
EXPIRES_S = 600


@dataclass
class Desk:
    """``now`` is what the ledger's clock says; :meth:`after` lets time pass, in seconds."""

    folder: Path
    now: datetime = START
    plans: int = 0
    ctx: Any = field(init=False)

    def __post_init__(self) -> None:
        ledger = Ledger(self.folder / "ledger.sqlite", clock=lambda: self.now)
        app = SimpleNamespace(key=APP, approvals=SimpleNamespace(expires_s=EXPIRES_S))
        self.ctx = SimpleNamespace(app=app, ledger=ledger, home=self.folder)

    def after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def incident(self) -> str:
        opened = record.open_incident(self.ctx.ledger, APP, severity="sev2", title="Wrong totals", workflows=["intake"])
        self.tell(kinds.INCIDENT_DIAGNOSED, opened.id)
        return opened.id

    def tell(self, kind: str, incident: str, recovery: str | None = None, **body: Any) -> None:
        self.ctx.ledger.append(kind, app=APP, incident=incident, recovery=recovery, body=body)

    def ask(self, flow_run: str, trigger: str = "event", **more: Any) -> requests.Request:
        asked: dict[str, Any] = {"mode": "both", "incident": None, "recovery": None, **more}
        return requests.ask(self.ctx, flow_run=flow_run, trigger=trigger, **asked)

    def plan(self, incident: str, recovery: str = "R1") -> Plan:
        """Made and on record; no two have the same hash."""
        self.plans += 1
        made = plan_of(incident, recovery, self.plans)
        self.ctx.ledger.append(
            kinds.PLAN_MADE,
            app=APP,
            incident=incident,
            recovery=made.recovery_id,
            body={**made.model_dump(mode="json"), "hash": made.hash},
        )
        return made

    def show(self, plan: Plan, flow_run: str | None = "F1", expires_s: float = EXPIRES_S) -> approvals.Shown:
        return approvals.show(self.ctx, plan, flow_run=flow_run, expires_s=expires_s)

    def approve(self, plan: Plan, by: str = "ada", **more: Any) -> Any:
        return approvals.approve(self.ctx, plan, **{"plan_hash": plan.hash, "by": by, "reason": "read it", **more})

    def reject(self, plan: Plan, by: str = "ada") -> approvals.Standing:
        return approvals.reject(self.ctx, plan, plan_hash=plan.hash, by=by, reason="undo less")

    def standing(self, plan: Plan) -> approvals.Standing:
        entries = self.ctx.ledger.entries(incident=plan.incident_id)
        return approvals.standing(entries, plan.recovery_id, plan.hash, now=self.now, expires_s=EXPIRES_S)

    def kinds(self) -> list[str]:
        return [e.kind for e in self.ctx.ledger.entries()]


def plan_of(incident: str, recovery: str, number: int) -> Plan:
    return Plan(
        recovery_id=f"{recovery}-{incident}",
        incident_id=incident,
        app=APP,
        mode=Mode.BOTH,
        policy="refuse",
        made_at=f"plan {number}",
        point_id=None,
        publications=(),
        selection=(),
        carried_xids=(),
        tables=(),
        effects=(),
        conflicts={},
        suspects=0,
        events=(),
        contained=("intake",),
        active_before=("intake",),
        steps=(),
    )


@contextmanager
def desk_in(folder: Path) -> Iterator[Desk]:
    made = Desk(folder)
    try:
        yield made
    finally:
        made.ctx.ledger.close()
