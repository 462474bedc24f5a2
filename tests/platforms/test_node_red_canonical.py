"""What counts in a tab, and what does not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from platforms.node_red_canonical import content_hash, settings_hash
from platforms.node_red_data import replaced

SHOP: dict[str, Any] = {
    "name": "shop",
    "settings": {"info": ""},
    "env": [{"name": "LIMIT", "type": "str", "value": "7"}],
    "nodes": [
        {"id": "hook", "type": "http in", "url": "/shop", "method": "post", "x": 1, "y": 1, "wires": [["check"]]},
        {"id": "check", "type": "switch", "x": 2, "y": 1, "wires": [["write"], ["write2"]]},
        {"id": "write", "type": "postgrestor", "postgresDB": "db", "query": "SELECT 1", "x": 3, "y": 1, "wires": [[]]},
        {"id": "write2", "type": "postgrestor", "postgresDB": "db", "query": "SELECT 1", "x": 3, "y": 2, "wires": [[]]},
        {"id": "use", "type": "subflow:times", "x": 1, "y": 9, "wires": [["write"]]},
        {"id": "log", "type": "debug", "active": True, "x": 1, "y": 3, "wires": []},
        {"id": "fails", "type": "catch", "scope": ["write", "write2"], "x": 1, "y": 4, "wires": [["log"]]},
        {"id": "said", "type": "comment", "name": "why", "x": 1, "y": 5, "wires": []},
    ],
    "configs": [{"id": "db", "type": "postgresDB", "host": "a", "password": "hush"}],
    "subflows": [
        {"id": "times", "type": "subflow", "name": "times", "in": [{"x": 1, "y": 1, "wires": [{"id": "inner"}]}]},
        {"id": "inner", "type": "function", "z": "times", "func": "return msg;", "x": 1, "y": 1, "wires": [[]]},
    ],
}
Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> dict[str, Any]:
    made = copy.deepcopy(SHOP)
    change(made)
    return made


def node(definition: dict[str, Any], node_id: str) -> dict[str, Any]:
    every = [*definition["nodes"], *definition["configs"], *definition["subflows"]]
    found: dict[str, Any] = next(n for n in every if n["id"] == node_id)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["nodes"].reverse(),
        lambda d: d["subflows"].reverse(),
        lambda d: node(d, "hook").update(x=700, y=3, info="moved", icon="font-awesome/fa-x", l=False),
        lambda d: node(d, "log").update(active=False),
        lambda d: node(d, "check")["wires"].append([]),
        lambda d: node(d, "fails")["scope"].reverse(),
        lambda d: node(d, "db").update({"password": "other"}),
        lambda d: d["nodes"].remove(node(d, "said")),
        lambda d: d["nodes"].append({"id": "g", "type": "group", "nodes": ["hook"], "x": 0, "y": 0, "w": 1, "h": 1}),
        lambda d: d.update(d | {p: replaced(d[p], {"db": "d2", "hook": "h2"}) for p in ("nodes", "configs")}),
        lambda d: d.update({p: replaced(d[p], {"times": "t2", "inner": "i2"}) for p in ("nodes", "subflows")}),
        lambda d: d.update(nodes=replaced(d["nodes"], {"write": "write2", "write2": "write"})),
        lambda d: d.update(name="renamed"),
    ],
)
def test_what_means_nothing_does_not_count(change: Change) -> None:
    assert content_hash(changed(change)) == content_hash(SHOP)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: node(d, "hook").update(wires=[["write"]]),
        lambda d: node(d, "check")["wires"].reverse(),
        lambda d: node(d, "check").update(wires=[["write"], ["write"]]),
        lambda d: node(d, "write").update(query="SELECT 2"),
        lambda d: node(d, "write").update(d=True),
        lambda d: node(d, "write").update(name="Write"),
        lambda d: node(d, "write").update(postgresDB=""),
        lambda d: node(d, "fails")["scope"].pop(),
        lambda d: node(d, "db").update(host="b"),
        lambda d: node(d, "inner").update(func="return null;"),
        lambda d: node(d, "times").update({"in": []}),
        lambda d: d["env"][0].update(value="8"),
        lambda d: d["nodes"].append({"id": "new", "type": "debug", "x": 1, "y": 1, "wires": []}),
        lambda d: d["nodes"].append(
            {"id": "g", "type": "group", "nodes": ["hook"], "env": [{"name": "A", "value": "1"}], "x": 0, "y": 0}
        ),
    ],
)
def test_what_decides_counts(change: Change) -> None:
    assert content_hash(changed(change)) != content_hash(SHOP)


def test_equal_nodes_are_told_apart_by_what_they_are_wired_to() -> None:
    one, two = changed(lambda d: node(d, "use").update(wires=[["write2"]])), SHOP
    assert content_hash(one) != content_hash(two), "another branch of the switch"
    two = changed(lambda d: (node(d, "use").update(wires=[["write2"]]), node(d, "check")["wires"].reverse()))
    assert content_hash(two) == content_hash(SHOP), "the same graph, named the other way round"


def test_label_and_description_are_settings() -> None:
    renamed, described = changed(lambda d: d.update(name="x")), changed(lambda d: d.update(settings={"info": "x"}))
    assert len({settings_hash(d) for d in (SHOP, renamed, described)}) == 3
    assert content_hash(described) == content_hash(SHOP)
    assert settings_hash({"name": "x"}) == settings_hash({"name": "x", "settings": {"info": None}, "nodes": [{}]})
