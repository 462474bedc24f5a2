"""A desk whose incidents are told: an app with channels, a ledger with a clock, and the way to each state."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from catalog.models import App, Channel
from incidents import record
from incidents.notices import dispatch as dispatching
from incidents.notices.compose import Message
from incidents.notices.dispatch import Sent
from incidents.notices.states import State
from ledger import Ledger, kinds
from ledger.entry import Entry

START = datetime(2026, 11, 21, 23, 50, 10, tzinfo=UTC)
HASH = "ab" * 32
AUDIENCES = ("responders", "business", "customers")

INCIDENT = "INC-20261121-0001"

Told = tuple[str, dict[str, Any]]
OPENED: Told = (
    kinds.INCIDENT_OPENED,
    {
        "severity": "sev1",
        "title": "Wrong totals",
        "impact": "Customers are charged the wrong amount.",
        "workflows": ["intake"],
        "findings": [{"detector": "totals", "table": "shop.orders", "rows": 12, "message": "12 rows of shop.orders"}],
        "first_bad_at": (START - timedelta(seconds=20)).isoformat(),
    },
)
PROVEN: Told = (kinds.CONTAIN_PROVEN, {"workflows": ["intake", "pay"], "seconds": 1.0})
UNPROVEN: Told = (kinds.CONTAIN_FAILED, {"workflows": ["intake", "pay"], "reason": "run 7 of intake is running"})
CAUSE: Told = (
    kinds.INCIDENT_DIAGNOSED,
    {"workflow": "intake", "bad_version": "f00d" * 16, "bad_runs": [{}, {}], "first_bad_at": START.isoformat()},
)
SHOWN: Told = (
    kinds.PLAN_SHOWN,
    {"plan_hash": HASH, "flow_run": "run-77", "expires_at": (START + timedelta(hours=1)).isoformat()},
)
STARTED: Told = (kinds.RECOVERY_STARTED, {"mode": "both", "plan_hash": HASH})
INTENT: Told = (kinds.STEP_INTENT, {"kind": "undo"})
UNDONE: Told = (
    kinds.STEP_OUTCOME,
    {"status": "done", "detail": {"counts": [{"table": "shop.orders", "update": 812, "delete": 3}]}},
)
FINISHED: Told = (kinds.RECOVERY_FINISHED, {"mode": "both", "state": "resumed", "left_out": ["run 9 of intake"]})
RELAPSE: Told = (kinds.RELAPSE, {"findings": ["12 rows again"], "workflows": ["intake", "pay"]})
ALARM: Told = (kinds.INCIDENT_CLOSED, {"resolution": "false-alarm", "by": "ada", "reason": "a sale"})

PATHS: dict[State, list[Told]] = {
    State.NOTICED: [OPENED],
    State.CONTAINED: [OPENED, PROVEN],
    State.NOT_CONTAINED: [OPENED, UNPROVEN],
    State.WAITING: [OPENED, PROVEN, CAUSE, SHOWN],
    State.RECOVERING: [OPENED, PROVEN, CAUSE, STARTED],
    State.HELD: [OPENED, PROVEN, CAUSE, STARTED, (kinds.RECOVERY_STOPPED, {"reason": "a suite failed"})],
    State.HALF_RESTORED: [
        OPENED,
        PROVEN,
        STARTED,
        (kinds.RECOVERY_FINISHED, {"mode": "data", "state": "data-restored"}),
    ],
    State.RELAPSE: [OPENED, PROVEN, STARTED, RELAPSE],
    State.RECOVERED: [OPENED, PROVEN, CAUSE, STARTED, INTENT, UNDONE, FINISHED],
    State.FALSE_ALARM: [OPENED, PROVEN, ALARM],
    State.HANDED_OVER: [OPENED, PROVEN, (kinds.INCIDENT_CLOSED, {"resolution": "handed-over", "by": "ada"})],
}
"""What leads to each state."""


def channel(key: str = "mail", audience: str = "responders", **fields: Any) -> Channel:
    return Channel.model_validate({"key": key, "audience": audience, "to": f"env:{key.upper()}", **fields})


def make_app(*channels: Channel, **fields: Any) -> App:
    owned = {"owner": "Ada Byron", "deputy": "Grace Hopper"}
    app = {
        "key": "desk",
        "title": "Order desk",
        **owned,
        "tier": "critical",
        "platform": {"kind": "fake", "url": "env:URL", "api_key": "env:KEY"},
        "database": {"installer": "env:I", "capturer": "env:C", "recoverer": "env:R"},
        "objectives": {"rto_s": 300, "rpo_s": 0},
        "workflows": [
            {"key": key, "name": name, "role": f"wf_{key}", "trigger": {"kind": "webhook"}, **owned}
            for key, name in (("intake", "Order intake"), ("pay", "Payment"), ("stock", "Stock sync"))
        ],
        "tables": [{"name": "shop.orders"}],
        "playbooks": [
            {
                "key": "bad-version",
                "title": "A bad version writes wrong data",
                "scenario": "s",
                "trigger": "t",
                "impact": "Orders wait.",
                "steps": ["Look at the evidence", "Approve the plan", "Read the report", "Go home"],
                "verification": ["v"],
                "rollback": ["r"],
                "complete_when": ["c"],
                "terminate_when": ["t"],
                "owner": "Ada Byron",
                "contacts": ["Desk: +49 30 5550 101"],
            }
        ],
        "channels": [c.model_dump() for c in channels],
    }
    return App.model_validate({**app, **fields})


def named(kind: str) -> tuple[str | None, str | None]:
    """Recovery and step of an entry."""
    recovery = "R1" if kind.startswith(("recovery.", "step.", "plan.", "relapse")) else None
    return recovery, "undo" if kind.startswith("step.") else None


def entries(*told: Told) -> list[Entry]:
    """What a ledger would hold, without one: an entry each second."""
    found = []
    for seq, (kind, body) in enumerate(told, start=1):
        recovery, step = named(kind)
        entry = Entry(
            seq=seq,
            at=START + timedelta(seconds=seq - 1),
            kind=kind,
            app="desk",
            incident=INCIDENT,
            recovery=recovery,
            step=step,
            body=body,
            prev_hash="",
            hash="",
        )
        found.append(entry)
    return found


@dataclass(kw_only=True)
class Desk:
    """An app, its ledger and its clock; ``sent`` is what ``send`` was given, ``broken`` are channels that fail."""

    app: App
    path: Path
    now: datetime = START
    sent: list[tuple[str, Message]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.path, clock=lambda: self.now)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def tell(self, *told: Told, incident: str = INCIDENT, apart_s: float = 1.0) -> None:
        """Write to the ledger what happened, one second after the other."""
        for kind, body in told:
            recovery, step = named(kind)
            self.ledger.append(kind, app="desk", incident=incident, recovery=recovery, step=step, body=body)
            self.later(apart_s)

    def reach(self, state: State) -> None:
        self.tell(*PATHS[state])

    def close(self) -> None:
        record.close(self.ledger, INCIDENT, reason="recovered")

    def send(self, url: str, message: Message) -> None:
        if url in self.broken:
            from incidents.errors import NotSent

            raise NotSent("the receiver is away")
        self.sent.append((url, message))

    def dispatch(self) -> list[Sent]:
        """One call; the address of a channel is its reference's name."""
        return dispatching.dispatch(
            self.ledger, self.app, resolve=lambda ref: ref.partition(":")[2].lower(), now=self.now, send=self.send
        )

    def states(self, channel: str = "mail") -> list[str]:
        """What a channel was told, in order."""
        entries = self.ledger.entries(kinds=[kinds.NOTICE_SENT])
        return [e.body["state"] for e in entries if e.body["channel"] == channel]
