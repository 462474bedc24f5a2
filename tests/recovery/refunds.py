"""An app whose runs charged somewhere, without a database: for what compensations do over HTTP and workflow runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger import Ledger
from platforms.base import Platform, Run
from platforms.fake import FakePlatform
from recovery import facts
from recovery.context import AppContext
from recovery.plan import Event, Mode, Plan, RunSelection, Step
from recovery.steps import compensate
from snapshots.store.store import Store
from tests.recovery.kiosk import PEOPLE, app_model, definition
from tests.recovery.payment_service import PaymentService

INCIDENT = "INC-20261121-0001"
STEP = Step(id="compensate", kind="compensate", title="Take back")


class Killed(BaseException):
    """As ``kill -9``: no handler of the product sees it, nothing is recorded after it."""


def refund(service: PaymentService, **changes: Any) -> dict[str, Any]:
    """A step that charges, and how it is refunded."""
    inverse = {
        "kind": "http",
        "url": f"{service.url}/charges/{{charge}}/refund",
        "values": {"charge": "outputs.Charge.0.id"},
        "retries": 2,
        "timeout_s": 0.3,
        **changes.pop("inverse", {}),
    }
    return {"name": "charge", "inverse": "compensable", "node": "Charge", "compensation": inverse, **changes}


@dataclass
class Till:
    """``intake`` charges for each event it is called with; ``returns`` adds outputs by node."""

    home: Path
    service: PaymentService
    steps: Sequence[Mapping[str, Any]]
    fake: FakePlatform = field(init=False)
    platform: Platform = field(init=False)
    ids: dict[str, str] = field(init=False)
    returns: dict[str, Any] = field(default_factory=dict)
    refunding: Callable[[Mapping[str, Any], str], None] = lambda _event, _run: None
    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fake = FakePlatform({"Intake": self.intake, "Payment": self.payment})
        self.platform = self.fake
        self.ids = {
            "intake": self.fake.add(definition("Intake", "good"), active=True),
            "payment": self.fake.add(definition("Payment", "good"), active=True),
        }

    def intake(self, _content: Mapping[str, Any], event: Mapping[str, Any], _run: str) -> dict[str, Any]:
        return {"Charge": [{"id": self.service.charge(event["body"]["event"])}], **self.returns}

    def payment(self, _content: Mapping[str, Any], event: Mapping[str, Any], run: str) -> dict[str, Any]:
        self.refunding(event, run)
        return {"Work": [{}]}

    def call(self, event: str) -> Run:
        run = self.fake.call(self.ids["intake"], {"body": {"event": event}, "headers": {}, "query": {}})
        self.runs.append(run)
        return run

    def open(self) -> AppContext:
        """A context as a new process has it."""
        webhook = {"kind": "webhook", "event_key": "body.event"}
        workflows = [
            {"key": "intake", "name": "Intake", "role": "a", "trigger": webhook, "steps": list(self.steps), **PEOPLE},
            {"key": "payment", "name": "Payment", "role": "b", "trigger": webhook, **PEOPLE},
        ]
        self.home.mkdir(exist_ok=True)
        return AppContext(
            home=self.home,
            catalog_path=self.home,
            app=app_model(workflows=workflows, resume_order=[]),
            platform=self.platform,
            ledger=Ledger(self.home / "ledger.sqlite"),
            store=Store(str(self.home / "store")),
        )

    def plan(self, recovery: str = f"R1-{INCIDENT}") -> Plan:
        """A plan over all runs so far, their events replayed."""
        ctx = self.open()
        events = tuple(
            Event(workflow="intake", key=str(n), run_id=r.id, order=n) for n, r in enumerate(self.runs, start=1)
        )
        decided = facts.decided(
            ctx, INCIDENT, [facts.Undone(workflow="intake", run_id=r.id) for r in self.runs], events
        )
        assert not decided.refusals, decided.refusals
        return Plan(
            recovery_id=recovery,
            incident_id=INCIDENT,
            app=ctx.app.key,
            mode=Mode.BOTH,
            policy="refuse",
            made_at="2026-11-21T03:00:00+00:00",
            point_id=None,
            publications=(),
            selection=tuple(
                RunSelection(workflow="intake", role="a", run_id=r.id, xids=(), why="bad-version", attribution="exact")
                for r in self.runs
            ),
            carried_xids=(),
            tables=(),
            effects=(),
            conflicts={},
            suspects=0,
            events=events,
            contained=("intake",),
            active_before=("intake",),
            steps=(STEP,),
            compensations=decided.compensations,
        )

    def perform(self, plan: Plan) -> dict[str, Any]:
        """The step, in a process of its own as far as the product can tell."""
        return compensate.act(self.open(), plan, STEP, lambda _text: None)

    def recorded(self) -> list[tuple[str, str]]:
        """(run, status) of each outcome on record."""
        return [(e.body["run"], e.body["status"]) for e in self.open().ledger.entries(kinds=["compensation.ended"])]
