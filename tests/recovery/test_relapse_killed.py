"""A process may die while it contains a relapse: somebody else finishes that, and the app does not stay at work."""

from __future__ import annotations

from typing import Any

import pytest

from ledger import Ledger
from platforms.faulty import Fault, FaultKind
from recovery import containment, handling, resuming, session
from recovery.containment import contain
from recovery.errors import NothingToRecover, PauseNotProven, Relapse
from recovery.plan import Plan
from tests.recovery.kiosk import Kiosk, expected, order

pytestmark = pytest.mark.postgres


class Killed(BaseException):
    """As ``kill -9``: no handler of the product sees it, nothing is recorded after it."""


def strike(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Die at that point of the relapse. What happens before the relapse is left alone."""
    append = Ledger.append
    relapsed: list[bool] = []

    def appending(self: Ledger, kind: str, **more: Any) -> Any:
        if where == f"before {kind}" and relapsed:
            raise Killed
        entry = append(self, kind, **more)
        if kind == "relapse":
            relapsed.append(True)
        if where == f"after {kind}" and relapsed:
            raise Killed
        return entry

    def dying(real: Any, *, after: bool) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            if not relapsed:
                return real(*given, **more)
            if after:
                real(*given, **more)
            raise Killed

        return call

    monkeypatch.setattr(Ledger, "append", appending)
    for name in ("pause", "raise_fence", "settle"):
        if where.endswith(f" {name}"):
            real = getattr(containment, name)
            monkeypatch.setattr(containment, name, dying(real, after=where.startswith("after")))


WINDOWS = [
    "after relapse",
    "after recovery.abandoned",
    "before pause",
    "after pause",
    "before raise_fence",
    "after raise_fence",
    "after settle",
    "before contain.proven",
    "after contain.proven",
]


def paused(kiosk: Kiosk) -> bool:
    return (kiosk.live("intake"), kiosk.live("payment")) == (None, None) and not kiosk.may_write("intake")


def abandoned(kiosk: Kiosk) -> int:
    return len(kiosk.open().ledger.entries(kinds=["recovery.abandoned"]))


def damaged(kiosk: Kiosk, plan: Plan) -> None:
    """Resumed, and then somebody publishes the bad version again."""
    kiosk.run(plan, until="watch")
    kiosk.publish("intake", "bad")
    kiosk.call("intake", order("4", damages="h5"))


@pytest.mark.parametrize("where", WINDOWS)
def test_damage_is_contained_by_who_comes_next(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    incident = planned.incident_id
    damaged(kiosk, planned)
    with monkeypatch.context() as patch:
        strike(patch, where)
        with pytest.raises(Killed):
            kiosk.run(planned)
    caught = handling.finish_begun(kiosk.open())
    assert caught is not None
    assert caught.diagnosis is not None
    assert paused(kiosk)
    assert abandoned(kiosk) == 1
    assert handling.finish_begun(kiosk.open()) is None
    with pytest.raises(NothingToRecover):
        session.interrupted(kiosk.open(), incident)
    assert kiosk.recover(incident)["recovery"].startswith("R2-")
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", "good")
    assert kiosk.rows()["payments"] == expected()["payments"]


def test_an_operator_who_continues_first_comes_to_the_same(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged(kiosk, planned)
    with monkeypatch.context() as patch:
        strike(patch, "after relapse")
        with pytest.raises(Killed):
            kiosk.run(planned)
    with pytest.raises(Relapse, match="reinstate diagnose"):
        kiosk.go_on(planned.incident_id)
    assert paused(kiosk)
    assert abandoned(kiosk) == 1


def test_one_who_continues_and_dies_as_well_leaves_it_to_the_next(
    kiosk: Kiosk, wrecked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was wrong has healed meanwhile, so that the second process came to the next stage."""
    plan = wrong_version(kiosk, wrecked)
    with monkeypatch.context() as patch:
        strike(patch, "after relapse")
        with pytest.raises(Killed):
            kiosk.run(plan)
    kiosk.faults()
    kiosk.publish("intake", "good")
    kiosk.run(plan, until="watch")
    assert handling.finish_begun(kiosk.open()) is not None
    assert paused(kiosk)
    assert abandoned(kiosk) == 1
    assert resuming.resume(kiosk.open(), wrecked, by="tester", override=None, say=lambda _: None)


def wrong_version(kiosk: Kiosk, incident: str) -> Plan:
    """Planned, and the platform will run another version than the one it is told to."""
    kiosk.publish("intake", "bad")
    kiosk.faults(Fault(kind=FaultKind.DRAFT_ONLY_PUBLISH, times=None, workflow_id=kiosk.ids["intake"]))
    contain(kiosk.open(), ["intake"], incident=incident)
    return kiosk.plan(incident)


@pytest.mark.parametrize("where", WINDOWS)
def test_a_wrong_version_is_contained_by_who_comes_next_and_nothing_is_diagnosed_anew(
    kiosk: Kiosk, wrecked: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    plan = wrong_version(kiosk, wrecked)
    with monkeypatch.context() as patch:
        strike(patch, where)
        with pytest.raises(Killed):
            kiosk.run(plan)
    kiosk.faults()
    looked = len(kiosk.open().ledger.entries(kinds=["incident.diagnosed", "incident.undiagnosed"]))
    caught = handling.finish_begun(kiosk.open())
    assert (caught is None) is (where == "after contain.proven")
    assert paused(kiosk)
    assert abandoned(kiosk) == 1
    assert handling.finish_begun(kiosk.open()) is None
    assert len(kiosk.open().ledger.entries(kinds=["incident.diagnosed", "incident.undiagnosed"])) == looked
    back = resuming.resume(kiosk.open(), wrecked, by="tester", override=None, say=lambda _: None)
    assert back == ("intake", "payment")
    assert kiosk.live("intake") == "good"
    assert kiosk.rows() == expected()


def test_a_relapse_whose_pause_is_not_proven_is_tried_again(kiosk: Kiosk, planned: Plan) -> None:
    kiosk.configure(containment={"drain_s": 0.1, "settle_s": 0.1, "timeout_s": 0.3})
    damaged(kiosk, planned)
    kiosk.faults(Fault(kind=FaultKind.LYING_PAUSE, times=None))
    with pytest.raises(PauseNotProven):
        kiosk.run(planned)
    with pytest.raises(PauseNotProven):
        handling.finish_begun(kiosk.open())
    kiosk.faults()
    assert handling.finish_begun(kiosk.open()) is not None
    assert paused(kiosk)


def test_without_leave_to_contain_only_the_end_is_recorded(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged(kiosk, planned)
    with monkeypatch.context() as patch:
        strike(patch, "after relapse")
        with pytest.raises(Killed):
            kiosk.run(planned)
    kiosk.configure(autonomy={"contain": False})
    caught = handling.finish_begun(kiosk.open())
    assert caught is None or caught.contained is None
    assert kiosk.live("intake") == "bad"
