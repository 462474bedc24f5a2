"""What is paused with a workflow: what the catalogue says, who shares its role, who calls it."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.models import App
from platforms.base import Node, Outline
from recovery.dependents import called, called_first, closure
from tests.recovery.kiosk import PEOPLE, app_model


def app(*workflows: tuple[str, str, tuple[str, ...]]) -> App:
    """Workflows as ``(key, role, downstream)``."""
    made: list[dict[str, Any]] = [
        {
            "key": key,
            "name": key.capitalize(),
            "role": role,
            "trigger": {"kind": "manual"},
            "downstream": down,
            **PEOPLE,
        }
        for key, role, down in workflows
    ]
    return app_model(workflows=made, resume_order=[])


def outline(*calls: tuple[str, bool]) -> Outline:
    nodes = tuple(Node(name=n, kind="call", calls=(n,), disabled=off) for n, off in calls)
    return Outline(name="x", entries=(), nodes=nodes, links=())


A, B, C, D = (("a", "r1", ("b",)), ("b", "r2", ()), ("c", "r3", ()), ("d", "r4", ()))


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ({}, {"a": "", "b": "downstream of a"}),
        ({"c": frozenset({"b"})}, {"a": "", "b": "downstream of a", "c": "calls b"}),
        (
            {"c": frozenset({"b"}), "d": frozenset({"c"})},
            {"a": "", "b": "downstream of a", "c": "calls b", "d": "calls c"},
        ),
        ({"a": frozenset({"d"})}, {"a": "", "b": "downstream of a"}),
    ],
    ids=["catalogue", "caller", "caller-of-a-caller", "a-called-one-goes-on"],
)
def test_what_depends_is_paused_too_and_says_why(calls: dict[str, frozenset[str]], expected: dict[str, str]) -> None:
    assert closure(app(A, B, C, D), ["a"], calls) == expected


def test_workflows_that_share_a_role_stand_behind_one_fence() -> None:
    shop = app(("a", "one", ()), ("b", "one", ("c",)), ("c", "r3", ()), ("d", "r4", ()))
    found = closure(shop, ["a"])
    assert found == {"a": "", "b": "writes as one, like a", "c": "downstream of b"}
    assert shop.dependents(frozenset({"a"})) == found.keys()


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ({}, "abcd"),
        ({"a": "b"}, "bacd"),
        ({"a": "b", "b": "d", "c": "a"}, "dbac"),
        ({"a": "b", "b": "a"}, "bacd"),
        ({"a": "az", "z": "d"}, "abcd"),
    ],
)
def test_what_is_called_comes_back_before_its_callers(calls: dict[str, str], expected: str) -> None:
    read = {key: frozenset(called) for key, called in calls.items()}
    assert called_first("abcd", read) == list(expected)


def test_circles_come_to_an_end() -> None:
    around = {"a": frozenset({"c"}), "c": frozenset({"a"})}
    assert closure(app(A, B, C), ["c"], around).keys() == {"a", "b", "c"}


def test_calls_are_known_by_id_and_by_name_and_disabled_ones_do_not_count() -> None:
    keys = {"id-1": "a", "Bill": "b", "id-3": "c"}
    assert called(outline(("id-1", False), ("Bill", False), ("id-3", True), ("elsewhere", False)), keys) == {"a", "b"}
