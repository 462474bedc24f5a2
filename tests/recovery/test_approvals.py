"""A decision counts for one exact plan, in time, while that is the newest of its incident; whatever comes first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import kinds
from recovery import approvals
from recovery.approvals import Verdict
from recovery.errors import Expired, Refused, Rejected, Superseded
from tests.recovery.decided import EXPIRES_S, Desk, desk_in


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_in(tmp_path) as made:
        yield made


def test_an_approval_is_bound_to_the_plan_and_says_by_whom(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    shown = desk.show(plan)
    assert (shown.plan_hash, shown.flow_run) == (plan.hash, "F1")
    given = desk.approve(plan, by=" ada ")
    assert (given.plan_hash, given.by, given.identity_proven) == (plan.hash, "ada", False)
    assert desk.standing(plan).verdict is Verdict.APPROVED
    assert approvals.approval(desk.ctx, plan) == given


def test_a_second_yes_changes_nothing(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    first = desk.approve(plan)
    desk.after(EXPIRES_S * 2)
    assert desk.approve(plan, by="grace") == first
    assert desk.kinds().count(kinds.PLAN_APPROVED) == 1


def test_another_plans_hash_is_refused(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    desk.show(plan)
    with pytest.raises(Refused, match=f"decision is about plan {'0' * 12}, shown was {plan.hash[:12]}"):
        desk.approve(plan, plan_hash="0" * 64)
    assert desk.standing(plan).verdict is Verdict.WAITING


def test_nobody_approves_without_a_name(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    with pytest.raises(Refused, match="say by whom"):
        desk.approve(plan, by="  ")


@pytest.mark.parametrize(("late_s", "in_time"), [(-1, True), (0, False), (1, False)])
def test_an_approval_counts_until_the_plan_expires(desk: Desk, late_s: float, in_time: bool) -> None:
    plan = desk.plan(desk.incident())
    desk.after(100)
    desk.show(plan)
    desk.after(EXPIRES_S + late_s)
    if in_time:
        desk.approve(plan)
        return
    with pytest.raises(Expired, match="could be approved until 2026-11-21 12:11:40 UTC"):
        desk.approve(plan)
    with pytest.raises(Expired):
        desk.show(plan, flow_run="F2")


def test_a_plan_that_nobody_was_shown_expires_too(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    desk.after(EXPIRES_S)
    with pytest.raises(Expired):
        desk.approve(plan)


def test_a_newer_plan_takes_the_place_of_the_one_that_was_shown(desk: Desk) -> None:
    incident = desk.incident()
    old = desk.plan(incident)
    shown = desk.show(old)
    new = desk.plan(incident)  # under the same name: the first has not started
    with pytest.raises(Superseded, match=f"plan {new.hash[:12]} of {new.recovery_id} took the place"):
        desk.approve(old)
    with pytest.raises(Superseded):
        desk.reject(old)
    assert approvals.outdated(desk.ctx, new) == [shown]
    desk.approve(new)
    assert approvals.outdated(desk.ctx, old) == []


def test_an_approval_is_worth_nothing_once_a_newer_plan_was_made(desk: Desk) -> None:
    incident = desk.incident()
    old = desk.plan(incident)
    desk.approve(old)
    desk.plan(incident, "R2")
    assert desk.standing(old).verdict is Verdict.SUPERSEDED


def test_a_closed_incident_needs_no_decision(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    desk.show(plan)
    desk.tell(kinds.INCIDENT_CLOSED, plan.incident_id, resolution="false-alarm")
    with pytest.raises(Superseded, match="the incident's end"):
        desk.approve(plan)


def test_a_no_stays_a_no(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    desk.show(plan)
    found = desk.reject(plan)
    assert (found.verdict, found.by, found.reason) == (Verdict.REJECTED, "ada", "undo less")
    assert desk.reject(plan, by="grace").by == "ada"
    with pytest.raises(Rejected, match=r"ada rejected .*\(undo less\); the app stays paused"):
        desk.approve(plan)
    with pytest.raises(Rejected):
        desk.show(plan, flow_run="F2")


def test_what_was_approved_cannot_be_rejected(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    desk.approve(plan)
    with pytest.raises(Refused, match="ada approved its plan"):
        desk.reject(plan)


def test_of_a_yes_and_a_no_at_once_one_counts(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    desk.show(plan)
    start = threading.Barrier(6)
    refused: list[str] = []

    def answer(decide: object) -> None:
        start.wait()
        try:
            decide(plan)  # type: ignore[operator]
        except Refused as error:
            refused.append(str(error))

    people = [threading.Thread(target=answer, args=(d,)) for d in (desk.approve, desk.reject) * 3]
    for person in people:
        person.start()
    for person in people:
        person.join()
    decisions = [k for k in desk.kinds() if k in (kinds.PLAN_APPROVED, kinds.PLAN_REJECTED)]
    assert len(decisions) == 1
    assert len(refused) == 3


def test_expiry_is_recorded_once_and_only_when_time_is_over(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    shown = desk.show(plan)
    assert not approvals.expire(desk.ctx, shown)
    desk.after(EXPIRES_S)
    assert approvals.expire(desk.ctx, shown)
    assert not approvals.expire(desk.ctx, shown)
    assert desk.kinds().count(kinds.PLAN_EXPIRED) == 1
    with pytest.raises(Expired):
        desk.approve(plan)


def test_what_was_decided_does_not_expire(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    shown = desk.show(plan)
    desk.approve(plan)
    desk.after(EXPIRES_S)
    assert not approvals.expire(desk.ctx, shown)


def test_a_run_that_shows_its_plan_again_gets_no_more_time(desk: Desk) -> None:
    plan = desk.plan(desk.incident())
    first = desk.show(plan)
    desk.after(60)
    assert desk.show(plan) == first
    assert desk.show(plan, flow_run="F2").expires_at > first.expires_at
    assert desk.kinds().count(kinds.PLAN_SHOWN) == 2
