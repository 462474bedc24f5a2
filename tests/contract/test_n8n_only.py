"""What only a live n8n can show: refused keys, triggers besides webhooks, versions that n8n misnames."""

import time
from typing import Any

import httpx
import pytest

from platforms.base import Permanent, Retryable, RunState
from platforms.faulty import Fault, FaultKind, Faulty
from platforms.n8n import N8n
from platforms.retrying import Retrying
from tests.contract.bench import eventually
from tests.contract.n8n_bench import chain, node

pytestmark = [pytest.mark.contract, pytest.mark.live, pytest.mark.n8n]


def workflow(*nodes: dict[str, Any]) -> dict[str, Any]:
    name = f"n8n-only-{time.time_ns()}"
    return {"name": name, "nodes": list(nodes), "connections": chain(*(n["name"] for n in nodes)), "settings": {}}


def test_a_wrong_key_is_permanent_and_an_absent_server_retryable(n8n_bench: Any) -> None:
    wrong = N8n(n8n_bench.url, "wrong-key")
    for call in (wrong.health, wrong.workflows, lambda: wrong.activate("x")):
        with pytest.raises(Permanent, match="refused the API key"):
            call()
    wrong.close()
    absent = N8n("http://127.0.0.1:9", n8n_bench.api_key)
    for call in (absent.health, absent.workflows, lambda: absent.activate("x")):
        with pytest.raises(Retryable, match="unreachable"):
            call()
    absent.close()


def test_a_replayed_schedule_sees_the_original_tick(n8n_scene: Any) -> None:
    tick = node("Tick", "scheduleTrigger", 1.2, {"rule": {"interval": [{"field": "hours", "hoursInterval": 9}]}})
    echo = node("Echo", "code", 2, {"jsCode": "return [{json: {seen: $('Tick').first().json, run: $execution.id}}];"})
    workflow_id = n8n_scene.bench.create(workflow(tick, echo))
    assert n8n_scene.platform.ingress_paused(workflow_id)
    entry = n8n_scene.platform.open_private_entry(n8n_scene.platform.draft_version(workflow_id))
    event = {"timestamp": "2026-11-21T10:00:00.000+01:00", "Hour": "10", "trigger": "Tick"}
    run = n8n_scene.platform.send(entry, event, idempotency_key="tick-10")
    seen = n8n_scene.platform.run_detail(run.id).outputs["Echo"]
    assert seen == [{"seen": {"timestamp": event["timestamp"], "Hour": "10"}, "run": run.id}]
    n8n_scene.platform.close_private_entry(entry)


def test_what_a_killed_n8n_left_half_published_is_neither_open_nor_paused_by_its_word(n8n_scene: Any) -> None:
    made = n8n_scene.workflow("v1")
    n8n_scene.paused(made.id)
    good = n8n_scene.platform.save(made.id, n8n_scene.bench.edited(n8n_scene.content(made.id), "v2"))
    n8n_scene.bench.half_published(made.id, lease_left_s=10)
    n8n_scene.platform.activate(made.id)
    live = n8n_scene.platform.live_version(made.id)
    assert live is not None
    assert (live.hash, n8n_scene.platform.ingress_open(made.id)) == (good.hash, False)
    eventually(lambda: n8n_scene.platform.ingress_open(made.id), within_s=60)
    assert eventually(lambda: n8n_scene.tag(made.id) == "v2")
    n8n_scene.bench.half_published(made.id, lease_left_s=10)
    n8n_scene.platform.deactivate(made.id)
    assert n8n_scene.platform.live_version(made.id) is None
    assert not n8n_scene.platform.ingress_paused(made.id)
    eventually(lambda: n8n_scene.platform.ingress_paused(made.id), within_s=60)


@pytest.mark.parametrize(
    "parameters",
    [
        {"path": "of-{}/:id", "httpMethod": ["GET", "POST"], "multipleMethods": True},
        {"path": "of-{}", "httpMethod": ["GET", "POST"], "multipleMethods": True},
        {"path": "svc:of-{}", "httpMethod": "POST"},
    ],
    ids=["dynamic", "two methods", "colon"],
)
def test_every_kind_of_address_is_open_when_active_and_paused_when_not(
    n8n_scene: Any, parameters: dict[str, Any]
) -> None:
    path = parameters["path"].format(time.time_ns())
    hook = node("Hook", "webhook", 2, {**parameters, "path": path, "responseMode": "lastNode"})
    made = n8n_scene.put(workflow(hook), "addresses")
    assert not n8n_scene.platform.ingress_open(made.id)
    n8n_scene.platform.activate(made.id)
    eventually(lambda: n8n_scene.platform.ingress_open(made.id))
    assert not n8n_scene.platform.ingress_paused(made.id)
    runs = n8n_scene.platform.runs(made.id)
    n8n_scene.paused(made.id)
    assert not n8n_scene.platform.ingress_open(made.id)
    assert n8n_scene.platform.runs(made.id) == runs == []


def test_a_workflow_that_answers_by_a_node_is_replayed_to_its_end(n8n_scene: Any) -> None:
    hook = node(
        "Hook", "webhook", 2, {"path": f"answer-{time.time_ns()}", "httpMethod": "POST", "responseMode": "responseNode"}
    )
    answer = node("Answer", "respondToWebhook", 1.1, {"respondWith": "json", "responseBody": "={{ $json.body }}"})
    wait = node("Wait", "wait", 1.1, {"amount": 1, "unit": "seconds"})
    after = node("After", "code", 2, {"jsCode": "return [{json: {done: $('Hook').first().json.body}}];"})
    workflow_id = n8n_scene.bench.create(workflow(hook, answer, wait, after))
    entry = n8n_scene.platform.open_private_entry(n8n_scene.platform.draft_version(workflow_id))
    run = n8n_scene.platform.send(entry, {"body": {"n": 1}}, idempotency_key="k")
    assert run.state is RunState.SUCCESS
    assert n8n_scene.platform.run_detail(run.id).outputs["After"] == [{"done": {"n": 1}}]
    n8n_scene.platform.close_private_entry(entry)


def test_the_version_of_a_run_is_what_ran_although_n8n_records_the_draft(n8n_scene: Any) -> None:
    workflow_id = n8n_scene.workflow("v1").id
    live = n8n_scene.platform.live_version(workflow_id)
    code = [{**n, "parameters": {"jsCode": "return [{json: {tag: 'v2'}}];"}} for n in live.definition["nodes"][1:]]
    draft = n8n_scene.platform.save(workflow_id, {**live.definition, "nodes": [live.definition["nodes"][0], *code]})
    for number in range(12):  # more than are looked up one by one
        n8n_scene.bench.call(workflow_id, {"n": number})
    recorded = n8n_scene.bench.api.get("/executions", params={"workflowId": workflow_id, "includeData": "true"}).json()
    assert recorded["data"][0]["workflowVersionId"] == draft.platform_version
    fresh = n8n_scene.bench.another_process()
    assert {(r.version_hash, r.platform_version) for r in fresh.runs(workflow_id)} == {
        (live.hash, live.platform_version)
    }
    fresh.close()


def test_an_entry_left_by_a_kill_between_making_and_opening_is_used(n8n_scene: Any) -> None:
    workflow_id = n8n_scene.workflow("v1", active=False).id
    version = n8n_scene.platform.draft_version(workflow_id)
    entry = n8n_scene.platform.open_private_entry(version)
    n8n_scene.paused(entry.workflow_id)
    assert n8n_scene.platform.open_private_entry(version) == entry
    assert n8n_scene.platform.send(entry, {"body": {}}, idempotency_key="k").state is RunState.SUCCESS
    n8n_scene.platform.close_private_entry(entry)


def test_an_entry_that_somebody_changed_is_replaced(n8n_scene: Any) -> None:
    workflow_id = n8n_scene.workflow("v1", active=False).id
    version = n8n_scene.platform.draft_version(workflow_id)
    entry = n8n_scene.platform.open_private_entry(version)
    changed = dict(n8n_scene.platform.draft_version(entry.workflow_id).definition)
    changed["nodes"] = [n for n in changed["nodes"] if n["name"] != "Echo"]
    changed["connections"] = {k: v for k, v in changed["connections"].items() if k != "Webhook"}
    n8n_scene.platform.save(entry.workflow_id, changed)
    again = n8n_scene.platform.open_private_entry(version)
    assert again.workflow_id != entry.workflow_id
    n8n_scene.platform.close_private_entry(again)


def test_an_answer_lost_on_the_way_is_found_again_and_sent_once(n8n_scene: Any) -> None:
    workflow_id = n8n_scene.workflow("v1", active=False).id
    platform = Retrying(Faulty(n8n_scene.platform, [Fault(kind=FaultKind.LOST_REPLY, method="send")]))
    entry = platform.open_private_entry(platform.draft_version(workflow_id))
    with pytest.raises(Retryable):
        platform.send(entry, {"body": {"n": 1}}, idempotency_key="k")
    assert [r.state for r in platform.sent(entry)["k"]] == [RunState.SUCCESS]
    platform.close_private_entry(entry)


def test_a_replay_longer_than_the_patience_comes_back_in_flight(n8n_bench: Any, n8n_scene: Any) -> None:
    workflow_id = n8n_scene.workflow("v1", wait_s=4, active=False).id
    hasty = N8n(n8n_bench.url, n8n_bench.api_key, send_timeout_s=1)
    entry = hasty.open_private_entry(hasty.draft_version(workflow_id))
    run = hasty.send(entry, {"body": {}}, idempotency_key="k")
    assert run.state.in_flight
    assert [r.id for r in hasty.sent(entry)["k"]] == [run.id]
    hasty.stop(run.id)
    hasty.close_private_entry(entry)
    hasty.close()


def test_the_real_address_of_a_paused_workflow_starts_nothing_while_its_copy_is_open(n8n_scene: Any) -> None:
    made = n8n_scene.workflow("v1")
    workflow_id, name = made.id, made.name
    n8n_scene.paused(workflow_id)
    entry = n8n_scene.platform.open_private_entry(n8n_scene.platform.draft_version(workflow_id))
    assert httpx.post(f"{n8n_scene.bench.url}/webhook/{name}", json={}).status_code == 404
    assert n8n_scene.platform.sent(entry) == {}
    n8n_scene.platform.close_private_entry(entry)


def test_a_secret_typed_into_a_node_stays_in_n8n_and_is_used(n8n_scene: Any) -> None:
    """Saved, gone back to, and replayed through a private copy, without Reinstate ever holding it."""
    platform, hush = n8n_scene.platform, f"hush-{time.time_ns()}"
    token = {"id": "1", "name": "token", "value": hush, "type": "string"}
    given = node("Given", "set", 3.4, {"assignments": {"assignments": [token]}, "options": {}})
    path = f"hush-{time.time_ns()}"
    hook = node("Hook", "webhook", 2, {"path": path, "httpMethod": "POST", "responseMode": "lastNode"}, webhookId=path)
    echo = node("Echo", "code", 2, {"jsCode": "return [{json: {seen: $json.token}}];"})
    whole = workflow(hook, given, echo)
    workflow_id = n8n_scene.bench.create(whole)
    good = platform.draft_version(workflow_id)
    assert hush not in str(good.definition)
    assert (good.hash, good.settings_hash) == platform.hashes(whole)
    platform.save(workflow_id, {**whole, "nodes": [hook, echo], "connections": chain("Hook", "Echo")})
    assert platform.save(workflow_id, good.definition).hash == good.hash
    platform.activate(workflow_id)
    entry = platform.open_private_entry(good)
    assert platform.open_private_entry(good) == entry
    run = platform.send(entry, {"body": {"n": 1}}, idempotency_key="k")
    assert platform.run_detail(run.id).outputs["Echo"] == [{"seen": hush}]
    platform.close_private_entry(entry)
    n8n_scene.bench.paths[workflow_id] = path
    deadline = time.monotonic() + 90
    while not n8n_scene.bench.call(workflow_id, {"n": 2}):  # going live takes n8n a moment
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while not (own := platform.runs(workflow_id)) or own[0].version_hash is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [r.version_hash for r in own] == [good.hash]


def test_an_archived_workflow_is_gone_and_another_may_have_its_name(n8n_scene: Any) -> None:
    made = n8n_scene.workflow("v1")
    old = n8n_scene.content(made.id)
    assert n8n_scene.bench.api.post(f"/workflows/{made.id}/archive").status_code == 200
    for ask in (n8n_scene.platform.draft_version, n8n_scene.platform.deactivate, n8n_scene.platform.activate):
        with pytest.raises(Permanent, match="archived"):
            ask(made.id)
    new = n8n_scene.put(old, made.name)
    assert [w.id for w in n8n_scene.platform.workflows() if w.name == made.name] == [new.id]
    assert n8n_scene.bench.api.post(f"/workflows/{made.id}/unarchive").status_code == 200
    assert n8n_scene.platform.hashes(n8n_scene.content(made.id)) == n8n_scene.platform.hashes(old)
