"""Private entries: an event runs once through a good version while the real workflow stays paused."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from platforms.base import Permanent, RunState
from recovery.following import repointed
from tests.contract.bench import ECHO, QUERY, Scene, fresh

pytestmark = pytest.mark.contract


def event(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"body": dict(body), "headers": {"x-shop": "north"}, "query": dict(QUERY)}


def opens_none(scene: Scene) -> bool:
    """Whether the platform has no private entries, and says so."""
    if scene.can.replays_privately:
        return False
    made = scene.workflow(active=False)
    with pytest.raises(Permanent, match=f"workflow {made.id}"):
        scene.platform.open_private_entry(scene.platform.draft_version(made.id))
    return True


def test_a_private_entry_runs_the_event_once_while_the_real_one_is_paused(scene: Scene) -> None:
    if opens_none(scene):
        return
    made = scene.workflow("v1")
    good = scene.platform.live_version(made.id)
    assert good is not None
    scene.platform.save(made.id, scene.bench.edited(good.definition, "v2"))
    scene.paused(made.id)
    before = scene.platform.runs(made.id)
    sent = event({"order": 17, "price": "9.90", "mark": (mark := fresh("mark"))})

    entry = scene.platform.open_private_entry(good)
    run = scene.platform.send(entry, sent, idempotency_key="order-17")

    assert (run.state, run.version_hash, run.workflow_id) == (RunState.SUCCESS, good.hash, entry.workflow_id)
    assert scene.bench.effects(mark) == ["v1"]
    replayed = scene.platform.run_detail(run.id)
    assert replayed.event is not None
    assert replayed.event["body"] == sent["body"]
    assert replayed.event["headers"]["x-reinstate-event"] == "order-17"
    if scene.can.executions:
        assert replayed.outputs[ECHO][0]["body"] == sent["body"]
    told = {key: [r.id for r in runs] for key, runs in scene.platform.sent(entry).items()}
    assert told == ({"order-17": [run.id]} if scene.can.reads_back_events else {})
    assert scene.platform.runs(made.id) == before
    assert scene.platform.ingress_paused(made.id)
    scene.platform.close_private_entry(entry)


def test_an_event_that_was_read_runs_again_as_it_came(scene: Scene) -> None:
    if opens_none(scene) or not scene.can.executions:
        assert scene.platform.runs() == [] or scene.can.executions
        return
    made = scene.workflow("v1")
    original = scene.platform.run_detail(scene.run(made.id, {"text": "ůž {{ 1 }}"}).id)
    assert original.event is not None
    entry = scene.platform.open_private_entry(scene.platform.draft_version(made.id))
    run = scene.platform.send(entry, original.event, idempotency_key="again")
    assert scene.platform.run_detail(run.id).outputs[ECHO] == original.outputs[ECHO]
    scene.platform.close_private_entry(entry)


def test_a_failed_replay_is_a_run_and_a_second_send_is_seen(scene: Scene) -> None:
    if opens_none(scene):
        return
    made = scene.workflow("v1", active=False)
    entry = scene.platform.open_private_entry(scene.platform.draft_version(made.id))
    first = scene.platform.send(entry, event({"fail": "v1"}), idempotency_key="k")
    assert first.state is RunState.ERROR
    second = scene.platform.send(entry, event({}), idempotency_key="k")
    assert second.state is RunState.SUCCESS
    if scene.can.executions:
        assert scene.platform.run_detail(first.id).error
    told = [(r.id, r.state) for r in scene.platform.sent(entry).get("k", [])]
    ran = [(first.id, RunState.ERROR), (second.id, RunState.SUCCESS)]
    assert told == (ran if scene.can.reads_back_events else [])
    scene.platform.close_private_entry(entry)


@pytest.mark.parametrize("key", ["Größe 1\n", " 50%25"])
def test_an_events_key_may_be_any_text(scene: Scene, key: str) -> None:
    if opens_none(scene):
        return
    made = scene.workflow("v1", active=False)
    entry = scene.platform.open_private_entry(scene.platform.draft_version(made.id))
    run = scene.platform.send(entry, event({}), idempotency_key=key)
    assert run.state is RunState.SUCCESS
    seen = scene.platform.run_detail(run.id).event
    assert seen is not None
    assert seen["headers"]["x-reinstate-event"] == key
    told = {k: [r.id for r in runs] for k, runs in scene.platform.sent(entry).items()}
    assert told == ({key: [run.id]} if scene.can.reads_back_events else {})
    scene.platform.close_private_entry(entry)


def test_a_private_entry_is_found_again_and_hidden_and_closed_for_good(scene: Scene) -> None:
    if opens_none(scene):
        return
    made = scene.workflow("v1", active=False)
    version = scene.platform.draft_version(made.id)
    entry = scene.platform.open_private_entry(version)
    run = scene.platform.send(entry, event({}), idempotency_key="a")
    other = scene.elsewhere()
    assert other.open_private_entry(version) == entry
    told = [r.id for r in other.sent(entry).get("a", [])]
    assert told == ([run.id] if scene.can.reads_back_events else [])
    assert entry.workflow_id not in {w.id for w in other.workflows()}
    assert entry.address not in repr(entry)
    other.close_private_entry(entry)
    scene.platform.close_private_entry(entry)
    with pytest.raises(Permanent, match="closed"):
        scene.platform.send(entry, event({}), idempotency_key="b")


def test_private_copies_call_private_copies_while_the_real_ones_are_paused(scene: Scene) -> None:
    if opens_none(scene):
        return
    called = scene.put(scene.bench.callee(name := fresh(), "v1"), name)
    calling = scene.bench.caller(name := fresh(), called.id)
    assert calling is not None
    caller = scene.put(calling, name)
    good = scene.platform.draft_version(called.id)
    scene.platform.save(called.id, scene.bench.edited(good.definition, "v2"))

    copy = scene.platform.open_private_callee(good)
    assert scene.elsewhere().open_private_callee(good) == copy
    version = scene.platform.draft_version(caller.id)
    content = repointed(scene.platform, version.definition, copy.called_as)
    version = replace(version, definition=content, hash=scene.platform.hashes(content)[0])
    entry = scene.platform.open_private_entry(version)
    run = scene.platform.send(entry, event({"mark": (mark := fresh("mark"))}), idempotency_key="called")

    assert run.state is RunState.SUCCESS
    assert scene.bench.effects(mark) == ["v1"]
    if scene.can.executions:
        assert [r.state for r in scene.platform.runs(copy.workflow_id)] == [RunState.SUCCESS]
    listed = scene.platform.workflows()
    assert not {copy.workflow_id, entry.workflow_id} & {w.id for w in listed}
    assert [w.active for w in listed if w.id in (called.id, caller.id)] == [False, False]
    scene.platform.close_private_entry(entry)
    for _ in range(2):
        scene.platform.close_private_entry(copy)
