"""The private copy: what it keeps, what it replaces."""

from typing import Any

from platforms.base import Version
from platforms.canonical import content_hash
from platforms.n8n_data import detail_of, key_of, run_of
from platforms.n8n_entry import copy_name, entry_path, payload, private_copy, token_of, triggers_of
from platforms.n8n_versions import Identity
from platforms.n8n_webhooks import answering, webhook_addresses


def node(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "name": name, "type": f"n8n-nodes-base.{kind}", "typeVersion": 1, "parameters": {}, **fields}


def link(*targets: str) -> dict[str, Any]:
    return {"main": [[{"node": target, "type": "main", "index": 0} for target in targets]]}


DEFINITION: dict[str, Any] = {
    "name": "orders",
    "nodes": [
        node("Hook", "webhook", parameters={"path": "orders", "httpMethod": "POST"}, webhookId="w"),
        node("Tick", "scheduleTrigger"),
        node("By hand", "manualTrigger"),
        node("Off", "webhook", disabled=True, parameters={"path": "off"}),
        node("Write", "postgres", credentials={"postgres": {"id": "c1", "name": "desk"}}),
        node("Answer", "respondToWebhook"),
    ],
    "connections": {"Hook": link("Write"), "Write": link("Answer"), "Tick": link("Tidy"), "By hand": link("Write")},
    "settings": {"executionOrder": "v1", "errorWorkflow": "e1", "timezone": "DEFAULT"},
}
VERSION = Version(workflow_id="w1", hash=content_hash(DEFINITION), definition=DEFINITION)


def by_name(copy: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item for item in copy["nodes"]}


def test_every_trigger_is_replaced_by_a_stand_in_of_its_name() -> None:
    nodes = by_name(private_copy(VERSION, "token"))
    assert [item["name"] for item in triggers_of(DEFINITION)] == ["Hook", "Tick"]
    for name in ("Hook", "Tick"):
        assert nodes[name]["type"] == "n8n-nodes-base.set"
    assert "Off" not in nodes
    assert "By hand" not in nodes


def test_the_real_address_is_not_in_the_copy_and_the_credentials_are() -> None:
    copy = private_copy(VERSION, "token")
    assert {path for path, _ in webhook_addresses(copy["nodes"])} == {
        "token",
        entry_path("token", "Hook"),
        entry_path("token", "Tick"),
    }
    assert by_name(copy)["Write"]["credentials"] == {"postgres": {"id": "c1", "name": "desk"}}
    assert token_of(copy) == "token"


def test_an_entry_before_a_respond_node_leaves_the_answer_to_it() -> None:
    nodes = by_name(private_copy(VERSION, "token"))
    assert nodes["reinstate entry"]["parameters"]["responseMode"] == "responseNode"
    assert nodes["reinstate entry Tick"]["parameters"]["responseMode"] == "lastNode"


def test_settings_keep_the_evidence_and_call_no_error_workflow() -> None:
    settings = private_copy(VERSION, "token")["settings"]
    assert settings["saveDataSuccessExecution"] == settings["saveDataErrorExecution"] == "all"
    assert "errorWorkflow" not in settings
    assert "timezone" not in settings


def test_the_name_is_within_n8ns_limit_and_unique_per_content() -> None:
    long = Version(workflow_id="w1", hash="a" * 64, definition={**DEFINITION, "name": "x" * 128})
    other = Version(workflow_id="w1", hash="b" * 64, definition={**DEFINITION, "name": "x" * 128})
    assert len(copy_name(long)) <= 128
    assert copy_name(long) != copy_name(other)


def test_the_payload_is_the_event_without_an_earlier_key() -> None:
    event = {"body": {"a": 1}, "headers": {"X-Reinstate-Event": "old", "x-shop": "north"}, "trigger": "Hook"}
    assert payload(event) == {
        "event": {"headers": {"x-shop": "north"}, "params": {}, "query": {}, "body": {"a": 1}},
    }
    assert payload({"timestamp": "t", "trigger": "Tick"}) == {"event": {"timestamp": "t"}}


def execution(data: dict[str, Any], status: str = "success") -> dict[str, Any]:
    times = {"startedAt": "2026-11-21T20:00:00.000Z", "stoppedAt": "2026-11-21T20:00:01.000Z"}
    return {"id": "7", "workflowId": "w1", "status": status, "data": data, **times}


def detail(value: dict[str, Any]) -> Any:
    return detail_of(value, run_of(value, Identity(hash=None, platform_version=None)))


def test_the_event_of_a_replay_is_the_original_with_its_key() -> None:
    received = {"headers": {"x-reinstate-event": "k"}, "body": {"event": {"body": {"a": 1}, "headers": {"h": "1"}}}}
    ran = {"reinstate entry Hook": [{"executionIndex": 0, "data": {"main": [[{"json": received}]]}}]}
    found = detail(execution({"resultData": {"runData": ran}}))
    assert found.event == {"body": {"a": 1}, "headers": {"h": "1", "x-reinstate-event": "k"}}
    assert key_of(found.event) == "k"


def test_the_event_of_a_run_at_its_trigger_is_on_the_stack() -> None:
    stack = [{"node": {"name": "Hook"}, "data": {"main": [[{"json": {"body": {"a": 1}}}]]}}]
    found = detail(
        execution({"resultData": {"runData": {}}, "executionData": {"nodeExecutionStack": stack}}, "running")
    )
    assert found.event == {"body": {"a": 1}, "trigger": "Hook"}
    assert found.run.stopped_at is None
    assert detail(execution({})).event is None


def test_several_items_are_kept_and_a_node_that_failed_has_no_output() -> None:
    ran = {
        "Tick": [{"executionIndex": 0, "data": {"main": [[{"json": {"n": 1}}, {"json": {"n": 2}}]]}}],
        "Write": [{"executionIndex": 1, "error": {"message": "no"}}],
    }
    found = detail(execution({"resultData": {"runData": ran, "error": {"message": "no"}}}, "error"))
    assert found.event == {"items": [{"n": 1}, {"n": 2}], "trigger": "Tick"}
    assert (list(found.outputs), found.error) == (["Tick"], "no")


def test_an_unknown_state_counts_as_in_flight_until_it_ended() -> None:
    value = execution({}, "unknown")
    assert not detail(value).run.state.in_flight
    assert detail({**value, "stoppedAt": None}).run.state.in_flight


def test_addresses_of_webhooks() -> None:
    nodes = [
        node("a", "webhook", parameters={"path": "/plain/"}),
        node("b", "webhook", parameters={"path": "two", "httpMethod": ["PUT", "POST"]}),
        node("c", "webhook", parameters={"path": "of/:id"}, webhookId="uuid"),
        node("d", "webhook", parameters={"path": "={{ $vars.p }}"}),
        node("e", "webhook", parameters={"path": "off"}, disabled=True),
        node("f", "webhook", parameters={"path": "svc:orders"}),
    ]
    expected = {("plain", "GET"), ("two", "PUT"), ("two", "POST"), ("uuid/of/any", "GET"), ("svc:orders", "GET")}
    assert webhook_addresses(nodes) == expected


def test_paths_that_surely_answer() -> None:
    nodes = [
        node("a", "webhook", parameters={"path": "made/up"}),
        node("b", "webhook", parameters={"path": "two", "httpMethod": ["PUT", "POST"]}, webhookId="b"),
        node("c", "webhook", parameters={"path": "of/:id", "httpMethod": ["GET", "POST"]}, webhookId="uuid"),
        node("d", "webhook", parameters={"path": "odd", "httpMethod": "={{ 'GET' }}"}, webhookId="d"),
    ]
    assert answering(nodes) == {"two": {"PUT", "POST"}, "uuid/of/any": {"GET", "POST"}}
