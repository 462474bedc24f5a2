"""Retries and faults over the in-memory platform."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from platforms.base import Permanent, Platform, Retryable, RunState
from platforms.fake import EntryClosed, FakePlatform, Suspend
from platforms.faulty import Fault, FaultKind, Faulty
from platforms.retrying import Retrying


def content(tag: str = "v1") -> dict[str, Any]:
    return {
        "name": "orders",
        "nodes": [{"name": "Write", "type": "code", "typeVersion": 1, "parameters": {"tag": tag}}],
        "connections": {},
        "settings": {},
    }


class Desk:
    """What the fake workflow wrote."""

    def __init__(self) -> None:
        self.written: list[tuple[str, Any]] = []
        self.fake = FakePlatform(self.write)
        self.workflow = self.fake.add(content(), active=True)

    def write(self, definition: Any, event: Any, run_id: str) -> dict[str, Any]:
        self.written.append((definition["nodes"][0]["parameters"]["tag"], event["body"]))
        return {"Write": [{"run": run_id}]}

    def faulty(self, kind: FaultKind, method: str | None = None, **fields: Any) -> Faulty:
        return Faulty(self.fake, [Fault(kind=kind, method=method, **fields)])


@pytest.fixture
def desk() -> Desk:
    return Desk()


def patient(platform: Platform, **fields: Any) -> Retrying:
    return Retrying(platform, first_wait_s=0.001, longest_wait_s=0.002, **fields)


@pytest.mark.parametrize(
    "kind", [FaultKind.TIMEOUT, FaultKind.SERVER_ERROR, FaultKind.LOST_REPLY, FaultKind.CUT_ANSWER]
)
def test_retryable_faults_are_outlived(desk: Desk, kind: FaultKind) -> None:
    faulty = desk.faulty(kind, times=3)
    assert [w.id for w in patient(faulty).workflows()] == [desk.workflow]
    assert faulty.hits == [3]


def test_retries_are_bounded_by_number_and_time(desk: Desk) -> None:
    faulty = desk.faulty(FaultKind.TIMEOUT, times=None)
    with pytest.raises(Retryable):
        patient(faulty, attempts=4).health()
    assert faulty.hits == [4]
    began = time.monotonic()
    with pytest.raises(Retryable):
        patient(faulty, attempts=10**6, within_s=0.1).health()
    assert time.monotonic() - began < 2


def test_permanent_faults_are_not_tried_again(desk: Desk) -> None:
    faulty = desk.faulty(FaultKind.EXPIRED_TOKEN, times=None)
    with pytest.raises(Permanent):
        patient(faulty).health()
    assert faulty.hits == [1]


def test_a_send_whose_answer_is_lost_is_never_sent_again_but_found(desk: Desk) -> None:
    faulty = desk.faulty(FaultKind.LOST_REPLY, "send")
    platform = patient(faulty)
    entry = platform.open_private_entry(platform.draft_version(desk.workflow))
    with pytest.raises(Retryable, match="lost"):
        platform.send(entry, {"body": 1}, idempotency_key="k")
    assert desk.written == [("v1", 1)]
    assert [r.state for r in platform.sent(entry)["k"]] == [RunState.SUCCESS]


def test_a_send_that_timed_out_before_it_arrived_is_not_found(desk: Desk) -> None:
    faulty = desk.faulty(FaultKind.TIMEOUT, "send")
    entry = faulty.open_private_entry(faulty.draft_version(desk.workflow))
    with pytest.raises(Retryable):
        faulty.send(entry, {"body": 1}, idempotency_key="k")
    assert (desk.written, faulty.sent(entry)) == ([], {})


def test_a_fault_hits_only_its_method_after_its_skips(desk: Desk) -> None:
    faulty = desk.faulty(FaultKind.SERVER_ERROR, "health", skip=1)
    faulty.workflows()
    faulty.health()
    with pytest.raises(Retryable):
        faulty.health()
    faulty.health()
    assert faulty.hits == [1]


def test_a_slow_platform_is_slow(desk: Desk) -> None:
    began = time.monotonic()
    desk.faulty(FaultKind.SLOW, "health", seconds=0.1).health()
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("seconds", [5.0, -5.0])
def test_a_skewed_clock_skews_every_time_and_since_too(desk: Desk, seconds: float) -> None:
    faulty = desk.faulty(FaultKind.CLOCK_SKEW, seconds=seconds)
    true = desk.fake.call(desk.workflow, {"body": 1})
    skew = timedelta(seconds=seconds)
    assert true.started_at is not None
    assert true.stopped_at is not None
    (seen,) = faulty.runs()
    assert (seen.started_at, seen.stopped_at) == (true.started_at + skew, true.stopped_at + skew)
    assert faulty.run_detail(true.id).run == seen
    assert abs(faulty.health().now - datetime.now(UTC) - skew) < timedelta(seconds=2)
    assert faulty.runs(since=true.stopped_at + skew) == [seen]
    assert faulty.runs(since=true.stopped_at + skew + timedelta(microseconds=1)) == []
    assert faulty.draft_version(desk.workflow).created_at != desk.fake.draft_version(desk.workflow).created_at


def test_a_lying_pause_says_inactive_while_runs_go_on(desk: Desk) -> None:
    faulty = desk.faulty(FaultKind.LYING_PAUSE)
    faulty.deactivate(desk.workflow)
    assert [w.active for w in faulty.workflows()] == [False]
    assert faulty.live_version(desk.workflow) is None
    assert not faulty.ingress_paused(desk.workflow)
    desk.fake.call(desk.workflow, {"body": 1})
    assert len(faulty.runs(desk.workflow)) == 1
    worse = desk.faulty(FaultKind.LYING_PAUSE_AND_ENTRY)
    assert not worse.ingress_paused(desk.workflow)
    worse.deactivate(desk.workflow)
    assert worse.ingress_paused(desk.workflow)
    desk.fake.call(desk.workflow, {"body": 2})
    worse.activate(desk.workflow)
    assert worse.live_version(desk.workflow) is not None


@pytest.mark.parametrize("paused_first", [True, False])
def test_a_draft_only_publish_reads_back_as_draft_but_runs_the_old(desk: Desk, paused_first: bool) -> None:
    faulty = desk.faulty(FaultKind.DRAFT_ONLY_PUBLISH)
    old = faulty.live_version(desk.workflow)
    assert old is not None
    if paused_first:
        faulty.deactivate(desk.workflow)
    new = faulty.save(desk.workflow, content("v2"))
    faulty.activate(desk.workflow, new.platform_version)
    live = faulty.live_version(desk.workflow)
    assert live is not None
    assert faulty.draft_version(desk.workflow).hash == new.hash
    assert live.hash == old.hash
    desk.fake.call(desk.workflow, {"body": 1})
    assert desk.written == [("v1", 1)]


def test_lies_can_be_about_one_workflow_only(desk: Desk) -> None:
    other = desk.fake.add(content(), active=True)
    faulty = desk.faulty(FaultKind.LYING_PAUSE, workflow_id=other)
    faulty.deactivate(desk.workflow)
    faulty.deactivate(other)
    with pytest.raises(EntryClosed):
        desk.fake.call(desk.workflow, {"body": 1})
    desk.fake.call(other, {"body": 1})


def test_a_stopped_run_that_completes_after_all_overwrites_its_status(desk: Desk) -> None:
    def asleep(definition: Any, event: Any, run_id: str) -> dict[str, Any]:
        raise Suspend(lambda: desk.write(definition, event, run_id))

    desk.fake.handlers = asleep
    faulty = desk.faulty(FaultKind.STOPPED_RUN_COMPLETES)
    run = desk.fake.call(desk.workflow, {"body": 1})
    assert faulty.runs(states=[RunState.WAITING]) == [run]
    faulty.stop(run.id)
    faulty.stop(run.id)
    (told,) = faulty.runs()
    assert (told.state, told.stopped_at is None) == (RunState.CANCELED, False)
    assert (faulty.runs(states=[RunState.WAITING]), faulty.runs(states=[RunState.CANCELED])) == ([], [told])
    assert faulty.run_detail(run.id).run == told
    desk.fake.resume(run.id)
    assert desk.written == [("v1", 1)]
    assert [r.state for r in faulty.runs()] == [RunState.SUCCESS]


def test_a_run_of_another_workflow_is_really_stopped(desk: Desk) -> None:
    def asleep(*_: Any) -> dict[str, Any]:
        raise Suspend(dict)

    desk.fake.handlers = asleep
    faulty = desk.faulty(FaultKind.STOPPED_RUN_COMPLETES, workflow_id="another")
    run = desk.fake.call(desk.workflow, {"body": 1})
    faulty.stop(run.id)
    assert desk.fake.run_detail(run.id).run.state is RunState.CANCELED


def test_the_fake_publishes_no_caller_of_what_is_not_active_as_n8n_does() -> None:
    fake = FakePlatform()
    called = fake.add(content())
    step = {"name": "Call", "type": "n8n-nodes-base.executeWorkflow", "parameters": {"workflowId": called}}
    caller = fake.add({**content(), "nodes": [step]})
    with pytest.raises(Permanent, match=f"calls {called}"):
        fake.activate(caller)
    assert fake.live_version(caller) is None
    fake.activate(called)
    fake.activate(caller)
    assert fake.live_version(caller) is not None


def test_the_fake_pauses_late_as_told() -> None:
    fake = FakePlatform(pause_delay_s=0.15)
    workflow = fake.add(content(), active=True)
    fake.deactivate(workflow)
    assert fake.live_version(workflow) is None
    assert not fake.ingress_paused(workflow)
    fake.call(workflow, {"body": 1})
    time.sleep(0.2)
    with pytest.raises(EntryClosed):
        fake.call(workflow, {"body": 2})


def test_a_waiting_run_resumes_once_and_not_after_a_stop() -> None:
    woken: list[str] = []

    def handler(_definition: Any, _event: Any, run_id: str) -> dict[str, Any]:
        raise Suspend(lambda: woken.append(run_id) or {"Write": [{}]})

    fake = FakePlatform({"orders": handler})
    workflow = fake.add(content(), active=True)
    first, second = fake.call(workflow, {"body": 1}), fake.call(workflow, {"body": 2})
    assert {first.state, second.state} == {RunState.WAITING}
    fake.stop(second.id)
    assert [fake.resume(run.id).state for run in (first, second, first)] == [
        RunState.SUCCESS,
        RunState.CANCELED,
        RunState.SUCCESS,
    ]
    assert woken == [first.id]
