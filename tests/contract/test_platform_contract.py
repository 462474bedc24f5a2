"""What every adapter must do. What must hold where a platform cannot do something is decided by its capabilities."""

import json
from datetime import timedelta
from typing import Any

import pytest

from platforms.base import EntryKind, Permanent
from tests.contract.bench import ECHO, Scene, eventually, fresh

pytestmark = pytest.mark.contract


def listed(scene: Scene, workflow_id: str) -> Any:
    return next((w for w in scene.platform.workflows() if w.id == workflow_id), None)


def test_lists_workflows_with_their_state(scene: Scene) -> None:
    made = scene.workflow(active=False)
    assert (listed(scene, made.id).name, listed(scene, made.id).active) == (made.name, False)
    scene.platform.activate(made.id)
    assert listed(scene, made.id).active
    assert not scene.can.keeps_versions or listed(scene, made.id).live


def test_saving_changes_the_draft_and_live_only_where_they_are_one(scene: Scene) -> None:
    made = scene.workflow("v1")
    first = scene.platform.live_version(made.id)
    assert first is not None
    second = scene.platform.save(made.id, scene.bench.edited(first.definition, "v2"))
    live = scene.platform.live_version(made.id)
    assert scene.platform.draft_version(made.id).hash == second.hash != first.hash
    assert live is not None
    if scene.can.draft_apart_from_live:
        assert live.hash == first.hash
        assert scene.tag(made.id) == "v1"
    else:
        assert live.hash == second.hash
        assert eventually(lambda: scene.tag(made.id) == "v2")


def test_the_platforms_own_history(scene: Scene) -> None:
    made = scene.workflow("v1", active=False)
    first = scene.platform.draft_version(made.id)
    second = scene.platform.save(made.id, scene.bench.edited(first.definition, "v2"))
    versions = scene.platform.versions(made.id)
    if scene.can.keeps_versions:
        assert [v.hash for v in versions] == [second.hash, first.hash]
        assert [v.platform_version for v in versions] == [second.platform_version, first.platform_version]
        assert not scene.can.names_authors or all(v.author and v.created_at for v in versions)
    else:
        assert versions == []


def test_hashes_are_of_the_content_however_it_is_read(scene: Scene) -> None:
    made = scene.workflow("v1")
    draft, live = scene.platform.draft_version(made.id), scene.platform.live_version(made.id)
    assert live is not None
    assert scene.platform.hashes(draft.definition) == (draft.hash, draft.settings_hash)
    assert (live.hash, live.settings_hash, live.platform_version) == (
        draft.hash,
        draft.settings_hash,
        draft.platform_version,
    )
    assert len(draft.hash) == len(draft.settings_hash) == 64
    exported = json.loads(json.dumps(draft.definition))
    assert scene.platform.hashes(exported) == (draft.hash, draft.settings_hash)
    assert scene.elsewhere().draft_version(made.id).hash == draft.hash


def test_saving_equal_content_changes_nothing(scene: Scene) -> None:
    made = scene.workflow(active=False)
    before = scene.platform.draft_version(made.id)
    moved = scene.bench.moved(before.definition)
    assert scene.platform.hashes(moved) == (before.hash, before.settings_hash)
    assert scene.platform.save(made.id, moved) == before
    assert listed(scene, made.id).name == made.name
    assert len(scene.platform.versions(made.id)) == (1 if scene.can.keeps_versions else 0)


def test_a_setting_is_seen_but_makes_no_other_version(scene: Scene) -> None:
    made = scene.workflow(active=False)
    before = scene.platform.draft_version(made.id)
    after = scene.platform.save(made.id, scene.bench.tuned(before.definition))
    assert (after.hash, after.settings_hash == before.settings_hash) == (before.hash, False)
    restored = scene.platform.save(made.id, before.definition)
    assert (restored.hash, restored.settings_hash) == (before.hash, before.settings_hash)


def test_old_content_published_again_is_live_and_answers(scene: Scene) -> None:
    made = scene.workflow("v1")
    good = scene.platform.live_version(made.id)
    assert good is not None
    bad = scene.platform.save(made.id, scene.bench.edited(good.definition, "v2"))
    scene.platform.activate(made.id, bad.platform_version)
    assert scene.platform.live_version(made.id).hash == bad.hash  # type: ignore[union-attr]
    eventually(lambda: scene.tag(made.id) == "v2")
    if not scene.can.keeps_versions:
        scene.platform.save(made.id, good.definition)
    scene.platform.activate(made.id, good.platform_version)
    live = scene.platform.live_version(made.id)
    assert live is not None
    assert (live.hash, live.settings_hash, live.platform_version) == (
        good.hash,
        good.settings_hash,
        good.platform_version,
    )
    eventually(lambda: scene.tag(made.id) == "v1")


def test_publishing_an_unknown_version_is_permanent(scene: Scene) -> None:
    made = scene.workflow(active=False)
    with pytest.raises(Permanent, match="ersion"):
        scene.platform.activate(made.id, "00000000-0000-4000-8000-000000000000")
    assert scene.platform.live_version(made.id) is None


def test_activating_and_deactivating_twice_is_like_once(scene: Scene) -> None:
    made = scene.workflow()
    scene.platform.activate(made.id)
    assert scene.tag(made.id) == "v1"
    scene.paused(made.id)
    scene.paused(made.id)
    assert scene.platform.live_version(made.id) is None


def test_a_pause_is_told_by_the_entry_and_nothing_happens_after(scene: Scene) -> None:
    made = scene.workflow()
    assert not scene.platform.ingress_paused(made.id)
    scene.platform.deactivate(made.id)
    eventually(lambda: scene.platform.ingress_paused(made.id))
    before = scene.platform.runs(made.id)
    mark = fresh("late")
    assert not scene.bench.call(made.id, {"mark": mark})
    assert (scene.platform.runs(made.id), scene.bench.effects(mark)) == (before, [])
    assert scene.platform.ingress_paused(made.id)


def test_an_entry_is_open_once_calls_reach_what_is_live(scene: Scene) -> None:
    made = scene.workflow()
    eventually(lambda: scene.platform.ingress_open(made.id))
    scene.platform.deactivate(made.id)
    assert not scene.platform.ingress_open(made.id)
    eventually(lambda: scene.platform.ingress_paused(made.id))
    scene.platform.save(made.id, scene.bench.edited(scene.content(made.id), "v2"))
    assert not scene.platform.ingress_open(made.id)
    scene.platform.activate(made.id)
    eventually(lambda: scene.platform.ingress_open(made.id))
    before = scene.platform.runs(made.id)
    assert scene.platform.ingress_open(made.id)
    assert scene.platform.runs(made.id) == before
    assert scene.tag(made.id) == "v2"


def test_asking_the_entry_starts_no_run(scene: Scene) -> None:
    made = scene.workflow()
    before = scene.platform.runs(made.id)
    for _ in range(5):
        assert not scene.platform.ingress_paused(made.id)
    assert scene.platform.runs(made.id) == before


def test_a_pause_drops_what_is_in_flight_or_lets_it_end(scene: Scene) -> None:
    made = scene.workflow("v1", wait_s=4 * scene.short_s)
    mark = scene.answered(made.id)
    scene.paused(made.id)
    if scene.can.drops_in_flight:
        with pytest.raises(AssertionError, match="in time"):
            eventually(lambda: scene.bench.effects(mark), within_s=scene.short_s * 6)
    else:
        assert eventually(lambda: scene.bench.effects(mark)) == ["v1"]


def test_a_deleted_workflow_is_made_again(scene: Scene) -> None:
    made = scene.workflow("v1")
    before = scene.platform.draft_version(made.id)
    scene.bench.delete(made.id)
    assert listed(scene, made.id) is None
    with pytest.raises(Permanent, match=f"workflow {made.id}"):
        scene.platform.draft_version(made.id)
    again = scene.platform.create(before.definition, workflow_id=made.id)
    scene.made.append(again.workflow_id)
    assert (again.hash, again.settings_hash) == (before.hash, before.settings_hash)
    assert (again.workflow_id == made.id) is scene.can.keeps_ids
    assert (listed(scene, again.workflow_id).name, listed(scene, again.workflow_id).active) == (made.name, False)
    if scene.can.keeps_ids:
        same = scene.platform.create(before.definition, workflow_id=made.id)
        assert (same.workflow_id, same.hash) == (made.id, before.hash)
        assert [w.name for w in scene.platform.workflows()].count(made.name) == 1
    scene.platform.activate(again.workflow_id)
    assert scene.tag(again.workflow_id) == "v1"


def test_an_outline_tells_entry_nodes_and_links(scene: Scene) -> None:
    made = scene.workflow(active=False)
    outline = scene.platform.outline(scene.content(made.id))
    method, path = scene.bench.address(made.name)
    entry = next(e for e in outline.entries if e.kind is EntryKind.WEBHOOK)
    assert (outline.name, entry.method, entry.path) == (made.name, method, path)
    nodes = {node.name: node for node in outline.nodes}
    assert not nodes[ECHO].disabled
    reached, todo = set[str](), [entry.node]
    while todo:
        reached.add(here := todo.pop())
        todo += [to for source, to in outline.links if source == here and to not in reached]
    assert ECHO in reached
    assert all({source, target} <= nodes.keys() for source, target in outline.links)


def test_an_outline_of_another_content_differs_only_where_it_does(scene: Scene) -> None:
    made = scene.workflow(active=False)
    content = scene.content(made.id)
    first, second = (scene.platform.outline(c) for c in (content, scene.bench.edited(content, "v2")))
    differing = [a.name for a, b in zip(first.nodes, second.nodes, strict=True) if a != b]
    assert (differing, first.entries, first.links) == ([ECHO], second.entries, second.links)


def test_an_outline_tells_which_workflow_another_one_starts(scene: Scene) -> None:
    made = scene.workflow(active=False)
    calling = scene.bench.caller(name := fresh(), made.id)
    if calling is not None:
        caller = scene.put(calling, name)
        calls = [call for node in scene.platform.outline(scene.content(caller.id)).nodes for call in node.calls]
        assert calls in ([made.id], [made.name])


def test_a_caller_is_published_after_what_it_calls(scene: Scene) -> None:
    made = scene.workflow(active=False)
    calling = scene.bench.caller(name := fresh(), made.id)
    if calling is None:
        return
    caller = scene.put(calling, name)
    try:
        scene.platform.activate(caller.id)
    except Permanent as refused:  # some platforms publish no caller of what is not published
        assert made.id in str(refused)  # noqa: PT017 - others publish it
    scene.platform.activate(made.id)
    scene.platform.activate(caller.id)
    live = scene.platform.live_version(caller.id)
    assert live is not None
    assert live.hash == scene.platform.draft_version(caller.id).hash


def test_an_outline_never_fails_on_what_it_does_not_know(scene: Scene) -> None:
    for strange in ({}, {"name": "x"}, {"name": "x", "nodes": [{"type": "of-a-stranger"}]}, {"nodes": None}):
        scene.platform.outline(strange)


def test_unknown_objects_are_permanent_and_named(scene: Scene) -> None:
    by_id = (
        scene.platform.draft_version,
        scene.platform.live_version,
        scene.platform.versions,
        scene.platform.activate,
        scene.platform.deactivate,
        scene.platform.ingress_paused,
        scene.platform.credentials,
    )
    for ask in by_id:
        with pytest.raises(Permanent, match="workflow missing") as raised:
            ask("missing")
        assert "\n" not in str(raised.value)
    for act in (scene.platform.run_detail, scene.platform.stop, scene.platform.retrigger):
        with pytest.raises(Permanent, match="run 999999999"):
            act("999999999")


def test_health_tells_the_platforms_clock(scene: Scene) -> None:
    health = scene.platform.health()
    assert health.ok
    assert health.now.utcoffset() == timedelta(0)
