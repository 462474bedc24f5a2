"""What a pause must not be proven by, what is paused with it, and what its record says where a platform tells less."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from ingress.errors import IngressError
from ingress.queue import Queue
from platforms.base import RunState
from platforms.fake import EVERYTHING, FLOW_ENGINE, FORGETFUL, EntryClosed, Suspend
from recovery import history, quieting
from recovery.containment import Contained, contain
from recovery.errors import PauseNotProven
from tests.recovery.kiosk import Kiosk, definition, order

pytestmark = pytest.mark.postgres
INCIDENT = "INC-1"


def asleep(*_: Any) -> Any:
    """Stands for a run in a Wait node."""
    raise Suspend(dict)


def sleeper(kiosk: Kiosk, workflow: str = "intake") -> str:
    """A run that sleeps; its id."""
    before, kiosk.fake._runs.handlers = kiosk.fake._runs.handlers, asleep
    run = kiosk.call(workflow, order("1"))
    kiosk.fake._runs.handlers = before
    assert run.state is RunState.WAITING
    return run.id


def paused(kiosk: Kiosk, *keys: str) -> Contained:
    return contain(kiosk.open(), keys or ["intake"], incident=INCIDENT)


def fenced(kiosk: Kiosk) -> bool:
    return not kiosk.may_write("intake") and not kiosk.may_write("payment")


def told(kiosk: Kiosk) -> dict[str, Any]:
    return dict(kiosk.open().ledger.entries(incident=INCIDENT, kinds=["contain.proven"])[-1].body)


def overwrite(kiosk: Kiosk, run: str) -> None:
    """A known bug: a run that was stopped completes, and its status with it."""
    kiosk.fake._runs._change(run, state=RunState.SUCCESS)


def before_the_last_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    real = quieting.last_look

    def look(*given: Any) -> Any:
        act()
        return real(*given)

    monkeypatch.setattr(quieting, "last_look", look)


def test_a_stopped_run_that_completes_all_the_same_is_no_proof(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sleeper(kiosk)
    before_the_last_look(monkeypatch, lambda: overwrite(kiosk, run))
    with pytest.raises(PauseNotProven, match=f"run {run} was stopped, and went on to its end"):
        paused(kiosk)
    assert fenced(kiosk)


def test_a_stopped_run_that_completes_after_the_proof_is_found_by_the_next_one_and_said_once(kiosk: Kiosk) -> None:
    run = sleeper(kiosk)
    assert paused(kiosk).stopped_runs == (run,)
    overwrite(kiosk, run)
    with pytest.raises(PauseNotProven, match=f"run {run} was stopped, and went on"):
        paused(kiosk)
    assert paused(kiosk).stopped_runs == ()


def test_a_run_that_ended_by_itself_before_the_stop_arrived_is_no_lie(
    kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sleeper(kiosk)
    monkeypatch.setattr(kiosk.fake, "stop", lambda _: kiosk.fake.resume(run))
    paused(kiosk)
    assert kiosk.fake.run_detail(run).run.state is RunState.SUCCESS


@pytest.mark.parametrize("can_stop", [True, False], ids=["the-stop-does-nothing", "no-stop"])
def test_a_run_asleep_that_cannot_be_stopped_is_never_called_quiet(
    kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch, can_stop: bool
) -> None:
    kiosk.configure(containment={"drain_s": 0.1, "settle_s": 0.05, "timeout_s": 0.4})
    run = sleeper(kiosk)
    kiosk.fake._can = replace(EVERYTHING, stops_runs=can_stop)
    monkeypatch.setattr(kiosk.fake, "stop", lambda _: None)
    with pytest.raises(PauseNotProven, match=f"run {run} of intake is waiting"):
        paused(kiosk)
    assert fenced(kiosk)
    kiosk.fake.resume(run)
    assert paused(kiosk).workflows == ("intake", "payment")


def test_the_policy_stop_gives_no_time_to_end(kiosk: Kiosk) -> None:
    kiosk.configure(containment={"in_flight": "stop", "drain_s": 60, "settle_s": 0.05, "timeout_s": 90})
    run = sleeper(kiosk)
    assert paused(kiosk).stopped_runs == (run,)


def test_where_runs_are_not_shown_the_open_transaction_tells(kiosk: Kiosk) -> None:
    kiosk.configure(containment={"drain_s": 0.1, "settle_s": 0.05, "timeout_s": 0.4})
    kiosk.fake._can = FORGETFUL
    begun, over = threading.Event(), threading.Event()

    def slow(_content: Any, event: Any, run: str) -> Any:
        with kiosk.transaction("wf_intake", run) as db:
            db.execute("UPDATE kiosk.stock SET level = level - 1 WHERE sku = 'tea'")
            begun.set()
            over.wait(10)
        return {"Work": [{"id": event["body"]["event"]}]}

    kiosk.fake._runs.handlers = slow
    kiosk.fake.start(kiosk.ids["intake"], order("1"))
    assert begun.wait(5)
    try:
        with pytest.raises(PauseNotProven, match="open transactions of wf_intake"):
            paused(kiosk)
    finally:
        over.set()
    kiosk.fake.close()
    made = paused(kiosk)
    assert any("does not show unfinished runs" in line for line in made.proof)
    assert any("cannot stop runs" in line for line in made.proof)
    assert told(kiosk)["proof"] == list(made.proof)
    assert any("in flight are not shown" in line for line in told(kiosk)["limits"])


def test_what_the_pause_itself_dropped_is_named(kiosk: Kiosk) -> None:
    kiosk.fake._can = replace(EVERYTHING, drops_in_flight=True)
    run = sleeper(kiosk)
    made = paused(kiosk)
    assert (made.stopped_runs, made.dropped_runs) == ((), (run,))
    assert told(kiosk)["dropped_runs"] == [run]
    assert paused(kiosk).dropped_runs == (run,), "also when it is proven again, by another process"


def test_a_platform_without_runs_is_paused_by_what_it_does_tell(kiosk: Kiosk) -> None:
    kiosk.fake._can = FLOW_ENGINE
    assert paused(kiosk).active_before == ("intake", "payment")
    with pytest.raises(EntryClosed):
        kiosk.call("intake", order("1"))


def test_a_platform_that_can_do_all_has_no_limits_on_record(kiosk: Kiosk) -> None:
    made = paused(kiosk)
    assert any("no run is in flight" in line for line in made.proof)
    assert told(kiosk)["because"] == {"payment": "downstream of intake"}
    assert not [line for line in told(kiosk)["limits"] if "in flight" in line]


# What is paused with it


def calling(name: str) -> dict[str, Any]:
    """Intake's definition with a call of another workflow, by id or name."""
    made = definition("Intake", "good")
    call = {"name": "Call", "type": "n8n-nodes-base.executeWorkflow", "typeVersion": 1, "parameters": {}}
    call["parameters"] = {"workflowId": {"__rl": True, "mode": "list", "value": name}}
    made["nodes"].append(call)
    return made


@pytest.mark.parametrize("live", [True, False], ids=["live", "saved-only"])
def test_who_calls_a_paused_workflow_is_paused_too(kiosk: Kiosk, live: bool) -> None:
    kiosk.fake.save(kiosk.ids["intake"], calling(kiosk.ids["payment"]))
    if live:
        kiosk.fake.activate(kiosk.ids["intake"])
        kiosk.fake.save(kiosk.ids["intake"], definition("Intake", "a draft that no longer calls it"))
    made = paused(kiosk, "payment")
    assert made.workflows == made.active_before == ("intake", "payment")
    assert set(made.live_before) == {"intake", "payment"}
    assert told(kiosk)["because"] == {"intake": "calls payment"}
    assert kiosk.live("intake") is None
    assert fenced(kiosk)


def test_who_is_called_by_a_paused_workflow_goes_on(kiosk: Kiosk) -> None:
    kiosk.configure(
        workflows=[w.model_copy(update={"downstream": ()}).model_dump() for w in kiosk.app.workflows],
    )
    kiosk.fake.save(kiosk.ids["intake"], calling(kiosk.ids["payment"]))
    assert paused(kiosk, "intake").workflows == ("intake",)


def test_a_workflow_that_was_deleted_is_paused_for_good_and_was_active_before(kiosk: Kiosk) -> None:
    live = kiosk.fake.live_version(kiosk.ids["payment"])
    assert live is not None
    history.observe(kiosk.open())
    kiosk.fake.delete(kiosk.ids["payment"])
    made = paused(kiosk)
    assert made.active_before == ("intake", "payment")
    assert made.live_before["payment"] == live.hash
    assert any("payment is not in the platform any more" in line for line in made.proof)


# The ingress


@contextmanager
def queue(kiosk: Kiosk) -> Iterator[Queue]:
    made = Queue(kiosk.home / "events.sqlite", app="kiosk")
    try:
        yield made
    finally:
        made.close()


def test_the_ingress_holds_from_before_the_pause_on(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[str], None] = kiosk.fake.deactivate
    holds: list[list[str]] = []
    with queue(kiosk) as events:

        def deactivate(workflow: str) -> None:
            holds.append(sorted(events.holds()))
            real(workflow)

        monkeypatch.setattr(kiosk.fake, "deactivate", deactivate)
        contain(replace(kiosk.open(), events=events), ["intake"], incident=INCIDENT)
        assert holds[0] == ["intake", "payment"]
        (entry,) = kiosk.open().ledger.entries(incident=INCIDENT, kinds=["events.held"])
        assert entry.body["workflows"] == ["intake", "payment"]


def test_a_pause_does_not_wait_for_a_queue_that_is_gone(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> bool:
        raise IngressError("queue: it cannot be reached; start its database")

    with queue(kiosk) as events:
        monkeypatch.setattr(events, "hold", gone)
        contain(replace(kiosk.open(), events=events), ["intake"], incident=INCIDENT)
    assert fenced(kiosk)
    (entry,) = kiosk.open().ledger.entries(incident=INCIDENT, kinds=["events.held"])
    assert "cannot be reached" in entry.body["error"]
