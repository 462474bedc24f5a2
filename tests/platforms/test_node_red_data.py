"""Tabs as definitions, and definitions as changes of all flows."""

from typing import Any

from platforms.node_red_canonical import content_hash
from platforms.node_red_data import (
    address,
    apart,
    definition_of,
    info_of,
    is_private,
    tab,
    version_of,
    with_definition,
    with_disabled,
    without_tab,
)
from platforms.node_red_secrets import KEPT

AT = {"x": 1, "y": 1, "wires": []}
FLOWS: list[dict[str, Any]] = [
    {"id": "shop", "type": "tab", "label": "Shop", "disabled": False, "info": "sells", "env": [], "locked": True},
    {"id": "mail", "type": "tab", "label": "Mail", "disabled": True},
    {"id": "db", "type": "postgresDB", "z": "", "user": "u", "password": "hush"},
    {"id": "broker", "type": "mqtt-broker", "tls": "certs"},
    {"id": "certs", "type": "tls-config"},
    {"id": "own", "type": "postgresDB", "z": "shop", "password": "hush"},
    {"id": "times", "type": "subflow", "name": "times"},
    {"id": "inner", "type": "subflow:deeper", "z": "times", **AT},
    {"id": "deeper", "type": "subflow", "name": "deeper"},
    {"id": "listen", "type": "mqtt in", "z": "deeper", "broker": "broker", **AT},
    {"id": "other", "type": "subflow", "name": "other"},
    {"id": "a", "type": "postgrestor", "z": "shop", "postgresDB": "db", **AT},
    {"id": "letter", "type": "link in", "z": "mail", "links": ["send"], **AT},
    {"id": "b", "type": "subflow:times", "z": "shop", **AT},
    {"id": "send", "type": "link out", "z": "shop", "links": ["letter", "gone"], **AT},
]


def shop() -> dict[str, Any]:
    return definition_of(FLOWS, tab(FLOWS, "shop") or {})


def test_a_definition_brings_what_the_tab_uses_and_no_secret() -> None:
    found = shop()
    assert (found["name"], found["settings"], found["outside"]) == ("Shop", {"info": "sells"}, {"letter": "mail"})
    assert [n["id"] for n in found["nodes"]] == ["own", "a", "b", "send"]
    assert [n["id"] for n in found["configs"]] == ["db", "broker", "certs"]
    assert [n["id"] for n in found["subflows"]] == ["times", "inner", "deeper", "listen"]
    assert "hush" not in str(found)
    assert str(found).count(KEPT) == 2
    assert not any("z" in n for n in found["nodes"])


def test_writing_what_was_read_changes_nothing() -> None:
    assert with_definition(FLOWS, "shop", shop()) == FLOWS


def test_only_the_tab_and_what_it_shares_is_written() -> None:
    wanted = shop()
    wanted["nodes"] = [{**n, "query": "SELECT 2"} if n["id"] == "a" else n for n in wanted["nodes"] if n["id"] != "b"]
    wanted["nodes"].append({"id": "new", "type": "debug", **AT})
    wanted["configs"][0] = {**wanted["configs"][0], "user": "v"}
    made = {n["id"]: n for n in with_definition(FLOWS, "shop", {**wanted, "name": "Renamed"})}
    was = {n["id"]: n for n in FLOWS}
    assert made["shop"] == {**was["shop"], "label": "Renamed"}
    assert made["db"] == {**was["db"], "user": "v"}
    assert (made["a"]["query"], made["new"]["z"], "b" in made) == ("SELECT 2", "shop", False)
    untouched = ("mail", "letter", "own", "broker", "certs", "times", "inner", "deeper", "listen", "other", "send")
    assert all(made[i] == was[i] for i in untouched)


def test_a_tab_that_is_gone_is_made_again_with_what_is_missing() -> None:
    left = [n for n in without_tab(FLOWS, "shop") if n["id"] not in ("certs", "inner")]
    assert {n["id"] for n in FLOWS} - {n["id"] for n in left} == {"shop", "own", "a", "b", "send", "certs", "inner"}
    made = with_definition(left, "shop", shop())
    again = {n["id"]: n for n in made}
    assert {n["id"] for n in made} == {n["id"] for n in FLOWS}
    assert (again["shop"]["disabled"], again["db"]["password"], again["own"]["password"]) == (True, "hush", "")
    found = definition_of(made, again["shop"])
    assert content_hash(found) == content_hash(shop())
    assert (found["configs"][0], found["outside"]) == (shop()["configs"][0], shop()["outside"])


def test_nodes_of_another_tab_are_never_taken_over() -> None:
    copied = apart(shop(), FLOWS, "copy")
    ids = {n["id"] for n in copied["nodes"]}
    assert not ids & {n["id"] for n in FLOWS}
    made = with_definition(FLOWS, "copy", copied)
    assert [n for n in made if n["id"] in {o["id"] for o in FLOWS}] == FLOWS
    assert apart(shop(), FLOWS, "shop") == shop()


def test_switching_touches_one_tab() -> None:
    off = with_disabled(FLOWS, "shop", disabled=True)
    assert [(n["id"], n.get("disabled")) for n in off if n["type"] == "tab"] == [("shop", True), ("mail", True)]
    assert [n for n in off if n["id"] != "shop"] == [n for n in FLOWS if n["id"] != "shop"]
    assert with_disabled(FLOWS, "mail", disabled=True) == FLOWS
    assert not info_of(off[0]).active
    assert version_of(off, off[0]) == version_of(FLOWS, FLOWS[0])


def test_private_tabs_and_what_was_made_for_them_go_together() -> None:
    private = {"id": "p", "type": "tab", "label": "reinstate replay: Shop"}
    made_for = {"id": "p-sub", "type": "subflow", "reinstate": "p"}
    flows = [*FLOWS, made_for, {"id": "p-in", "z": "p-sub"}, private, {"id": "p-n", "z": "p"}]
    assert is_private(private)
    assert without_tab(flows, "p") == FLOWS


def test_addresses_have_their_parameters_filled() -> None:
    assert address({"method": "post", "url": "orders/:id/x"}) == ("POST", "/orders/any/x")
    assert address({"url": "/a"}) == ("GET", "/a")
