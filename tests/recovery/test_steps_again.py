"""A process may die at any line: the same plan goes on and ends in the same rows, with nothing done twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger import Ledger, steps
from platforms.fake import FakePlatform
from recovery import containment, execute, session, windows
from recovery.errors import NothingToRecover, Refused, StepFailed
from recovery.plan import Plan
from snapshots.undo import carry, undo
from tests.recovery.kiosk import Kiosk, expected

pytestmark = pytest.mark.postgres
STEPS = ["contain", "publish:intake", "undo", "replay", "carry", "verify", "canary", "resume:1", "resume:2", "watch",
         "close"]  # fmt: skip


class Killed(BaseException):
    """As ``kill -9``: no handler of the product sees it, nothing is recorded after it."""


def dies(function: Callable[..., Any], *, after: bool, when: Callable[..., bool] = lambda *_, **__: True) -> Any:
    """``function``, killed just before or just after it acts, the first time."""
    struck: list[bool] = []

    def dying(*args: Any, **kwargs: Any) -> Any:
        strike = not struck and when(*args, **kwargs)
        if strike:
            struck.append(True)
        if strike and not after:
            raise Killed
        result = function(*args, **kwargs)
        if strike:
            raise Killed
        return result

    return dying


def worked(kiosk: Kiosk) -> None:
    """At work again: the expected rows, the good version live, both roles free, nothing left over."""
    assert kiosk.rows() == expected()
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", "good")
    assert kiosk.may_write("intake")
    assert kiosk.may_write("payment")
    assert kiosk.copies == []


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_between_effect_and_outcome(
    kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, step: str
) -> None:
    late = STEPS.index(step) >= STEPS.index("replay")
    plan: Plan = request.getfixturevalue("undone" if late else "planned")
    incident = plan.incident_id
    assert [s.id for s in plan.steps] == STEPS
    dying = dies(steps.outcome, after=False, when=lambda _ledger, _recovery, at, **_: at == step)
    monkeypatch.setattr(steps, "outcome", dying)
    with pytest.raises(Killed):
        kiosk.run(plan)
    assert kiosk.go_on(incident)["state"] == "resumed"
    worked(kiosk)


INSIDE: list[tuple[Any, str, bool]] = [
    (containment, "raise_fence", True),
    (FakePlatform, "save", True),
    (undo, "apply", False),
    (undo, "apply", True),
    (windows, "lower_fence", True),
    (windows, "raise_fence", False),
    (FakePlatform, "open_private_entry", True),
    (carry, "apply", True),
    (FakePlatform, "activate", True),
    (FakePlatform, "close_private_entry", True),
]


@pytest.mark.parametrize("line", INSIDE, ids=lambda line: f"{line[1]}-{'after' if line[2] else 'before'}")
def test_a_kill_inside_a_step(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch, line: tuple[Any, str, bool]
) -> None:
    incident, plan = planned.incident_id, planned
    where, name, after = line
    monkeypatch.setattr(where, name, dies(getattr(where, name), after=after))
    with pytest.raises(Killed):
        kiosk.run(plan)
    kiosk.go_on(incident)
    worked(kiosk)


@pytest.mark.parametrize("killed_at", ["recovery.finished", "incident.closed"])
def test_a_kill_around_the_last_record_leaves_no_open_incident(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    incident, plan = planned.incident_id, planned
    kiosk.run(plan)
    if killed_at == "recovery.finished":
        monkeypatch.setattr(Ledger, "append", dies(Ledger.append, after=True))
    else:
        monkeypatch.setattr(session.record, "close", dies(session.record.close, after=False))
    with pytest.raises(Killed):
        session.finished(kiosk.home, "kiosk", plan)
    kiosk.go_on(incident)
    with pytest.raises(NothingToRecover):
        session.incident_of(kiosk.open(), None)
    worked(kiosk)


def test_edits_made_between_a_kill_and_the_rerun_are_kept(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident, plan = planned.incident_id, planned
    monkeypatch.setattr(undo, "apply", dies(undo.apply, after=True))
    with pytest.raises(Killed):
        kiosk.run(plan)
    kiosk.clerk("UPDATE kiosk.orders SET note = 'after the kill' WHERE id = 'h2'")
    kiosk.clerk("UPDATE kiosk.stock SET level = level + 5 WHERE sku = 'tea'")
    kiosk.go_on(incident)
    wanted = expected()
    wanted["stock"] = [("jam", 99), ("tea", dict(wanted["stock"])["tea"] + 5)]
    wanted["orders"] = [(*r[:3], "after the kill", r[4]) if r[0] == "h2" else r for r in wanted["orders"]]
    assert kiosk.rows() == wanted


def test_the_fence_left_down_by_a_kill_is_raised_before_the_recovery_goes_on(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident, plan = planned.incident_id, planned
    monkeypatch.setattr(windows, "raise_fence", dies(windows.raise_fence, after=False))
    with pytest.raises(Killed):
        kiosk.run(plan)
    assert kiosk.may_write("intake")
    session.step(kiosk.home, "kiosk", plan.recovery_id, "contain")
    assert not kiosk.may_write("intake")
    kiosk.go_on(incident)
    worked(kiosk)


def test_an_operator_who_contains_half_way_through_the_resume_does_not_block_it(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident, plan = planned.incident_id, planned
    kiosk.run(plan, until="resume:2")
    containment.contain(kiosk.open(), ["intake"], incident=incident)
    assert kiosk.live("intake") is None
    kiosk.go_on(incident)
    worked(kiosk)


def test_a_step_is_refused_before_those_that_come_first(kiosk: Kiosk, planned: Plan) -> None:
    plan = planned
    with pytest.raises(Refused, match="contain, publish:intake must be done before undo"):
        session.step(kiosk.home, "kiosk", plan.recovery_id, "undo")
    with pytest.raises(Refused, match="no step replays"):
        session.step(kiosk.home, "kiosk", plan.recovery_id, "replays")


def test_a_done_step_is_not_done_again(kiosk: Kiosk, planned: Plan) -> None:
    plan = planned
    kiosk.run(plan)
    before = kiosk.rows(), len(kiosk.open().ledger.entries())
    kiosk.run(plan)
    assert (kiosk.rows(), len(kiosk.open().ledger.entries())) == before


def test_an_approval_covers_only_the_plan_that_was_shown(kiosk: Kiosk, planned: Plan) -> None:
    ctx = kiosk.open()
    plan = planned
    given = session.approval(ctx, plan)
    assert given is not None
    changed: Plan = plan.model_copy(update={"carried_xids": ()})
    with pytest.raises(Refused, match="approve it again"):
        execute.run_step(ctx, changed, changed.steps[0], given, lambda _: None)


def test_an_unapproved_plan_does_not_run(kiosk: Kiosk, wrecked: str) -> None:
    incident = wrecked
    recovery = session.plan(kiosk.home, "kiosk", incident=incident, mode="both", policy="refuse", point=None)
    assert not session.approve(kiosk.home, "kiosk", session.load(kiosk.home, "kiosk", recovery), by=None, reason="")
    with pytest.raises(Refused, match="not approved"):
        session.step(kiosk.home, "kiosk", recovery, "contain")


def test_errors_are_recorded_in_one_line_without_the_rows_a_database_quotes(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned

    def quoting(*_: Any, **__: Any) -> Any:
        raise StepFailed("undo: duplicate key\nDETAIL: Key (email)=(ada@example.com) already exists")

    monkeypatch.setattr(undo, "apply", quoting)
    with pytest.raises(StepFailed) as caught:
        kiosk.run(plan)
    session.stopped(kiosk.home, "kiosk", plan, str(caught.value))
    assert not any("ada@example.com" in str(e.body) for e in kiosk.open().ledger.entries())
