"""What every adapter must tell of runs; without executions, that it tells nothing and says so."""

from datetime import UTC, datetime, timedelta

import pytest

from platforms.base import Permanent, Run, RunState
from tests.contract.bench import ECHO, LONG_S, QUERY, SHOP, Scene, eventually

pytestmark = pytest.mark.contract


def ended_run(scene: Scene, run_id: str) -> Run | None:
    """The run as the list tells it, once it has ended."""
    return next((r for r in scene.platform.runs() if r.id == run_id and not r.state.in_flight), None)


def tells_nothing(scene: Scene, workflow_id: str) -> None:
    """A platform without executions: the event had its effect, and no run is told."""
    mark = scene.answered(workflow_id)
    eventually(lambda: scene.bench.effects(mark))
    assert scene.platform.runs(workflow_id) == scene.platform.runs() == []
    assert scene.platform.latest_run(workflow_id) is None
    for ask in (scene.platform.run_detail, scene.platform.stop, scene.platform.retrigger):
        with pytest.raises(Permanent, match="run 1"):
            ask("1")


def test_a_run_is_told_with_its_times_and_its_end(scene: Scene) -> None:
    # Several questions are asked while it runs: time enough for them on a busy machine.
    made = scene.workflow(wait_s=4 * scene.short_s)
    if not scene.can.executions:
        return tells_nothing(scene, made.id)
    run = scene.run(made.id, {"n": 1}, ended=False)
    assert scene.platform.latest_run(made.id) == run.id
    late = datetime.now(UTC) + timedelta(minutes=5)
    if scene.can.shows_in_flight:
        assert (run.state, run.stopped_at) == (RunState.RUNNING, None)
        assert run in scene.platform.runs(made.id, states=[RunState.RUNNING])
        assert run.id in {r.id for r in scene.platform.runs(made.id, since=late)}
    ended = eventually(lambda: ended_run(scene, run.id))
    assert (ended.state, ended.workflow_id) == (RunState.SUCCESS, made.id)
    assert ended.started_at is not None
    assert ended.stopped_at is not None
    assert ended.stopped_at >= ended.started_at
    assert scene.platform.runs(made.id, states=[RunState.RUNNING]) == []
    assert run.id not in {r.id for r in scene.platform.runs(made.id, since=late)}
    assert run.id in {r.id for r in scene.platform.runs(made.id, since=ended.stopped_at)}
    return None


def test_runs_are_told_oldest_first_and_by_workflow(scene: Scene) -> None:
    made, other = scene.workflow(), scene.workflow()
    if not scene.can.executions:
        return tells_nothing(scene, made.id)
    assert scene.platform.latest_run("no-such-workflow") is None
    ids = [scene.run(made.id).id for _ in range(3)]
    assert [r.id for r in scene.platform.runs(made.id)][-3:] == ids
    assert scene.platform.latest_run(made.id) == ids[-1]
    assert not {r.id for r in scene.platform.runs(other.id)} & set(ids)
    assert set(ids) <= {r.id for r in scene.elsewhere().runs(made.id)}
    return None


def test_a_run_tells_its_event_outputs_and_error(scene: Scene) -> None:
    made = scene.workflow("v1")
    if not scene.can.executions:
        return tells_nothing(scene, made.id)
    body = {"text": "žluťoučký {{ 1 + 1 }}", "list": [1, None, {"deep": True}], "amount": 12.5}
    detail = scene.platform.run_detail(scene.run(made.id, body).id)
    assert detail.event is not None
    seen = {**body, "mark": detail.event["body"]["mark"]}
    assert (detail.event["body"], detail.event["query"]) == (seen, dict(QUERY))
    assert list(detail.outputs[ECHO]) == [{"tag": "v1", "body": seen, "query": dict(QUERY), "shop": SHOP}]
    assert detail.error is None
    failed = scene.platform.run_detail(scene.run(made.id, {"fail": "v1"}).id)
    assert (failed.run.state, failed.event["body"]["fail"]) == (RunState.ERROR, "v1")  # type: ignore[index]
    assert "refused on purpose" in str(failed.error)
    return None


def test_the_version_of_a_run_is_what_ran(scene: Scene) -> None:
    made = scene.workflow("v1")
    if not scene.can.executions:
        return tells_nothing(scene, made.id)
    first = scene.platform.live_version(made.id)
    assert first is not None
    known = (first.hash, first.platform_version) if scene.can.keeps_versions else (None, None)
    run = scene.run(made.id)
    # A platform may find the content of a run without keeping versions that can be named.
    found = run.version_hash == first.hash and not scene.can.keeps_versions
    assert found or (run.version_hash, run.platform_version) == known
    scene.platform.save(made.id, scene.bench.edited(first.definition, "v2"))
    if scene.can.draft_apart_from_live:
        drafted = scene.run(made.id)
        assert (drafted.version_hash, drafted.platform_version) == known
    return None


@pytest.mark.parametrize("asleep", [False, True], ids=["running", "waiting"])
def test_a_run_in_flight_is_shown_and_stopped_or_neither(scene: Scene, asleep: bool) -> None:
    made = scene.workflow("v1", wait_s=LONG_S if asleep else 4 * scene.short_s)
    if not (scene.can.executions and scene.can.shows_in_flight):
        before = scene.platform.runs(made.id)
        scene.answered(made.id)
        assert scene.platform.runs(made.id) == before
        with pytest.raises(Permanent):
            scene.platform.stop("999999999")
        return
    run = scene.run(made.id, {"n": 3}, ended=False)
    wanted = RunState.WAITING if asleep else RunState.RUNNING
    eventually(lambda: scene.platform.run_detail(run.id).run.state is wanted)
    detail = scene.platform.run_detail(run.id)
    assert detail.event is not None
    assert (detail.event["body"]["n"], detail.run.stopped_at) == (3, None)
    assert [r.id for r in scene.platform.runs(made.id, states=[wanted])][-1] == run.id
    if not scene.can.stops_runs:
        with pytest.raises(Permanent, match=f"run {run.id}"):
            scene.platform.stop(run.id)
        return
    scene.platform.stop(run.id)
    assert eventually(lambda: ended_run(scene, run.id)).state is RunState.CANCELED
    scene.platform.stop(run.id)
    mark = detail.event["body"]["mark"]
    if not asleep:
        with pytest.raises(AssertionError, match="in time"):
            eventually(lambda: scene.bench.effects(mark), within_s=4 * scene.short_s)
    stopped = scene.platform.run_detail(run.id)
    assert (stopped.run.state, stopped.event) == (RunState.CANCELED, detail.event)
    assert ECHO not in stopped.outputs


@pytest.mark.parametrize("asleep", [False, True], ids=["running", "waiting"])
def test_a_run_in_flight_across_a_publish_keeps_its_version(scene: Scene, asleep: bool) -> None:
    made = scene.workflow("v1", wait_s=LONG_S if asleep else 4 * scene.short_s)
    old = scene.platform.live_version(made.id)
    assert old is not None
    if not (scene.can.shows_in_flight and scene.can.keeps_versions):
        assert {run.version_hash for run in scene.platform.runs(made.id)} <= {None, old.hash}
        return
    run = scene.run(made.id, ended=False)
    new = scene.platform.save(made.id, scene.bench.edited(old.definition, "v2"))
    scene.platform.activate(made.id, new.platform_version)

    def later() -> Run | None:
        return next((r for r in [scene.run(made.id, ended=False)] if r.version_hash != old.hash), None)

    assert eventually(later).version_hash == new.hash
    assert scene.platform.run_detail(run.id).run.version_hash == old.hash
    if not asleep:
        eventually(lambda: ended_run(scene, run.id))
        assert scene.platform.run_detail(run.id).outputs[ECHO][0]["tag"] == "v1"


def test_an_event_is_run_again_once_through_what_is_saved_now(scene: Scene) -> None:
    made = scene.workflow("v1")
    if not scene.can.executions:
        return tells_nothing(scene, made.id)
    failed = scene.run(made.id, {"fail": "v1"})
    scene.paused(made.id)
    scene.platform.save(made.id, scene.bench.edited(scene.content(made.id), "v2"))
    if not scene.can.retriggers:
        with pytest.raises(Permanent, match=f"run {failed.id}"):
            scene.platform.retrigger(failed.id)
        return None
    again = scene.platform.retrigger(failed.id)
    assert (again.workflow_id, again.retry_of) == (made.id, failed.id)
    ended = eventually(lambda: ended_run(scene, again.id))
    assert (ended.state, ended.retry_of) == (RunState.SUCCESS, failed.id)
    detail = scene.platform.run_detail(again.id)
    assert detail.outputs[ECHO][0]["tag"] == "v2"
    assert detail.outputs[ECHO][0]["body"]["fail"] == "v1"
    read_back = [r.id for r in scene.elsewhere().runs(made.id) if r.retry_of == failed.id]
    assert read_back == [again.id]
    assert scene.platform.ingress_paused(made.id)
    return None


def test_a_run_that_succeeded_is_not_run_again(scene: Scene) -> None:
    made = scene.workflow("v1")
    if not scene.can.executions:
        return tells_nothing(scene, made.id)
    run = scene.run(made.id)
    with pytest.raises(Permanent):
        scene.platform.retrigger(run.id)
    assert scene.platform.latest_run(made.id) == run.id
    return None
