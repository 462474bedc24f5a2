"""Events of the ingress as runs of a platform that lists none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingress.errors import QueueUnreachable
from ingress.model import Event, State
from ingress.queue import Queue
from platforms.base import Permanent, RunState, WorkflowInfo
from platforms.fake import FLOW_ENGINE, FakePlatform
from platforms.stand_in import StandIn

IN_FLIGHT = [s for s in RunState if s.in_flight]
LATER = timedelta(seconds=1)


class Desk:
    """A platform without executions, a queue, and the one over the other."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakePlatform(capabilities=FLOW_ENGINE)
        self.ids = {name: self.fake.add(definition(name), active=True) for name in ("Intake", "Payment", "Other")}
        self.untold: set[str] = set()
        self.queue = Queue(folder / "events.sqlite", app="shop")
        self.platform = StandIn(self.fake, self.queue, self.locate)

    def locate(self, listed: Sequence[WorkflowInfo]) -> dict[str, WorkflowInfo | None]:
        """By the ids, as who follows renames."""
        by_id = {info.id: info for info in listed}
        return {name.lower(): by_id.get(self.ids[name]) for name in ("Intake", "Payment") if name not in self.untold}

    def event(self, workflow: str = "intake", status: int | None = None) -> Event:
        got = self.queue.record(
            workflow=workflow,
            key=None,
            method="POST",
            path=f"/{workflow}",
            query="page=1",
            headers=[("content-type", "application/json"), ("x-shop", "north")],
            body=b'{"total": 3}',
        )
        return got if status is None else self.queue.answered(got.id, status)


def definition(name: str) -> dict[str, Any]:
    return {"name": name, "nodes": [], "connections": {}, "settings": {}}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.queue.close()


def test_what_was_passed_on_is_a_run(desk: Desk) -> None:
    good, bad, flying = desk.event(status=200), desk.event(status=500), desk.event()
    other = desk.event("payment", status=204)
    found = desk.platform.runs(desk.ids["Intake"])
    assert [(r.id, r.state) for r in found] == [
        (good.id, RunState.SUCCESS),
        (bad.id, RunState.ERROR),
        (flying.id, RunState.RUNNING),
    ]
    assert all(r.workflow_id == desk.ids["Intake"] for r in found)
    assert (found[0].started_at, found[0].stopped_at) == (good.forwarded_at, good.answered_at)
    assert [r.id for r in desk.platform.runs(states=IN_FLIGHT)] == [flying.id]
    assert [r.id for r in desk.platform.runs()] == [good.id, bad.id, flying.id, other.id]
    assert desk.platform.latest_run(desk.ids["Intake"]) == flying.id
    assert desk.platform.latest_run(desk.ids["Other"]) is None
    assert desk.platform.runs(desk.ids["Other"]) == []


def test_runs_since_are_those_that_ended_since_or_have_not(desk: Desk) -> None:
    early, flying = desk.event(status=200), desk.event()
    since = datetime.now(UTC)
    assert [r.id for r in desk.platform.runs(since=since)] == [flying.id]
    assert [r.id for r in desk.platform.runs(since=since - LATER)] == [early.id, flying.id]


def test_a_run_has_the_events_input_and_why_it_failed(desk: Desk) -> None:
    detail = desk.platform.run_detail(desk.event(status=500).id)
    assert detail.event is not None
    assert (detail.event["body"], detail.event["query"]) == ({"total": 3}, {"page": "1"})
    assert detail.event["headers"]["x-shop"] == "north"
    assert (detail.error, detail.status) == ("answered 500", 500)
    with pytest.raises(Permanent, match="run nobody: the platform does not know it"):
        desk.platform.run_detail("nobody")


def test_a_run_of_a_private_copy_is_asked_of_the_platform(desk: Desk) -> None:
    entry = desk.platform.open_private_entry(desk.platform.draft_version(desk.ids["Intake"]))
    run = desk.platform.send(entry, {"body": {}, "headers": {}}, idempotency_key="k")
    detail = desk.platform.run_detail(run.id)
    assert (detail.run.workflow_id, detail.run.state) == (entry.workflow_id, RunState.SUCCESS)
    assert detail.event is not None
    assert detail.event["headers"]["x-reinstate-event"] == "k"
    with pytest.raises(Permanent, match="the platform cannot stop runs"):
        desk.platform.stop(run.id)


def test_a_queue_that_cannot_be_read_is_not_taken_for_one_without_the_event(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: str) -> Event:
        raise QueueUnreachable("the queue is away")

    monkeypatch.setattr(desk.queue, "event", away)
    with pytest.raises(QueueUnreachable):
        desk.platform.run_detail("any")


def test_what_was_held_discarded_or_never_arrived_is_no_run(desk: Desk) -> None:
    away = desk.event("payment")
    desk.queue.not_taken(away.id, None, "unreachable")
    desk.queue.hold("intake", "replay")
    desk.event()
    desk.queue.hold("payment", "discard")
    desk.event("payment")
    assert desk.platform.runs() == []


def test_a_pause_that_drops_ends_what_was_in_flight_and_its_event_is_kept(desk: Desk) -> None:
    flying, other = desk.event(), desk.event("payment")
    desk.queue.hold("intake", "replay")
    assert [r.id for r in desk.platform.runs(states=IN_FLIGHT)] == [flying.id, other.id], "still active"
    desk.platform.deactivate(desk.ids["Intake"])
    assert [r.id for r in desk.platform.runs(states=IN_FLIGHT)] == [other.id]
    (run,) = desk.platform.runs(desk.ids["Intake"])
    assert run.state is RunState.CANCELED
    assert run.stopped_at is not None
    (copy,) = desk.queue.held()
    assert copy.retry_of == flying.id
    desk.queue.begin(copy.id)
    desk.queue.finish(copy.id, State.SENT, status=200)
    again = desk.platform.runs(desk.ids["Intake"])[-1]
    assert (again.id, again.retry_of, again.state) == (copy.id, flying.id, RunState.SUCCESS)


def test_a_renamed_workflow_drops_nothing_and_keeps_its_runs(desk: Desk) -> None:
    done, flying = desk.event(status=200), desk.event()
    desk.fake.save(desk.ids["Intake"], definition("Intake v2"))
    assert [r.id for r in desk.platform.runs(states=IN_FLIGHT)] == [flying.id]
    assert [r.id for r in desk.platform.runs(desk.ids["Intake"])] == [done.id, flying.id]
    assert desk.platform.latest_run(desk.ids["Intake"]) == flying.id
    desk.platform.deactivate(desk.ids["Intake"])
    assert desk.platform.runs(states=IN_FLIGHT) == []


def test_what_a_deleted_workflow_had_in_flight_is_dropped(desk: Desk) -> None:
    flying, other = desk.event(), desk.event("payment")
    desk.fake.delete(desk.ids["Intake"])
    assert [r.id for r in desk.platform.runs(states=IN_FLIGHT)] == [other.id]
    assert desk.queue.event(flying.id).state is State.DROPPED


def test_a_workflow_that_cannot_be_told_drops_nothing(desk: Desk) -> None:
    flying, other = desk.event(), desk.event("payment")
    desk.untold.add("Intake")
    desk.platform.deactivate(desk.ids["Intake"])
    assert [r.id for r in desk.platform.runs(states=IN_FLIGHT)] == [other.id], "it is no workflow's run"
    assert desk.queue.event(flying.id).state is State.PASSING


def test_what_cannot_be_stopped_says_so_until_its_workflow_is_paused(desk: Desk) -> None:
    flying = desk.event()
    with pytest.raises(Permanent, match="pause its workflow"):
        desk.platform.stop(flying.id)
    desk.platform.deactivate(desk.ids["Intake"])
    desk.platform.stop(flying.id)
    assert desk.queue.event(flying.id).state is State.DROPPED


def test_after_a_crash_of_the_ingress_nothing_looks_in_flight(desk: Desk, tmp_path: Path) -> None:
    cut = desk.event()
    next_one = Queue(tmp_path / "events.sqlite", app="shop", owner="next")
    assert next_one.take_over() == [cut.id]
    assert desk.platform.run_detail(cut.id).run.state is RunState.CRASHED
    assert desk.platform.runs(states=IN_FLIGHT) == []
    next_one.close()


def test_it_stands_aside_where_the_platform_lists_its_runs(desk: Desk) -> None:
    fake = FakePlatform()
    own = fake.add(definition("Intake"), active=True)
    platform = StandIn(fake, desk.queue, lambda listed: {"intake": listed[0]})
    desk.event(status=200)
    run = fake.call(own, {"body": {}, "headers": {}})
    assert [r.id for r in platform.runs(own)] == [run.id]
    assert platform.latest_run(own) == run.id
    assert platform.run_detail(run.id).run.id == run.id
