"""What counts in a Directus flow, and what is written to make it so."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platforms import directus_entry, directus_writing
from platforms.directus_canonical import hashes, labels
from platforms.directus_data import definition_of, version_of
from platforms.directus_secrets import MASK
from platforms.directus_writing import body, lacking, same_ids
from tests.platforms.directus_flows import FLOW, apply, definition, flow, id_of, operation

A_THEN_B = (operation("a", then="b"), operation("b", "request", url="https://x.example/", then="", other="a"))


def changed(**fields: Any) -> Any:
    return {**definition(*A_THEN_B), **fields}


def test_ids_positions_order_and_looks_do_not_count() -> None:
    ids = {id_of("a"): id_of("other a"), id_of("b"): id_of("other b")}
    moved = directus_writing.renamed(definition(*A_THEN_B), ids)
    moved["operations"] = [{**o, "position_x": 40} for o in reversed(moved["operations"])]
    looks = {"accountability": "all", "icon": "bolt", "color": "red", "description": "by whom?"}
    assert hashes({**moved, "id": "another", "settings": looks}) == hashes(definition(*A_THEN_B))


@pytest.mark.parametrize(
    "other",
    [
        definition(operation("a"), A_THEN_B[1]),
        definition({**A_THEN_B[0], "key": "c"}, A_THEN_B[1]),
        definition({**A_THEN_B[0], "type": "sleep"}, A_THEN_B[1]),
        definition(A_THEN_B[0], {**A_THEN_B[1], "options": {"url": "https://y.example/"}}),
        definition(A_THEN_B[0], {**A_THEN_B[1], "resolve": None, "reject": None}),
        changed(operation=id_of("b")),
        changed(operation=None),
        changed(trigger="schedule"),
        changed(options={"method": "GET"}),
    ],
)
def test_whatever_changes_behaviour_counts(other: dict[str, Any]) -> None:
    assert hashes(other)[0] != hashes(definition(*A_THEN_B))[0]


def test_name_and_logging_are_settings() -> None:
    content, setting = hashes(definition(*A_THEN_B))
    for other in (changed(name="Jiný"), changed(settings={"accountability": None})):
        assert hashes(other)[0] == content
        assert hashes(other)[1] != setting
    assert hashes(changed(settings={}))[1] == setting, "everything is logged unless it says otherwise"


def test_two_operations_of_one_key_stay_two() -> None:
    twice = [operation("a"), {**operation("b"), "key": "a"}]
    assert sorted(labels(twice).values()) == ["a", "a #2"]


def test_what_is_shown_is_what_directus_has() -> None:
    shown = definition_of(flow(*A_THEN_B))
    assert hashes(shown) == hashes(definition(*A_THEN_B))
    assert version_of(flow(*A_THEN_B)).workflow_id == FLOW


def keys(how_many: int) -> list[str]:
    return [f"krok_ž{n}" for n in range(how_many)]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Any forest: each operation follows at most one other by each of the two ways, and only later ones."""
    names = keys(draw(st.integers(0, 9)))
    order = list(range(len(names)))
    random.Random(draw(st.integers(0, 999))).shuffle(order)  # noqa: S311 - no secret
    ways: dict[str, dict[str, str]] = {name: {} for name in names}
    for way in ("then", "other"):
        free = set(order)
        for position, index in enumerate(order):
            later = [i for i in order[position + 1 :] if i in free]
            if later and draw(st.booleans()):
                chosen = draw(st.sampled_from(later))
                free.discard(chosen)
                ways[names[index]][way] = names[chosen]
    made = [operation(name, n=draw(st.integers(0, 2)), **ways[name]) for name in names]
    return definition(*made, name=draw(st.text(min_size=1, max_size=8)))


@given(graphs(), graphs(), st.sets(st.sampled_from(keys(9)), max_size=3))
@settings(max_examples=150, deadline=None)
def test_one_request_turns_any_flow_into_any_other_and_a_second_one_does_nothing(
    before: dict[str, Any], wanted: dict[str, Any], elsewhere: set[str]
) -> None:
    here = {**before, **before["settings"]}
    present = {o["id"] for o in before["operations"]}
    taken = {id_of(key) for key in elsewhere} - present
    renamed = same_ids(FLOW, wanted, here, taken)
    after = apply(here, body(renamed, here, {}))
    assert hashes(definition_of(after)) == hashes(wanted)
    assert {o["id"] for o in after["operations"]}.isdisjoint(taken)
    assert body(renamed, after, {})["operations"] == {}


def test_an_operation_keeps_its_id_by_key_when_its_own_is_not_there() -> None:
    stranger = {**operation("a", text="new"), "id": id_of("copied")}
    kept = same_ids(FLOW, definition(stranger), flow(operation("a")), set())
    assert [o["id"] for o in kept["operations"]] == [id_of("a")] == [kept["operation"]]


def test_the_secrets_of_the_live_flow_are_written_where_the_definition_has_none() -> None:
    live = operation("a", "request", url="https://x.example/", headers=[{"header": "X-Key", "value": "hush"}])
    wanted = definition_of(flow(live))
    assert "hush" not in str(wanted)
    wanted["operations"][0]["options"]["url"] = "https://y.example/"
    known = directus_writing.known_secrets(flow(live))
    written = body(wanted, flow(live), known)["operations"]["update"][0]["options"]
    assert written == {"url": "https://y.example/", "headers": [{"header": "X-Key", "value": "hush"}]}
    assert lacking(wanted, flow(live)) == []
    assert lacking(wanted, flow()) == [live["id"]]
    assert body(wanted, None, {})["operations"]["create"][0]["options"]["headers"][0]["value"] == MASK


def test_a_private_copy_is_the_content_under_other_ids_and_started_by_its_entry_alone() -> None:
    version = version_of(flow(*A_THEN_B))
    copy_id, entry_id = id_of("copy"), id_of("entry")
    copy = directus_entry.private_copy(version, copy_id)
    assert hashes({**copy, "trigger": "webhook", "options": {"method": "POST"}})[0] == version.hash
    assert {o["id"] for o in copy["operations"]}.isdisjoint(o["id"] for o in version.definition["operations"])
    entry = directus_entry.entry(copy_id, entry_id)
    assert entry["operations"][0]["options"]["flow"] == copy_id
    assert directus_entry.is_private(copy)
    assert directus_entry.is_private(entry)
    assert len(directus_entry.copy_name(version_of(flow(name="n" * 255)))) == 255


def test_the_copy_sees_the_original_event_and_the_key_of_this_replay() -> None:
    event = {"body": {"n": 1}, "headers": {"X-Reinstate-Event": "old", "x-shop": "north"}, "trigger": "$trigger"}
    assert directus_entry.payload({**event, "caller": "public"}, "new") == {
        "event": {"body": {"n": 1}, "query": {}, "headers": {"x-shop": "north", "x-reinstate-event": "new"}}
    }
    assert directus_entry.payload({"caller": "system"}, "k") == {"event": {"headers": {"x-reinstate-event": "k"}}}


@pytest.mark.parametrize(
    ("event", "public"),
    [
        ({"body": {}}, True),
        ({"body": {}, "caller": "public"}, True),
        ({"body": {}, "caller": "7f"}, False),
        ({"payload": {}}, False),
        ({"caller": "system"}, False),
    ],
)
def test_an_event_is_replayed_with_no_more_rights_than_nobody_had(event: dict[str, Any], public: bool) -> None:
    assert directus_entry.is_public(event) is public
