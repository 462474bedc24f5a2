"""Directus' records of runs: their end, their event, their rows, and the content they used."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from platforms.base import RunState
from platforms.dated import Span, dated
from platforms.directus_data import detail_of, edit_of, key_of, run_of, state_of
from platforms.directus_history import Content, contents, fits, version_of_run
from tests.platforms.directus_flows import FLOW, flow, id_of, operation

START = datetime(2026, 11, 22, 10, tzinfo=UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def step(key: str, status: str = "resolve", /, **options: Any) -> dict[str, Any]:
    return {"operation": id_of(key), "key": key, "status": status, "options": options}


def revision(*steps: dict[str, Any], seconds: float = 0, **chain: Any) -> dict[str, Any]:
    data = {"steps": list(steps), "data": {"$trigger": {}, "$accountability": None, **chain}}
    return {"id": 7, "item": FLOW, "data": data, "activity": {"timestamp": at(seconds)}}


def test_a_run_began_as_early_as_its_operations_allow() -> None:
    plain, slow = run_of(revision(step("a"))), run_of(revision(step("a", milliseconds="1500"), step("b", code="x")))
    assert (plain.stopped_at, plain.state) == (START, RunState.SUCCESS)
    assert [START - r.started_at for r in (plain, slow) if r.started_at] == [
        timedelta(seconds=1),
        timedelta(seconds=12.5),
    ]


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([], RunState.SUCCESS),
        ([step("a")], RunState.SUCCESS),
        ([step("a", "reject"), step("b")], RunState.SUCCESS),
        ([step("a", "reject")], RunState.ERROR),
        ([step("a", "reject", filter={})], RunState.SUCCESS),
        ([step("a", "unknown")], RunState.ERROR),
    ],
    ids=["empty", "done", "handled", "failed", "condition", "unknown-operation"],
)
def test_a_run_failed_when_its_last_operation_did(steps: list[dict[str, Any]], state: RunState) -> None:
    assert state_of({"steps": steps}) is state


def test_a_detail_tells_event_outputs_rows_and_error() -> None:
    seen = {"body": {"n": 1}, "headers": {"authorization": "--redacted--", "x-shop": "north"}, "query": {}}
    detail = detail_of(
        revision(
            step("made", collection="orders", payload={"n": 1}),
            step("many", collection="orders", payload=[{"n": 1}]),
            step("changed", collection="orders", payload={"n": 2}, query={"filter": {}}),
            step("read", collection="orders", query={}),
            step("gone", collection="receipts", key=["3"]),
            step("told", recipient="x", collection="orders", item="9", payload={"a": 1}),
            step("failed", "reject", collection="orders", payload={"n": 3}),
            **{"$trigger": seen, "$accountability": {"user": None}},
            made=[17],
            many=[18, 19],
            changed=["5"],
            read=[{"id": 6, "n": 1}],
            gone="3",
            told=["n-1"],
            failed=[{"message": "no right"}],
        )
    )
    assert detail.event == {**seen, "headers": {"x-shop": "north"}, "caller": "public", "trigger": "$trigger"}
    assert detail.outputs["made"] == [{"key": 17}]
    assert detail.outputs["read"] == [{"id": 6, "n": 1}]
    assert "failed" not in detail.outputs
    assert detail.error == "failed: no right"
    assert detail.wrote == {
        "orders": {
            "I": frozenset({"17", "18", "19"}),
            "U": frozenset({"18", "19", "5"}),
            "D": frozenset(),
        },
        "receipts": {"D": frozenset({"3"})},
    }


def test_a_scheduled_run_has_an_event_without_content_and_a_listed_one_its_value() -> None:
    assert detail_of(revision(**{"$trigger": None})).event == {"caller": "system", "trigger": "$trigger"}
    assert detail_of(revision(**{"$trigger": [1]})).event == {"value": [1], "caller": "system", "trigger": "$trigger"}
    assert key_of(revision(**{"$trigger": [1]})) is None
    assert key_of(revision(**{"$trigger": {"headers": {"x-reinstate-event": "k"}}})) == "k"


def test_switching_on_is_no_edit() -> None:
    switched = {
        "action": "update",
        "timestamp": at(9),
        "user": {"email": "b@x"},
        "revisions": [{"delta": {"status": 1}}],
    }
    edited = {
        "action": "update",
        "timestamp": at(5),
        "user": {"email": "a@x"},
        "revisions": [{"delta": {"options": 1}}],
    }
    assert edit_of([switched, edited]) == ("a@x", START + timedelta(seconds=5))
    assert edit_of([]) == (None, None)


TOTAL = "{{ $trigger.body.total }}"


def writing(total: str, *more: dict[str, Any]) -> dict[str, Any]:
    first = operation("write", "item-create", then=more[0]["key"] if more else "", payload={"total": total})
    return flow(first, *more)


def ran(total: Any, *more: dict[str, Any], body: Any = None) -> dict[str, Any]:
    made = revision(
        step("write", payload={"total": total}), *more, **{"$trigger": {"body": body or {"total": 12}}}, write=[1]
    )
    return dict(made["data"])


@pytest.mark.parametrize(
    ("content", "record", "expected"),
    [
        (writing(TOTAL), ran(12), True),
        (writing(TOTAL), ran("1200"), False),
        (writing(f"{TOTAL}00"), ran("1200"), True),
        (writing(f"{TOTAL}00"), ran(12), False),
        (writing("{{ $trigger.body.list[0] }}"), ran("anything"), True),
        (writing("{{ $trigger.body.flag }}!"), ran("true!", body={"flag": True}), True),
        (writing("{{ $trigger.headers.authorization }}"), ran("--redacted--"), True),
        (writing(TOTAL, operation("b")), ran(12), False),
        (writing(TOTAL), ran(12, step("b")), False),
        (writing(TOTAL, operation("b", text="{{ $last }}")), ran(12, step("b", text=[1])), True),
        (writing(TOTAL, operation("b", text="x")), ran(12, step("b", text="y")), False),
    ],
)
def test_a_content_fits_when_it_gives_what_was_recorded(content: Any, record: Any, expected: bool) -> None:
    assert fits(content, record) is expected


def test_the_content_of_a_run_is_the_one_that_was_there_and_fits() -> None:
    old = Content(flow=writing(TOTAL), hash="old", since=None, until=START)
    new = Content(flow=writing(f"{TOTAL}00"), hash="new", since=START, until=None)
    same = Content(flow=writing(TOTAL), hash="same", since=START, until=None)
    just = (START - timedelta(seconds=0.5), START + timedelta(seconds=0.5))
    late = (START + timedelta(seconds=50), START + timedelta(seconds=51))
    assert version_of_run([old, new], ran(12), *just) == "old"
    assert version_of_run([old, new], ran("1200"), *just) == "new"
    assert version_of_run([old, same], ran(12), *just) is None, "two fit"
    assert version_of_run([old, same], ran(12), *late) == "same"
    assert version_of_run([old, new], ran(12), *late) is None, "none fits"
    assert version_of_run([old], ran(12), None, START) is None


def change(
    number: int, item: str, delta: dict[str, Any], *, parent: int | None = None, action: str = "update"
) -> dict[str, Any]:
    return {
        "id": number,
        "parent": parent,
        "collection": "directus_flows" if item == FLOW else "directus_operations",
        "item": item,
        "delta": delta,
        "activity": {"id": number, "action": action, "timestamp": at(number)},
    }


def test_contents_are_added_up_from_changes() -> None:
    now = writing("3")
    made = operation("write", "item-create", payload={"total": "1"})
    bare = {k: v for k, v in made.items() if k not in ("resolve", "reject")}
    history = [
        change(1, id_of("elsewhere"), {"key": "x"}, parent=99),
        change(2, made["id"], bare, parent=4, action="create"),
        change(4, FLOW, {"name": "Příjem", "trigger": "webhook", "options": {"method": "POST"}}, action="create"),
        change(5, FLOW, {"status": "active"}),
        change(6, id_of("b"), {"key": "b", "type": "log", "options": {}, "name": "B"}, parent=8, action="create"),
        change(7, made["id"], {"resolve": id_of("b")}, parent=8),
        change(8, FLOW, {"description": "with b"}),
        change(9, made["id"], {"options": {"payload": {"total": "3"}}, "resolve": None}, parent=10),
        change(10, FLOW, {"name": "Příjem"}),
    ]
    removal = {"id": 11, "item": id_of("b"), "timestamp": at(9.5)}
    found = contents(now, history, [removal])
    assert [[o["key"] for o in c.flow["operations"]] for c in found] == [["write"], ["write", "b"], ["write"]]
    assert [c.flow["operation"] for c in found] == [id_of("write")] * 3
    assert [(c.since, c.until) for c in found] == [
        (START + timedelta(seconds=2), START + timedelta(seconds=8)),
        (START + timedelta(seconds=6), START + timedelta(seconds=10)),
        (START + timedelta(seconds=9), None),
    ]


def test_a_history_that_does_not_end_at_what_is_there_tells_only_that() -> None:
    history = [change(4, FLOW, {"name": "Příjem", "trigger": "webhook"}, action="create")]
    found = contents(writing("3"), history, [])
    assert [(c.since, c.until) for c in found] == [(START + timedelta(seconds=4), None)]
    assert contents(writing("3"), [], [])[0].since is None


def test_a_run_whose_start_is_an_estimate_is_dated_only_when_all_of_it_lies_in_one_span() -> None:
    run = run_of(revision(step("a"), seconds=0.5))
    old = Span(workflow_id=FLOW, hash="old", not_before=None, since=START - timedelta(hours=1), until=START)
    assert dated(run, {FLOW: [old]}).version_hash == "old"
    assert dated(run, {FLOW: [old]}, whole=True).version_hash is None
    assert dated(run, {FLOW: [replace(old, until=None)]}, whole=True).version_hash == "old"


def test_a_flow_made_again_begins_anew() -> None:
    again = {"name": "Příjem", "trigger": "webhook", "options": {"method": "POST"}}
    first, other = operation("write", "item-create", payload={"total": "1"}), operation("old")
    history = [
        change(1, other["id"], other, parent=3, action="create"),
        change(2, first["id"], first, parent=3, action="create"),
        change(3, FLOW, again, action="create"),
        change(6, first["id"], first, parent=7, action="create"),
        change(7, FLOW, again, action="create"),
    ]
    found = contents(writing("1"), history, [])
    assert [len(c.flow["operations"]) for c in found] == [2, 1]
    assert [c.until is None for c in found] == [False, True]
