"""The difference of two definitions, as a person reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from platforms.base import Entry, EntryKind, Node, Outline
from platforms.difference import compare, sentences


def node(name: str, kind: str = "set", *, sql: tuple[str, ...] = (), **parameters: Any) -> Node:
    return Node(name=name, kind=kind, parameters=parameters, sql=sql)


def outline(*nodes: Node, links: tuple[tuple[str, str], ...] = (), **changes: Any) -> Outline:
    base = Outline(name="Orders", entries=(), nodes=nodes, links=links)
    return replace(base, **changes)


def told(before: Outline, after: Outline) -> list[str]:
    return list(sentences(compare(before, after)))


def test_the_same_has_no_difference() -> None:
    one = outline(node("A", value=1, more={"x": [1, 2]}), links=(("A", "B"),))
    assert compare(one, one).empty
    assert told(one, one) == []


def test_parameters_are_named_by_dotted_path() -> None:
    before = outline(node("A", deep={"list": [1, {"x": "a"}]}, gone=True, same=0))
    after = outline(node("A", deep={"list": [1, {"x": "b"}, 3]}, same=0, new={"y": None, "z": False}))
    assert told(before, after) == [
        "node A:",
        "  deep.list.1.x: a -> b",
        "  deep.list.2: 3 (new)",
        "  gone: was True (gone)",
        "  new.z: False (new)",
    ]


def test_true_and_one_are_not_the_same() -> None:
    assert told(outline(node("A", x=1)), outline(node("A", x=True))) == ["node A:", "  x: 1 -> True"]


def test_sql_is_compared_by_lines_also_when_it_stands_on_one() -> None:
    old = "SELECT id, total FROM shop.orders WHERE id = $1 AND total > 0"
    new = "SELECT id, total FROM shop.orders WHERE id = $1"
    before, after = outline(node("Read", query=old, sql=(old,))), outline(node("Read", query=f"={new}", sql=(new,)))
    assert told(before, after) == [
        "node Read:",
        "  query:",
        "    - SELECT id, total",
        "    + =SELECT id, total",
        "      FROM shop.orders",
        "      WHERE id = $1",
        "    - AND total > 0",
    ]


def test_code_is_compared_by_lines_and_what_is_far_away_is_left_out() -> None:
    lines = [f"line {n}" for n in range(20)]
    changed = [*lines[:2], "other", *lines[3:18], "last", lines[19]]
    found = told(outline(node("Code", js="\n".join(lines))), outline(node("Code", js="\n".join(changed))))
    assert "    - line 2" in found
    assert "    + last" in found
    assert "      ..." in found
    assert not any("line 10" in line for line in found)


def test_nodes_added_removed_switched_off_and_of_another_kind() -> None:
    before = outline(node("A"), node("B", "code", x=1), node("C"))
    after = outline(replace(node("A"), disabled=True), replace(node("C"), kind="if"), node("D", "wait", x=2))
    assert told(before, after) == [
        "node added: D (wait)",
        "node removed: B (code)",
        "node A:",
        "  disabled: False -> True",
        "node C:",
        "  kind: set -> if",
    ]


def test_a_renamed_node_keeps_its_links_and_shows_what_else_changed() -> None:
    before = outline(node("In"), node("Read", "sql", x=1), node("Out", "code"), links=(("In", "Read"), ("Read", "Out")))
    same = outline(
        node("In"), node("Fetch", "sql", x=1), node("Out", "code"), links=(("In", "Fetch"), ("Fetch", "Out"))
    )
    assert told(before, same) == ["node Read is now called Fetch"]
    other = outline(
        node("In"), node("Fetch", "sql", x=2), node("Out", "code"), links=(("In", "Fetch"), ("Fetch", "Out"))
    )
    assert told(before, other) == ["node Read is now called Fetch", "  x: 1 -> 2"]


def test_links_entries_schedule_settings_name_and_credentials() -> None:
    hook = Entry(kind=EntryKind.WEBHOOK, node="In", method="POST", path="/webhook/a")
    clock = Entry(kind=EntryKind.SCHEDULE, node="Clock", schedule="0 * * * *")
    before = outline(
        replace(node("In"), credentials=("db",)), node("Clock"), links=(("In", "Out"),), entries=(hook, clock)
    )
    after = outline(
        replace(node("In"), credentials=("db2",)),
        node("Clock"),
        links=(("Clock", "Out"),),
        entries=(hook, replace(clock, schedule="5 * * * *")),
        settings={"timezone": "UTC"},
        name="Orders 2",
    )
    assert told(before, after) == [
        "name: 'Orders' is now 'Orders 2'",
        "entry added: schedule 5 * * * * (Clock)",
        "entry removed: schedule 0 * * * * (Clock)",
        "node In:",
        "  credential: was db (gone)",
        "  credential: db2 (new)",
        "link added: Clock -> Out",
        "link removed: In -> Out",
        "setting timezone: UTC (new)",
    ]
