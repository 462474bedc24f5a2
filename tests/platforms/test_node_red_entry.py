"""The private copy of a tab: what is in it and what is not."""

import json
from typing import Any

import pytest

from platforms import node_red_entry as entry
from platforms.base import Permanent, RunState, Version
from platforms.node_red_canonical import content_hash
from platforms.node_red_data import definition_of, is_private, tab
from platforms.node_red_secrets import taken_out

AT = {"x": 1, "y": 1}
FLOWS: list[dict[str, Any]] = [
    {"id": "shop", "type": "tab", "label": "Shop", "env": [{"name": "TOKEN", "type": "str", "value": "hush"}]},
    {"id": "db", "type": "postgresDB", "password": "hush"},
    {"id": "times", "type": "subflow", "name": "times"},
    {"id": "inner", "type": "postgrestor", "z": "times", "postgresDB": "db", "wires": [[]], **AT},
    {
        "id": "hook",
        "type": "http in",
        "name": "Hook",
        "z": "shop",
        "url": "/o",
        "method": "post",
        "wires": [["f"]],
        **AT,
    },
    {"id": "mq", "type": "mqtt in", "name": "Told", "z": "shop", "wires": [["f", "u"]], **AT},
    {"id": "f", "type": "function", "name": "Work", "z": "shop", "wires": [["w"], ["out"]], **AT},
    {"id": "u", "type": "subflow:times", "name": "Use", "z": "shop", "wires": [[]], **AT},
    {
        "id": "w",
        "type": "postgrestor",
        "name": "Write",
        "z": "shop",
        "postgresDB": "db",
        "wires": [["out", "lout"]],
        **AT,
    },
    {"id": "out", "type": "http response", "name": "Out", "z": "shop", "wires": [], **AT},
    {"id": "lout", "type": "link out", "z": "shop", "links": ["lin", "far"], "wires": [], **AT},
    {"id": "lin", "type": "link in", "name": "In", "z": "shop", "links": ["lout", "near"], "wires": [["off"]], **AT},
    {"id": "off", "type": "debug", "z": "shop", "d": True, "wires": [], **AT},
    {"id": "no", "type": "comment", "z": "shop", "wires": [], **AT},
    {"id": "oops", "type": "catch", "name": "Oops", "z": "shop", "scope": ["w", "hook"], "wires": [["out"]], **AT},
    {"id": "g", "type": "group", "z": "shop", "nodes": ["hook", "f"], **AT, "w": 1, "h": 1},
]


def version(flows: list[dict[str, Any]] = FLOWS) -> Version:
    definition = definition_of(flows, tab(flows, "shop") or {})
    return Version(workflow_id="shop", hash=content_hash(definition), definition=definition)


def built(wanted: Version | None = None, *, durable: bool = True) -> list[dict[str, Any]]:
    return entry.private_copy(wanted or version(), FLOWS, "t0ken", durable=durable)


def plan_of(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    code = next(n["func"] for n in nodes if n["type"] == "function" and n["name"] == entry.DESK)
    found: dict[str, Any] = json.loads(code.partition("const PLAN = ")[2].partition(";\n")[0])
    return found


def test_the_copy_starts_by_nothing_but_its_desk() -> None:
    nodes = built()
    by_name = {n.get("name"): n for n in nodes}
    assert not [n for n in nodes if n["type"] in ("mqtt in", "comment")]
    assert {n["url"] for n in nodes if n["type"] == "http in"} == {"/reinstate-t0ken"}
    assert is_private(nodes[0])
    assert nodes[0]["env"] == FLOWS[0]["env"], "the tab's own environment"
    assert not {n["id"] for n in nodes} & {n["id"] for n in FLOWS}
    work = by_name["Work"]
    assert [len(port) for port in work["wires"]] == [2, 2], "what it was wired to, and the desk"
    desk = next(n for n in nodes if n["type"] == "function" and n["name"] == entry.DESK)
    assert desk["wires"] == [[work["id"]], [work["id"], by_name["Use"]["id"]]]
    links = {n["type"]: n["links"] for n in nodes if n["type"].startswith("link")}
    assert (links["link out"][1], len(links["link in"])) == ("far", 1), "nobody outside leads into the copy"
    assert [n["nodes"] for n in nodes if n["type"] == "group"] == [[work["id"]]]


def test_the_plan_says_whose_end_is_waited_for() -> None:
    nodes = built()
    by_name = {n.get("name"): n["id"] for n in nodes}
    plan = plan_of(nodes)
    assert (plan["ports"], plan["first"], plan["store"]) == (["Hook", "Told"], "Hook", "reinstate")
    assert plan["triggers"]["Hook"] == {"method": "POST", "targets": [by_name["Work"]]}
    assert plan["triggers"]["Told"] == {"method": None, "targets": [by_name["Work"], by_name["Use"]]}
    assert plan["taps"][f"{by_name['Oops']} 0"]["catches"]
    assert set(plan["silent"]) >= {by_name["Write"], by_name["Use"]}
    assert by_name["Work"] not in plan["silent"]
    assert plan_of(built(durable=False))["store"] is None
    copy = entry.copy_id(version())
    assert entry.remembers([*FLOWS, *built()], copy)
    assert not entry.remembers([*FLOWS, *built(durable=False)], copy)
    assert not entry.remembers(FLOWS, copy)


def test_shared_nodes_are_the_live_ones_unless_the_version_has_others() -> None:
    assert not [n for n in built() if "reinstate" in n]
    older = [{**n, "query": "SELECT 1"} if n["id"] == "inner" else n for n in FLOWS]
    foreign = {n["type"]: n for n in built(version(older)) if "reinstate" in n}
    assert set(foreign) == {"subflow", "postgrestor"}
    assert foreign["postgrestor"]["z"] == foreign["subflow"]["id"] != "times"
    assert foreign["postgrestor"]["postgresDB"] == "db"
    use = next(n for n in built(version(older)) if n.get("name") == "Use")
    assert use["type"] == f"subflow:{foreign['subflow']['id']}"
    other = [{**n, "user": "other"} if n["id"] == "db" else n for n in FLOWS]
    nodes = built(version(other))
    config = next(n for n in nodes if n["type"] == "postgresDB")
    assert (config["user"], config["password"], config["id"] == "db") == ("other", "hush", False)
    assert {n["postgresDB"] for n in nodes if n["type"] == "postgrestor"} == {config["id"]}


def test_a_subflow_that_starts_by_itself_does_not_in_the_copy() -> None:
    timer = {"id": "tick", "type": "inject", "z": "times", "repeat": "1", "wires": [["inner"]], **AT}
    flows = [*FLOWS, timer]
    made = entry.private_copy(version(flows), flows, "t", durable=True)
    ticks = [n for n in made if n["type"] == "inject"]
    assert [n["d"] for n in ticks] == [True]
    assert ticks[0]["z"] != "times"
    assert [n for n in made if n.get("reinstate")], "its own subflow, so that the live one goes on"


def test_the_copy_of_the_same_is_the_same_and_found_again() -> None:
    nodes = built()
    flows = [*FLOWS, *nodes]
    copy = entry.copy_id(version())
    assert entry.token_of(flows, copy) == "t0ken"
    assert entry.token_of(FLOWS, copy) is None
    assert entry.is_same(flows, copy, built())
    assert not entry.is_same([n for n in flows if n.get("name") != "Work"], copy, built())
    assert entry.copy_id(version()) != entry.copy_id(version([*FLOWS[:-2]]))
    assert "hush" not in str(taken_out(version().definition))


def test_a_tab_that_nothing_starts_cannot_be_replayed() -> None:
    idle = [n for n in FLOWS if n["id"] not in ("hook", "mq")]
    with pytest.raises(Permanent, match="workflow shop: nothing on the tab starts it"):
        entry.private_copy(version(idle), idle, "t", durable=True)


def test_an_event_goes_out_with_its_key_and_run() -> None:
    event = {"body": {"n": 1}, "headers": {"X-Shop": "north", "x-reinstate-event": "old"}, "trigger": "Hook"}
    sent = entry.payload(event, "key", "copy-run1")
    assert (sent["id"], sent["key"], sent["trigger"]) == ("run1", "key", "Hook")
    headers = {"x-shop": "north", "x-reinstate-event": "key", "x-reinstate-run": "copy-run1"}
    assert sent["event"] == {"body": {"n": 1}, "query": {}, "params": {}, "headers": headers}
    assert entry.payload({"payload": 1, "trigger": "Tick"}, "k", "c-r")["event"] == {"payload": 1}


def test_a_record_is_a_run() -> None:
    kept = {
        "id": "r1",
        "key": "k",
        "state": "error",
        "started": "2026-11-22T07:00:00.000Z",
        "version": "v",
        "error": "no",
    }
    run = entry.run_of({**kept, "ended": "2026-11-22T07:00:01.500Z"}, "copy")
    assert (run.id, run.state, run.version_hash) == ("copy-r1", RunState.ERROR, "v")
    assert run.started_at is not None
    assert run.stopped_at is not None
    assert (run.stopped_at - run.started_at).total_seconds() == 1.5
    assert entry.run_of({**kept, "state": "running"}, "copy").stopped_at is None
    assert entry.run_of({**kept, "state": "crashed"}, "copy").stopped_at is not None
    detail = entry.detail_of({**kept, "event": {"body": 1}, "trigger": "Hook"}, "copy")
    assert detail.event == {"body": 1, "headers": {"x-reinstate-event": "k"}, "trigger": "Hook"}
    assert (detail.error, detail.status) == ("no", None)
    assert entry.detail_of({**kept, "status": 400}, "copy").status == 400
