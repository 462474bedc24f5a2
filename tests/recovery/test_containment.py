"""Containment pauses, drains and fences, and counts as proven only when it is."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from platforms.base import Permanent, RunState
from platforms.fake import EntryClosed, Suspend
from platforms.faulty import Fault, FaultKind
from recovery import containment
from recovery.containment import contain, live_before, recorded
from recovery.errors import PauseNotProven
from recovery.watch import handle
from tests.recovery.kiosk import Kiosk, definition, order

pytestmark = pytest.mark.postgres
INCIDENT = "INC-1"


def test_a_workflow_is_paused_with_its_dependents_and_fenced(kiosk: Kiosk) -> None:
    made = contain(kiosk.open(), ["intake"], incident=INCIDENT)
    assert made.workflows == made.active_before == ("intake", "payment")
    assert (kiosk.live("intake"), kiosk.live("payment")) == (None, None)
    assert not kiosk.may_write("intake")
    assert not kiosk.may_write("payment")
    with pytest.raises(EntryClosed):
        kiosk.call("intake", order("1"))


def test_what_is_not_downstream_stays_at_work(kiosk: Kiosk) -> None:
    assert contain(kiosk.open(), ["payment"], incident=INCIDENT).workflows == ("payment",)
    assert kiosk.live("intake") == "good"
    assert kiosk.may_write("intake")


def test_containing_again_keeps_what_was_active_and_live_first(kiosk: Kiosk) -> None:
    kiosk.fake.deactivate(kiosk.ids["payment"])
    first = contain(kiosk.open(), ["intake"], incident=INCIDENT)
    kiosk.fake.save(kiosk.ids["intake"], definition("Intake", "newer"))
    kiosk.fake.activate(kiosk.ids["intake"])
    second = contain(kiosk.open(), ["intake"], incident=INCIDENT)
    assert second.active_before == first.active_before == ("intake",)
    assert second.live_before == first.live_before
    assert list(second.live_before) == ["intake"]


def test_a_wider_containment_adds_to_the_record(kiosk: Kiosk) -> None:
    contain(kiosk.open(), ["payment"], incident=INCIDENT)
    wide = contain(kiosk.open(), ["intake"], incident=INCIDENT)
    assert wide.active_before == ("intake", "payment")
    assert set(wide.live_before) == {"intake", "payment"}


@pytest.mark.parametrize("killed_at", ["contain.started", "contain.live-before", "contain.proven"])
def test_a_kill_while_containing_loses_no_record_of_what_was_live(
    kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    ctx = kiosk.open()
    append = ctx.ledger.append

    def dying(kind: str, **fields: Any) -> Any:
        if kind == killed_at:
            raise KeyboardInterrupt
        return append(kind, **fields)

    monkeypatch.setattr(ctx.ledger, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        contain(ctx, ["intake"], incident=INCIDENT)
    made = contain(kiosk.open(), ["intake"], incident=INCIDENT)
    assert made.active_before == ("intake", "payment")
    assert set(made.live_before) == {"intake", "payment"}


def test_a_kill_between_two_pauses_loses_no_record_of_what_was_live(kiosk: Kiosk) -> None:
    class Killed(BaseException):
        pass

    ctx = kiosk.open()
    deactivate = kiosk.fake.deactivate

    def dying(workflow_id: str) -> None:
        deactivate(workflow_id)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kiosk.fake, "deactivate", dying)
        with pytest.raises(Killed):
            contain(ctx, ["intake"], incident=INCIDENT)
    assert set(live_before(kiosk.open(), INCIDENT)) == {"intake", "payment"}
    assert (recorded(kiosk.open(), INCIDENT) or {})["active_before"] == ["intake", "payment"]


def test_a_run_that_outlasts_the_drain_time_is_stopped(kiosk: Kiosk) -> None:
    def sleep(*_: Any) -> Any:
        raise Suspend(dict)

    kiosk.fake._runs.handlers = sleep
    run = kiosk.call("intake", order("1"))
    made = contain(kiosk.open(), ["intake"], incident=INCIDENT)
    assert made.stopped_runs == (run.id,)
    assert kiosk.fake.run_detail(run.id).run.state is RunState.CANCELED


def test_a_pause_that_lies_is_not_proven_and_the_fence_is_up(kiosk: Kiosk) -> None:
    kiosk.faults(Fault(kind=FaultKind.LYING_PAUSE, times=None))
    with pytest.raises(PauseNotProven, match="the entry of intake still answers"):
        contain(kiosk.open(), ["intake"], incident=INCIDENT)
    assert not kiosk.may_write("intake")
    kinds = [e.kind for e in kiosk.open().ledger.entries(incident=INCIDENT)]
    assert kinds[-1] == "contain.failed"


def test_a_pause_that_lies_at_the_entry_too_shows_in_runs_that_still_start(kiosk: Kiosk) -> None:
    kiosk.faults(Fault(kind=FaultKind.LYING_PAUSE_AND_ENTRY, times=None))
    over = threading.Event()

    def slow(*_: Any) -> Any:
        over.wait(0.03)
        return {}

    kiosk.fake._runs.handlers = slow

    def traffic() -> None:
        while not over.is_set():
            kiosk.call("intake", order("1"))

    sender = threading.Thread(target=traffic)
    sender.start()
    try:
        with pytest.raises(PauseNotProven):
            contain(kiosk.open(), ["intake"], incident=INCIDENT)
    finally:
        over.set()
        sender.join()


@pytest.mark.parametrize("method", ["workflows", "live_version", "deactivate", "runs", "ingress_paused"])
def test_the_fence_goes_up_whatever_the_platform_answers(kiosk: Kiosk, method: str) -> None:
    kiosk.faults(Fault(kind=FaultKind.EXPIRED_TOKEN, method=method, times=None))
    with pytest.raises((PauseNotProven, Permanent)):
        contain(kiosk.open(), ["intake"], incident=INCIDENT)
    assert not kiosk.may_write("intake")
    assert not kiosk.may_write("payment")
    kiosk.faults()
    assert contain(kiosk.open(), ["intake"], incident=INCIDENT).active_before == ("intake", "payment")


def test_lost_answers_of_the_platform_are_asked_again(kiosk: Kiosk) -> None:
    kiosk.faults(*(Fault(kind=FaultKind.LOST_REPLY, method=m) for m in ("deactivate", "live_version", "runs")))
    assert contain(kiosk.open(), ["intake"], incident=INCIDENT).active_before == ("intake", "payment")


def test_findings_that_name_no_row_contain_everything(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    from checks.model import Finding

    kiosk.protect()
    drop = Finding(
        detector="volume", kind="volume-drift", table="kiosk.orders", rows=9, keys=(), message="9 rows too few",
        confirmed=True, contain=True, severity="sev2", at=datetime.now(UTC),
    )  # fmt: skip
    found = handle(kiosk.open(), [drop], since=kiosk.since)
    assert found.contained.workflows == ("intake", "payment")
    assert found.diagnosis is None
    assert found.undiagnosed


def test_the_pause_settles_only_when_no_run_starts_meanwhile(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[str] = []
    ready = threading.Event()

    def slow(*_: Any) -> Any:
        ready.wait(0.05)
        return {}

    kiosk.fake._runs.handlers = slow
    real = containment.raise_fence

    def fire_once_more(*args: Any) -> None:
        real(*args)
        if not late:  # as schedules do, just after they were switched off
            late.append(
                kiosk.fake._runs.begin(kiosk.ids["intake"], kiosk.fake.draft_version(kiosk.ids["intake"]), order("9"))
            )

    monkeypatch.setattr(containment, "raise_fence", fire_once_more)
    made = contain(kiosk.open(), ["intake"], incident=INCIDENT)
    assert late[0] in made.stopped_runs
