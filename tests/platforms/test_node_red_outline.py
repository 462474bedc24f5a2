"""A Node-RED definition read."""

from typing import Any

from platforms.base import EntryKind
from platforms.node_red_outline import labels, outline

AT = {"x": 1, "y": 1}
DEFINITION: dict[str, Any] = {
    "name": "Shop",
    "settings": {"info": "sells"},
    "nodes": [
        {
            "id": "h",
            "type": "http in",
            "name": "Hook",
            "url": "orders/:id",
            "method": "put",
            "wires": [["w", "c"]],
            **AT,
        },
        {"id": "t", "type": "inject", "name": "Tick", "repeat": "60", "wires": [["w"]], **AT},
        {"id": "n", "type": "inject", "crontab": "0 3 * * *", "wires": [[]], "d": True, **AT},
        {"id": "b", "type": "inject", "name": "Button", "wires": [[]], **AT},
        {"id": "m", "type": "mqtt in", "broker": "mq", "wires": [[]], **AT},
        {"id": "l", "type": "link in", "name": "Called", "links": ["far"], "wires": [[]], **AT},
        {"id": "w", "type": "postgrestor", "postgresDB": "db", "query": "SELECT {{x}}", "wires": [["c"]], **AT},
        {"id": "c", "type": "link call", "links": ["away"], "linkType": "static", "wires": [[]], **AT},
        {"id": "f", "type": "function", "name": "Think", "func": "const pg = global.get('pg');", "wires": [[]], **AT},
        {
            "id": "f2",
            "type": "function",
            "name": "Think",
            "func": "return {payload: msg.payload};",
            "wires": [[]],
            **AT,
        },
        {"id": "r", "type": "http request", "url": "https://api.test:8443/x", "wires": [[]], **AT},
        {"id": "s", "type": "subflow:sub", "wires": [["f"]], **AT},
        {"id": "k", "type": "comment", "name": "why", **AT},
        {"id": "g", "type": "group", "name": "all", **AT},
    ],
    "configs": [
        {"id": "db", "type": "postgresDB", "host": "db.test", "password": "(kept by Node-RED)"},
        {"id": "mq", "type": "mqtt-broker", "broker": "mq.test"},
    ],
    "subflows": [
        {"id": "sub", "type": "subflow", "name": "Times", "in": [{"wires": [{"id": "i"}]}]},
        {"id": "i", "type": "function", "name": "Think", "z": "sub", "func": "x", "wires": [["j"]], **AT},
        {"id": "j", "type": "exec", "z": "sub", "command": "rm", "wires": [[], []], **AT},
    ],
    "outside": {"far": "mail-tab", "away": "bill-tab"},
}


def test_entries_are_told_by_kind() -> None:
    found = {e.node: e for e in outline(DEFINITION, root="/hooks").entries}
    assert (found["Hook"].kind, found["Hook"].method, found["Hook"].path) == (
        EntryKind.WEBHOOK,
        "PUT",
        "/hooks/orders/:id",
    )
    assert (found["Tick"].kind, found["Tick"].schedule) == (EntryKind.SCHEDULE, "every 60 s")
    kinds = {name: entry.kind for name, entry in found.items() if name not in ("Hook", "Tick")}
    assert kinds == {"Button": EntryKind.MANUAL, "mqtt in": EntryKind.EVENT, "Called": EntryKind.CALL}, "disabled: none"


def test_nodes_are_told_with_what_they_touch() -> None:
    read = outline(DEFINITION)
    found = {n.name: n for n in read.nodes}
    assert "why" not in found
    assert "all" not in found
    assert (found["postgrestor"].sql, found["postgrestor"].credentials) == (("SELECT {{x}}",), ("db",))
    assert "mustache" in found["postgrestor"].unsure[0]
    assert (found["link call"].calls, found["Called"].calls) == (("bill-tab",), ())
    assert (found["http request"].hosts, found["mqtt in"].hosts, found["postgrestor"].hosts) == (
        ("api.test",),
        ("mq.test",),
        (),
    )
    assert "code" in found["Think"].unsure[0]
    assert found["Think (2)"].unsure == ()
    assert (found["Times"].kind, found["inject"].disabled) == ("subflow:Times", True)
    assert "program" in found["Times / exec"].unsure[0]
    assert "(kept" not in repr(read)


def test_links_follow_wires_and_lead_into_subflows() -> None:
    links = outline(DEFINITION).links
    assert links[:2] == (("Hook", "postgrestor"), ("Hook", "link call"))
    assert {("Times", "Think"), ("Times", "Times / Think"), ("Times / Think", "Times / exec")} <= set(links)


def test_parameters_are_without_place_and_ids() -> None:
    moved = {**DEFINITION, "nodes": [{**n, "x": 9, "y": 9} for n in DEFINITION["nodes"]]}
    assert outline(moved) == outline(DEFINITION)
    assert labels(DEFINITION)["f2"] == "Think (2)"
