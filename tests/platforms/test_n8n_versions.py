"""A run's version is found by what it executed, whatever n8n recorded."""

import copy
from typing import Any

from platforms.n8n_versions import fit


def version(query: str = "select 1", **parameters: Any) -> dict[str, Any]:
    write = {
        "name": "Write",
        "type": "n8n-nodes-base.postgres",
        "typeVersion": 2.6,
        "parameters": {"query": query, **parameters},
    }
    return {"nodes": [write], "connections": {}}


def executed(of: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """As n8n stores it: with defaults filled in."""
    value = copy.deepcopy(of)
    value["nodes"][0]["parameters"] = {**defaults, **value["nodes"][0]["parameters"]}
    value["nodes"][0]["position"] = [1, 1]
    return value


def test_defaults_filled_in_are_no_contradiction() -> None:
    assert fit(version(), executed(version(), resource="database", options={})) == (0, -1)


def test_another_parameter_node_or_connection_contradicts() -> None:
    ran = executed(version(), resource="database")
    assert fit(version("select 2"), ran) is None
    assert fit({**version(), "connections": {"Write": {"main": [[{"node": "X"}]]}}}, ran) is None
    assert fit({**version(), "nodes": []}, ran) is None
    other_type = version()
    other_type["nodes"][0]["typeVersion"] = 2.5
    assert fit(other_type, ran) is None


def test_the_version_that_says_more_of_what_ran_is_the_better_fit() -> None:
    plain, careful = version(), version(options={"retry": True})
    ran_plain = executed(plain, options={"retry": False})
    ran_careful = executed(careful, resource="database")
    assert fit(careful, ran_plain) is None
    assert min(fit(plain, ran_careful) or (9, 9), fit(careful, ran_careful) or (9, 9)) == fit(careful, ran_careful)


def test_a_hidden_parameter_that_n8n_left_out_is_a_weaker_fit() -> None:
    ran = executed(version())
    assert fit(version(hidden={"a": 1, "b": [1, 2]}), ran) == (3, -1)
    assert fit(version(), ran) == (0, -1)


def test_lists_of_another_length_contradict() -> None:
    assert fit(version(columns=["a"]), executed(version(columns=["a", "b"]))) is None
    assert fit(version(columns=["a", "b"]), executed(version(columns=["a", "b"]))) == (0, -3)
