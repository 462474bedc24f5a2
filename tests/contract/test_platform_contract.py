"""What every adapter must do, the in-memory platform included. Live n8n is the judge of both."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from platforms.base import Permanent, Run, RunState
from platforms.canonical import content_hash

pytestmark = pytest.mark.contract

SHORT_S = 1.5
LONG_S = 3600


def content(scene: Any, workflow_id: str) -> dict[str, Any]:
    return dict(scene.platform.draft_version(workflow_id).definition)


def edited(definition: dict[str, Any], tag: str) -> dict[str, Any]:
    """The same workflow with another Code."""
    nodes = [dict(node) for node in definition["nodes"]]
    for node in nodes:
        if node["name"] == "Echo":
            node["parameters"] = {"jsCode": node["parameters"]["jsCode"].replace("v1", tag)}
    return {**definition, "nodes": nodes}


def soon(look: Callable[[], Any], within_s: float = 10) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def ended_run(scene: Any, run_id: str) -> Run | None:
    """The run as the list tells it, once it has ended."""
    return next((r for r in scene.platform.runs() if r.id == run_id and not r.state.in_flight), None)


def test_lists_workflows_with_their_state(scene: Any) -> None:
    workflow_id, name = scene.workflow(active=False)
    assert [(w.name, w.active) for w in scene.platform.workflows() if w.id == workflow_id] == [(name, False)]
    scene.platform.activate(workflow_id)
    assert [w.active for w in scene.platform.workflows() if w.id == workflow_id] == [True]


def test_saving_changes_the_draft_and_not_what_is_live(scene: Any) -> None:
    workflow_id, _ = scene.workflow("v1")
    first = scene.platform.live_version(workflow_id)
    second = scene.platform.save(workflow_id, edited(content(scene, workflow_id), "v2"))
    assert scene.platform.draft_version(workflow_id).hash == second.hash != first.hash
    assert scene.platform.live_version(workflow_id).hash == first.hash
    run = scene.run(workflow_id, {"n": 1})
    assert (scene.tag(run), run.version_hash) == ("v1", first.hash)
    assert [v.hash for v in scene.platform.versions(workflow_id)] == [second.hash, first.hash]


def test_hash_is_of_the_content_however_it_is_read(scene: Any) -> None:
    workflow_id, _ = scene.workflow("v1")
    draft, live = scene.platform.draft_version(workflow_id), scene.platform.live_version(workflow_id)
    assert {draft.hash, live.hash, content_hash(draft.definition)} == {scene.platform.versions(workflow_id)[0].hash}
    assert scene.run(workflow_id, {}).version_hash == draft.hash
    assert draft.platform_version == live.platform_version


def test_saving_equal_content_changes_nothing(scene: Any) -> None:
    workflow_id, _ = scene.workflow(active=False)
    before = scene.platform.draft_version(workflow_id)
    moved = content(scene, workflow_id)
    moved["nodes"] = [{**node, "position": [7, 7]} for node in reversed(moved["nodes"])]
    assert scene.platform.save(workflow_id, moved) == before
    assert len(scene.platform.versions(workflow_id)) == 1


def test_a_setting_is_seen_but_makes_no_other_version(scene: Any) -> None:
    workflow_id, _ = scene.workflow(active=False)
    before = scene.platform.draft_version(workflow_id)
    changed = {**content(scene, workflow_id), "settings": {"executionOrder": "v1", "executionTimeout": 77}}
    after = scene.platform.save(workflow_id, changed)
    assert (after.hash, after.settings_hash == before.settings_hash) == (before.hash, False)
    restored = scene.platform.save(workflow_id, dict(before.definition))
    assert (restored.hash, restored.settings_hash) == (before.hash, before.settings_hash)


def test_an_old_version_published_again_is_live_and_runs(scene: Any) -> None:
    workflow_id, _ = scene.workflow("v1")
    good = scene.platform.live_version(workflow_id)
    bad = scene.platform.save(workflow_id, edited(content(scene, workflow_id), "v2"))
    scene.platform.activate(workflow_id, bad.platform_version)
    assert scene.platform.live_version(workflow_id).hash == bad.hash
    soon(lambda: scene.tag(scene.run(workflow_id, {})) == "v2")
    scene.platform.activate(workflow_id, good.platform_version)
    assert scene.platform.live_version(workflow_id).hash == good.hash
    run = soon(lambda: next((r for r in [scene.run(workflow_id, {})] if scene.tag(r) == "v1"), None))
    assert (run.version_hash, run.platform_version) == (good.hash, good.platform_version)


def test_publishing_an_unknown_version_is_permanent(scene: Any) -> None:
    workflow_id, _ = scene.workflow(active=False)
    with pytest.raises(Permanent, match="ersion"):
        scene.platform.activate(workflow_id, "00000000-0000-4000-8000-000000000000")


def test_activating_and_deactivating_twice_is_like_once(scene: Any) -> None:
    workflow_id, _ = scene.workflow()
    scene.platform.activate(workflow_id)
    scene.run(workflow_id, {})
    scene.paused(workflow_id)
    scene.paused(workflow_id)
    assert scene.platform.live_version(workflow_id) is None


def test_a_pause_is_proven_by_the_entry_and_nothing_runs_after(scene: Any) -> None:
    workflow_id, _ = scene.workflow()
    assert not scene.platform.ingress_paused(workflow_id)
    scene.platform.deactivate(workflow_id)
    soon(lambda: scene.platform.ingress_paused(workflow_id))
    before = scene.platform.runs(workflow_id)
    assert not scene.bench.call(workflow_id, {"late": True})
    assert scene.platform.runs(workflow_id) == before
    assert scene.platform.ingress_paused(workflow_id)


def test_asking_the_entry_starts_no_run(scene: Any) -> None:
    workflow_id, _ = scene.workflow()
    before = scene.platform.runs(workflow_id)
    for _ in range(5):
        assert not scene.platform.ingress_paused(workflow_id)
    assert scene.platform.runs(workflow_id) == before


def test_runs_in_flight_are_listed_and_outlive_the_pause(scene: Any) -> None:
    workflow_id, _ = scene.workflow(wait_s=SHORT_S)
    run = scene.run(workflow_id, {"n": 1}, ended=False)
    assert (run.state, run.stopped_at) == (RunState.RUNNING, None)
    scene.paused(workflow_id)
    late = scene.platform.health().now + timedelta(hours=1)
    assert run.id in {r.id for r in scene.platform.runs(workflow_id, since=late)}
    assert run.id in {r.id for r in scene.platform.runs(workflow_id, states=[RunState.RUNNING, RunState.WAITING])}
    ended = soon(lambda: ended_run(scene, run.id))
    assert ended.state is RunState.SUCCESS
    assert ended.stopped_at > ended.started_at
    assert scene.platform.runs(workflow_id, states=[RunState.RUNNING]) == []
    assert scene.platform.runs(workflow_id, since=late) == []


def test_waiting_runs_are_in_flight_and_can_be_stopped(scene: Any) -> None:
    workflow_id, _ = scene.workflow(wait_s=LONG_S)
    run = scene.run(workflow_id, {"n": 2}, ended=False)
    soon(lambda: scene.platform.run_detail(run.id).run.state is RunState.WAITING)
    assert scene.platform.run_detail(run.id).event["body"] == {"n": 2}
    waiting = {r.id: r for r in scene.platform.runs(workflow_id, states=[RunState.WAITING])}
    assert waiting[run.id].stopped_at is None
    scene.platform.stop(run.id)
    stopped = scene.platform.run_detail(run.id)
    assert (stopped.run.state, stopped.event["body"]) == (RunState.CANCELED, {"n": 2})


def test_a_stopped_run_keeps_its_event_and_stopping_again_is_left_alone(scene: Any) -> None:
    workflow_id, _ = scene.workflow(wait_s=SHORT_S)
    run = scene.run(workflow_id, {"n": 3}, ended=False)
    assert scene.platform.run_detail(run.id).event["body"] == {"n": 3}
    scene.platform.stop(run.id)
    assert soon(lambda: ended_run(scene, run.id)).state is RunState.CANCELED
    scene.platform.stop(run.id)
    time.sleep(SHORT_S)
    detail = scene.platform.run_detail(run.id)
    assert (detail.run.state, detail.event["body"]) == (RunState.CANCELED, {"n": 3})
    assert "Echo" not in detail.outputs


def test_the_latest_run_tells_that_another_one_started(scene: Any) -> None:
    workflow_id, _ = scene.workflow(wait_s=SHORT_S)
    assert scene.platform.latest_run("no-such-workflow") is None
    first = scene.run(workflow_id, {"n": 1})
    assert scene.platform.latest_run(workflow_id) == first.id
    second = scene.run(workflow_id, {"n": 2}, ended=False)
    assert scene.platform.latest_run(workflow_id) == second.id
    soon(lambda: ended_run(scene, second.id))
    assert scene.platform.latest_run(workflow_id) == second.id


def test_a_run_tells_its_event_outputs_and_error(scene: Any) -> None:
    workflow_id, _ = scene.workflow()
    body = {"text": "žluťoučký {{ 1 + 1 }}", "list": [1, None, {"deep": True}], "amount": 12.5}
    detail = scene.platform.run_detail(scene.run(workflow_id, body).id)
    assert (detail.event["body"], detail.event["query"]) == (body, {"page": "1"})
    assert detail.outputs["Echo"] == [{"tag": "v1", "body": body, "query": {"page": "1"}, "header": "north"}]
    assert detail.error is None
    failed = scene.platform.run_detail(scene.run(workflow_id, {"fail": True}).id)
    assert (failed.run.state, failed.event["body"]) == (RunState.ERROR, {"fail": True})
    assert "refused on purpose" in failed.error


@pytest.mark.parametrize("wait_s", [SHORT_S, LONG_S], ids=["running", "waiting"])
def test_a_run_in_flight_across_a_publish_keeps_its_version(scene: Any, wait_s: float) -> None:
    workflow_id, _ = scene.workflow("v1", wait_s=wait_s)
    old = scene.platform.live_version(workflow_id)
    run = scene.run(workflow_id, {"n": 4}, ended=False)
    new = scene.platform.save(workflow_id, edited(content(scene, workflow_id), "v2"))
    scene.platform.activate(workflow_id, new.platform_version)
    later = soon(
        lambda: next((r for r in [scene.run(workflow_id, {}, ended=False)] if r.version_hash != old.hash), None)
    )
    assert later.version_hash == new.hash
    assert scene.platform.run_detail(run.id).run.version_hash == old.hash
    if wait_s == SHORT_S:
        soon(lambda: not scene.platform.run_detail(run.id).run.state.in_flight)
        assert scene.tag(run) == "v1"
        soon(lambda: not scene.platform.run_detail(later.id).run.state.in_flight)
        assert scene.tag(later) == "v2"


def test_a_private_entry_runs_the_event_once_while_the_real_one_is_paused(scene: Any) -> None:
    workflow_id, _ = scene.workflow("v1")
    good = scene.platform.live_version(workflow_id)
    original = scene.platform.run_detail(scene.run(workflow_id, {"order": 17, "price": "9.90"}).id)
    scene.platform.save(workflow_id, edited(content(scene, workflow_id), "v2"))
    scene.paused(workflow_id)
    before = scene.platform.runs(workflow_id)

    entry = scene.platform.open_private_entry(good)
    run = scene.platform.send(entry, original.event, idempotency_key="order-17")

    assert (run.state, run.version_hash, run.workflow_id) == (RunState.SUCCESS, good.hash, entry.workflow_id)
    replayed = scene.platform.run_detail(run.id)
    assert replayed.outputs["Echo"] == original.outputs["Echo"]
    assert replayed.event["body"] == original.event["body"]
    assert replayed.event["headers"]["x-reinstate-event"] == "order-17"
    assert {key: [r.id for r in runs] for key, runs in scene.platform.sent(entry).items()} == {"order-17": [run.id]}
    assert scene.platform.runs(workflow_id) == before
    assert scene.platform.ingress_paused(workflow_id)
    scene.platform.close_private_entry(entry)


def test_a_failed_replay_is_a_run_and_a_second_send_is_seen(scene: Any) -> None:
    workflow_id, _ = scene.workflow("v1", active=False)
    entry = scene.platform.open_private_entry(scene.platform.draft_version(workflow_id))
    event = {"body": {"fail": True}, "headers": {}, "query": {}}
    first = scene.platform.send(entry, event, idempotency_key="k")
    assert (first.state, scene.platform.run_detail(first.id).error is None) == (RunState.ERROR, False)
    second = scene.platform.send(entry, {**event, "body": {}}, idempotency_key="k")
    assert [r.id for r in scene.platform.sent(entry)["k"]] == [first.id, second.id]
    assert [r.state for r in scene.platform.sent(entry)["k"]] == [RunState.ERROR, RunState.SUCCESS]
    scene.platform.close_private_entry(entry)


def test_a_private_entry_is_found_again_and_hidden_and_closed_for_good(scene: Any) -> None:
    workflow_id, _ = scene.workflow("v1", active=False)
    version = scene.platform.draft_version(workflow_id)
    entry = scene.platform.open_private_entry(version)
    run = scene.platform.send(entry, {"body": {}, "headers": {}}, idempotency_key="a")
    other = scene.bench.another_process()
    assert other.open_private_entry(version) == entry
    assert [r.id for r in other.sent(entry)["a"]] == [run.id]
    assert entry.workflow_id not in {w.id for w in other.workflows()}
    assert entry.address not in repr(entry)
    other.close_private_entry(entry)
    scene.platform.close_private_entry(entry)
    with pytest.raises(Permanent, match="closed"):
        scene.platform.send(entry, {"body": {}, "headers": {}}, idempotency_key="b")
    other.close()


def test_unknown_objects_are_permanent_and_named(scene: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: scene.platform.draft_version("missing"),
        lambda: scene.platform.live_version("missing"),
        lambda: scene.platform.versions("missing"),
        lambda: scene.platform.activate("missing"),
        lambda: scene.platform.deactivate("missing"),
        lambda: scene.platform.ingress_paused("missing"),
    ]
    for call in calls:
        with pytest.raises(Permanent, match="workflow missing") as raised:
            call()
        assert "\n" not in str(raised.value)
    for act in (scene.platform.run_detail, scene.platform.stop):
        with pytest.raises(Permanent, match="run 999999999"):
            act("999999999")


def test_health_tells_the_platforms_clock(scene: Any) -> None:
    health = scene.platform.health()
    assert health.ok
    assert health.now.utcoffset() == timedelta(0)
