import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.canonical import content_hash, digest, settings_hash

BASE: dict[str, Any] = {
    "name": "orders",
    "nodes": [
        {
            "id": "1",
            "name": "In",
            "type": "n8n-nodes-base.webhook",
            "typeVersion": 2,
            "position": [0, 0],
            "webhookId": "w",
            "parameters": {"path": "orders", "httpMethod": "POST"},
        },
        {
            "id": "2",
            "name": "Write",
            "type": "n8n-nodes-base.postgres",
            "typeVersion": 2.6,
            "position": [9, 9],
            "parameters": {"query": "select 1", "options": {"batch": 5}},
            "credentials": {"postgres": {"id": "c1", "name": "desk"}},
        },
    ],
    "connections": {"In": {"main": [[{"node": "Write", "type": "main", "index": 0}]]}},
    "settings": {"executionOrder": "v1", "timezone": "Europe/Prague"},
}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    value = copy.deepcopy(BASE)
    target: Any = value
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = to
    return value


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("nodes", 0, "id"), "other"),
        (("nodes", 0, "position"), [5, 5]),
        (("nodes", 0, "webhookId"), "other"),
        (("nodes", 0, "notes"), "why"),
        (("nodes", 0, "notesInFlow"), True),
        (("nodes", 0, "disabled"), False),
        (("nodes", 0, "onError"), "stopWorkflow"),
        (("nodes", 0, "typeVersion"), 2.0),
        (("nodes", 1, "credentials", "postgres", "name"), "renamed"),
        (("pinData",), {"In": [{"json": {}}]}),
        (("staticData",), {"last": 3}),
        (("meta",), {"templateId": "7"}),
        (("versionId",), "abc"),
        (("active",), True),
        (("connections", "Write"), {"main": [[]]}),
        (("name",), "renamed"),
        (("settings", "timezone"), "UTC"),
    ],
)
def test_what_does_not_change_the_content_does_not_change_its_hash(path: tuple[Any, ...], to: Any) -> None:
    assert content_hash(changed(*path, to=to)) == content_hash(BASE)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("nodes", 0, "name"), "Entry"),
        (("nodes", 0, "parameters", "path"), "orders2"),
        (("nodes", 0, "disabled"), True),
        (("nodes", 0, "type"), "n8n-nodes-base.formTrigger"),
        (("nodes", 1, "typeVersion"), 2.5),
        (("nodes", 1, "retryOnFail"), True),
        (("nodes", 1, "onError"), "continueRegularOutput"),
        (("nodes", 1, "credentials", "postgres", "id"), "c2"),
        (("nodes", 1, "parameters", "options"), {"batch": 6}),
        (("nodes", 1, "parameters", "options"), {}),
        (("connections",), {}),
        (("connections", "In", "main"), [[], [{"node": "Write", "type": "main", "index": 0}]]),
    ],
)
def test_what_changes_the_behaviour_changes_the_hash(path: tuple[Any, ...], to: Any) -> None:
    assert content_hash(changed(*path, to=to)) != content_hash(BASE)


@pytest.mark.parametrize("path", ["", "orders/:id"])
def test_a_webhook_id_counts_where_it_is_the_address(path: str) -> None:
    addressed = changed("nodes", 0, "parameters", "path", to=path)
    moved = {**addressed, "nodes": [{**addressed["nodes"][0], "webhookId": "other"}, addressed["nodes"][1]]}
    assert content_hash(moved) != content_hash(addressed)


def test_order_of_nodes_and_sticky_notes_do_not_count() -> None:
    note = {"name": "Sticky", "type": "n8n-nodes-base.stickyNote", "typeVersion": 1, "parameters": {"content": "hi"}}
    assert content_hash({**BASE, "nodes": [note, *reversed(BASE["nodes"])]}) == content_hash(BASE)


def test_settings_hash_knows_defaults_and_the_name() -> None:
    same = {**BASE["settings"], "executionTimeout": -1, "errorWorkflow": "DEFAULT", "availableInMCP": True}
    assert settings_hash({**BASE, "settings": same}) == settings_hash(BASE)
    assert settings_hash({**BASE, "name": "other"}) != settings_hash(BASE)
    assert settings_hash(changed("settings", "executionTimeout", to=5)) != settings_hash(BASE)
    assert settings_hash({"name": "orders"}) == settings_hash({"name": "orders", "settings": {"executionOrder": "v1"}})


def test_another_platforms_definition_is_hashed_whole() -> None:
    assert content_hash({"name": "a", "flow": [1]}) == content_hash({"name": "b", "flow": [1]})
    assert content_hash({"name": "a", "flow": [1]}) != content_hash({"name": "a", "flow": [2]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_equal_digests_mean_equal_json(left: Any, right: Any) -> None:
    def kinds(value: Any) -> Any:
        """Python holds True == 1; JSON does not."""
        if isinstance(value, dict):
            return {key: kinds(item) for key, item in value.items()}
        return [kinds(item) for item in value] if isinstance(value, list) else (type(value).__name__, value)

    assert (digest(left) == digest(right)) == (kinds(left) == kinds(right))
