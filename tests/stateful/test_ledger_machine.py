"""Any mixture of appends, reopenings, leases and clock steps against a plain model of a ledger."""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger import Ledger, steps
from ledger.entry import Entry
from ledger.errors import LeaseHeld, LeaseLost, Refused
from ledger.lease import Lease

APPS = st.sampled_from(["desk", "shop"])
STEPS = st.sampled_from(["publish", "undo"])


class LedgerMachine(RuleBasedStateMachine):
    """The model: a list of entries, one holder per app with the end of its lease, one status per step."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.now = datetime(2026, 11, 21, tzinfo=UTC)
        self.open()
        self.entries: list[Entry] = []
        self.leases: list[Lease] = []
        self.holders: dict[str, tuple[Lease, datetime]] = {}
        self.fencing: dict[str, int] = {}
        self.steps: dict[str, str] = {}

    def open(self) -> None:
        self.ledger = Ledger(self.folder / "ledger", clock=lambda: self.now)

    def teardown(self) -> None:
        for lease in self.leases:
            lease.release()
        self.ledger.close()
        shutil.rmtree(self.folder)

    @rule(app=APPS, body=st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
    def append(self, app: str, body: dict[str, int]) -> None:
        self.entries.append(self.ledger.append("noted", app=app, body=body))

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.open()

    @rule(s=st.integers(1, 40))
    def time_passes(self, s: int) -> None:
        self.now += timedelta(seconds=s)

    @rule(app=APPS)
    def acquire(self, app: str) -> None:
        held = self.holders.get(app)
        try:
            lease = self.ledger.lease(app, "R", ttl_s=60)
        except LeaseHeld:
            assert held is not None
            assert held[1] > self.now
            return
        assert held is None or held[1] <= self.now
        if held is not None:
            self.entries.append(self.ledger.entries(kinds=["lease.taken_over"])[-1])
        self.fencing[app] = self.fencing.get(app, 0) + 1
        assert lease.fencing == self.fencing[app]
        self.leases.append(lease)
        self.holders[app] = (lease, self.now + timedelta(seconds=60))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), what=st.sampled_from(["renew", "append", "release"]))
    def use(self, data: st.DataObject, what: str) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        held = self.holders.get(lease.app)
        holds = held is not None and held[0] is lease
        if what == "release":
            lease.release()
            if holds:
                del self.holders[lease.app]
            return
        try:
            if what == "renew":
                lease.renew()
                self.holders[lease.app] = (lease, self.now + timedelta(seconds=60))
            else:
                self.entries.append(self.ledger.append("noted", app=lease.app, lease=lease))
        except LeaseLost:
            assert not holds
        else:
            assert holds

    @rule(step=STEPS)
    def intend(self, step: str) -> None:
        self.entries.append(steps.intent(self.ledger, "R1", step, app="desk"))
        self.steps[step] = "intent"

    @rule(step=STEPS, status=st.sampled_from(["done", "failed"]))
    def end(self, step: str, status: steps.Status) -> None:
        try:
            made = steps.outcome(self.ledger, "R1", step, app="desk", status=status)
        except Refused:
            assert self.steps.get(step) != "intent"
            return
        assert self.steps[step] == "intent"
        self.steps[step] = status
        self.entries.append(made)

    @invariant()
    def the_record_is_the_model(self) -> None:
        assert self.ledger.entries() == self.entries
        assert self.ledger.verify() == []
        assert self.ledger.head()[0] == len(self.entries)
        known = steps.state(self.ledger, "R1")
        assert {s: type(k).__name__.lower() for s, k in known.items()} == self.steps


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestLedgerMachine = pytest.mark.timeout(120)(TestLedgerMachine)
