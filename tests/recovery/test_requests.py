"""One number per flow run, one plan per anomaly: an event that comes twice does nothing; nobody waits for the dead."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from incidents.errors import UnknownIncident
from ledger import kinds
from recovery.errors import NothingToRecover, Refused
from recovery.plan import Plan
from recovery.requests import CLAIM_S, Request
from tests.recovery.decided import EXPIRES_S, Desk, desk_in


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_in(tmp_path) as made:
        yield made


def test_runs_are_numbered_and_a_run_that_comes_back_keeps_its_number(desk: Desk) -> None:
    incident = desk.incident()
    assert desk.ask("F1", "operator") == Request(number=1, incident=incident)
    assert desk.ask("F2", "operator").number == 2
    assert desk.ask("F1", "operator").number == 1
    assert desk.kinds().count(kinds.RECOVERY_REQUESTED) == 2


def test_without_an_incident_there_is_nothing_to_ask_for(desk: Desk) -> None:
    with pytest.raises(NothingToRecover, match="no open incident"):
        desk.ask("F1")
    with pytest.raises(UnknownIncident, match="INC-9"):
        desk.ask("F1", incident="INC-9")
    incident = desk.incident()
    desk.tell(kinds.INCIDENT_CLOSED, incident, resolution="resolved")
    with pytest.raises(NothingToRecover, match="closed at"):
        desk.ask("F1", "operator", incident=incident)
    assert desk.ask("F2", "event", incident=incident).why == "the incident is closed"
    with pytest.raises(NothingToRecover, match="no plan in the ledger"):
        desk.ask("F1", "operator", recovery="R9")


def test_the_same_event_twice_makes_one_run_go_on(desk: Desk) -> None:
    desk.incident()
    assert desk.ask("F1").handled_by is None
    second = desk.ask("F2")
    assert (second.number, second.handled_by) == (2, "flow run F1")
    assert desk.ask("F1").handled_by is None


def test_of_runs_that_ask_at_once_exactly_one_goes_on(desk: Desk) -> None:
    desk.incident()
    start = threading.Barrier(8)
    answers: list[Request] = []

    def run(name: str) -> None:
        start.wait()
        answers.append(desk.ask(name))

    runs = [threading.Thread(target=run, args=(f"F{n}",)) for n in range(8)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert sorted(a.number for a in answers) == list(range(1, 9))
    assert len([a for a in answers if a.handled_by is None]) == 1


def test_a_run_that_died_before_it_planned_is_not_waited_for(desk: Desk) -> None:
    desk.incident()
    desk.ask("F1")
    desk.after(CLAIM_S)
    assert desk.ask("F2").handled_by == "flow run F1"
    desk.after(1)
    assert desk.ask("F2").handled_by is None
    assert desk.ask("F1").handled_by == "flow run F2"  # should it live after all


def test_a_run_that_died_before_it_showed_its_plan_plans_again(desk: Desk) -> None:
    incident = desk.incident()
    desk.ask("F1")
    desk.plan(incident)
    assert desk.ask("F2").handled_by
    assert desk.ask("F1") == Request(number=1, incident=incident)


def test_a_plan_that_waits_is_enough_until_it_expires(desk: Desk) -> None:
    incident = desk.incident()
    desk.ask("F1")
    plan = desk.plan(incident)
    desk.show(plan)
    desk.after(EXPIRES_S - 1)
    assert "waits for approval" in desk.ask("F2").why
    desk.after(1)
    assert desk.ask("F3").handled_by is None


def test_a_run_that_comes_back_finds_the_plan_it_showed(desk: Desk) -> None:
    incident = desk.incident()
    desk.ask("F1")
    plan = desk.plan(incident)
    desk.show(plan)
    newer = desk.plan(incident)
    desk.show(newer, flow_run="F2")
    found = desk.ask("F1")
    assert (found.recovery, found.plan_hash, found.handled_by) == (plan.recovery_id, plan.hash, None)


def test_a_no_holds_until_there_is_news(desk: Desk) -> None:
    incident = desk.incident()
    plan = desk.plan(incident)
    desk.show(plan)
    desk.reject(plan)
    desk.after(EXPIRES_S * 2)
    assert desk.ask("F2").handled_by == "ada"
    desk.tell(kinds.INCIDENT_JOINED, incident)
    assert desk.ask("F3").handled_by is None


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ([], "is running"),
        ([kinds.RECOVERY_STOPPED], "can be continued"),
        ([kinds.RECOVERY_FINISHED], "has ended"),
        ([kinds.RECOVERY_FINISHED, kinds.INCIDENT_JOINED], None),
        ([kinds.RELAPSE, kinds.RECOVERY_ABANDONED], None),
    ],
    ids=["started", "stopped", "finished", "finished and news", "relapse"],
)
def test_a_recovery_that_began_is_continued_not_replaced(desk: Desk, after: list[str], why: str | None) -> None:
    incident = desk.incident()
    plan = desk.plan(incident)
    desk.show(plan)
    desk.approve(plan)
    for kind in (kinds.RECOVERY_STARTED, *after):
        body = {"flow_run": "F1", "plan_hash": plan.hash} if kind == kinds.RECOVERY_STARTED else {}
        desk.tell(kind, incident, None if kind == kinds.INCIDENT_JOINED else plan.recovery_id, **body)
    desk.after(CLAIM_S * 10)
    answer = desk.ask("F2")
    assert (why in answer.why) if why else answer.handled_by is None
    assert desk.ask("F1").recovery == plan.recovery_id


def test_a_person_is_never_turned_away(desk: Desk) -> None:
    incident = desk.incident()
    desk.ask("F1")
    desk.show(desk.plan(incident))
    assert desk.ask("F2", "operator").handled_by is None
    assert desk.ask("F3", "command").handled_by is None


def test_a_recovery_that_is_named_is_never_in_other_hands(desk: Desk) -> None:
    incident = desk.incident()
    plan = desk.plan(incident)
    desk.show(plan)
    answer = desk.ask("F2", "steward", recovery=plan.recovery_id)
    assert (answer.recovery, answer.incident, answer.handled_by) == (plan.recovery_id, incident, None)


class Runs(RuleBasedStateMachine):
    """Flow runs that ask, plan, die and come back; people who decide or do not; time. What must always hold: numbers
    are given once; automatic runs never have two plans that could both be approved, and never plan over a waiting
    one; nobody is turned away when nobody acts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.desk = Desk(Path(self.folder.name))
        self.incident = self.desk.incident()
        self.numbers: dict[str, int] = {}
        self.asked: dict[str, str] = {}
        self.showing: dict[str, Plan] = {}
        self.replaced = 0

    def teardown(self) -> None:
        self.desk.ctx.ledger.close()
        self.folder.cleanup()

    @rule(name=st.sampled_from("abcdef"), trigger=st.sampled_from(["event", "event", "event", "operator"]))
    def run_asks(self, name: str, trigger: str) -> None:
        trigger = self.asked.setdefault(name, trigger)
        answer = self.desk.ask(name, trigger)
        assert self.numbers.setdefault(name, answer.number) == answer.number
        if name in self.showing:
            assert (answer.plan_hash, answer.handled_by) == (self.showing[name].hash, None)

    @rule(name=st.sampled_from("abcdef"), dies=st.booleans())
    def run_plans_under_the_lease(self, name: str, dies: bool) -> None:
        """As the flow does: ask again, plan, show; or die in between."""
        if name not in self.asked or name in self.showing:
            return
        answer = self.desk.ask(name, self.asked[name])
        if answer.handled_by or answer.recovery:
            return
        waiting = self.waiting()
        assert self.asked[name] == "operator" or not waiting
        plan = self.desk.plan(self.incident)
        if not dies:
            self.desk.show(plan, flow_run=name)
            self.showing[name] = plan

    @precondition(lambda self: self.showing)
    @rule(data=st.data(), yes=st.booleans())
    def person_decides(self, data: st.DataObject, yes: bool) -> None:
        plan = self.showing[data.draw(st.sampled_from(sorted(self.showing)))]
        newest = self.newest()
        try:
            (self.desk.approve if yes else self.desk.reject)(plan)
        except Refused:
            return
        assert newest == plan.hash

    @rule(seconds=st.sampled_from([1.0, CLAIM_S / 2, CLAIM_S + 1, EXPIRES_S / 2]))
    def time_passes(self, seconds: float) -> None:
        self.desk.after(seconds)

    @rule()
    def after_long_silence_somebody_new_is_let_through(self) -> None:
        self.desk.after(EXPIRES_S + CLAIM_S + 1)
        name = f"late {len(self.numbers)}"
        answer = self.desk.ask(name)
        self.asked[name] = "event"
        self.numbers[name] = answer.number
        decided = self.desk.kinds()
        if not {kinds.PLAN_APPROVED, kinds.PLAN_REJECTED} & set(decided):
            assert answer.handled_by is None

    @invariant()
    def numbers_are_given_once(self) -> None:
        assert len(set(self.numbers.values())) == len(self.numbers)

    @invariant()
    def at_most_one_plan_may_be_approved(self) -> None:
        assert len(self.waiting()) <= 1

    def waiting(self) -> list[str]:
        return [n for n, p in self.showing.items() if self.desk.standing(p).verdict == "waiting"]

    def newest(self) -> str:
        made = self.desk.ctx.ledger.entries(incident=self.incident, kinds=[kinds.PLAN_MADE])
        return str(made[-1].body["hash"])


Runs.TestCase.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
TestRuns = Runs.TestCase
