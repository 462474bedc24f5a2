"""Which steps of undone runs are taken back, which are left to a person, and in which order: decided alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from catalog.models import Workflow
from platforms.base import RunState
from recovery import compensating
from recovery.compensating import Facts, World, decide
from recovery.plan import Compensation

REFUND = {
    "kind": "http",
    "url": "https://pay.example/charges/{charge}/refund",
    "body": {"amount": "{amount}"},
    "values": {"charge": "outputs.Charge.0.id", "amount": "event.body.total"},
}
EACH = {"kind": "http", "url": "https://pay.example/{id}", "values": {"id": "outputs.Charge.*.id"}}
MAIL = {"name": "mail", "inverse": "irreversible", "node": "Mail", "manual": "write to the customer"}
NODES = {
    "Write": frozenset({"Hook"}),
    "Charge": frozenset({"Write"}),
    "Mail": frozenset({"Charge"}),
    "Ship": frozenset[str](),
}
WORLD = World(incident="INC-1", nodes={"shop": NODES})


def shop(*steps: dict[str, Any]) -> Workflow:
    return Workflow.model_validate(
        {
            "key": "shop",
            "name": "Shop",
            "role": "wf",
            "owner": "ada",
            "deputy": "grace",
            "trigger": {"kind": "webhook"},
            "steps": steps or ({"name": "write", "inverse": "reversible", "node": "Write"}, charge(), MAIL),
        }
    )


def charge(**changes: Any) -> dict[str, Any]:
    return {"name": "charge", "inverse": "compensable", "node": "Charge", "compensation": REFUND, **changes}


def run(run_id: str = "7", **changes: Any) -> Facts:
    given: dict[str, Any] = {
        "workflow": "shop",
        "run_id": run_id,
        "state": RunState.SUCCESS,
        "started_at": datetime(2026, 11, 21, 3, int(run_id) % 60, tzinfo=UTC),
        "event": {"body": {"total": 20}},
        "outputs": {"Write": [{}], "Charge": [{"id": "ch-1"}], "Mail": [{}]},
    }
    return Facts(**{**given, **changes})


def brief(found: tuple[Compensation, ...]) -> list[tuple[str, str, str]]:
    return [(c.run_id, c.step, c.action) for c in found]


def test_the_latest_run_comes_first_and_of_each_run_its_last_step() -> None:
    found = decide([shop()], [run("8"), run("10"), run("9")], WORLD)
    assert brief(found.compensations) == [
        ("10", "mail", "manual"),
        ("10", "charge", "do"),
        ("9", "mail", "manual"),
        ("9", "charge", "do"),
        ("8", "mail", "manual"),
        ("8", "charge", "do"),
    ]
    assert found.refusals == ()


def test_runs_of_one_moment_go_by_their_number() -> None:
    same = datetime(2026, 11, 21, tzinfo=UTC)
    found = decide([shop(charge())], [run("9", started_at=same), run("10", started_at=same)], WORLD)
    assert [c.run_id for c in found.compensations] == ["10", "9"]


def test_the_plan_holds_no_value() -> None:
    [one] = decide([shop(charge())], [run()], WORLD).compensations
    assert one.values == {"charge": "***", "amount": "***"}
    assert "ch-1" not in one.model_dump_json()


def test_a_step_whose_node_returned_nothing_was_not_done() -> None:
    found = decide([shop()], [run(outputs={"Write": [{}]})], WORLD)
    assert found.compensations == ()


def test_a_step_without_a_node_was_done_by_every_run() -> None:
    values = {"charge": "run", "amount": "event.body.total"}
    step = charge(node=None, compensation={**REFUND, "values": values})
    found = decide([shop(step)], [run(outputs={})], WORLD)
    assert brief(found.compensations) == [("7", "charge", "do")]


@pytest.mark.parametrize("state", [RunState.ERROR, RunState.CANCELED, RunState.CRASHED])
def test_a_run_that_was_cut_off_may_have_got_further_than_it_recorded(state: RunState) -> None:
    cut = run(state=state, outputs={"Write": [{}]})
    found = decide([shop()], [cut], WORLD)
    # After a crash, the record may lack the charge itself; else the mail comes after it and cannot have begun.
    mailed = [("7", "mail", "manual")] if state is RunState.CRASHED else []
    assert brief(found.compensations) == [*mailed, ("7", "charge", "manual")]
    assert all("cut off" in c.why for c in found.compensations)
    assert found.refusals == ()  # what is unsure is for a person, as the catalogue says


def test_a_step_that_nothing_led_to_was_not_done() -> None:
    """An event that the first node refuses leaves no doubt about the charge."""
    assert decide([shop()], [run(state=RunState.ERROR, outputs={"Hook": [{}]})], WORLD).compensations == ()
    nothing_told = decide([shop()], [run(state=RunState.ERROR, outputs={})], WORLD)
    assert len(nothing_told.compensations) == 2


def test_a_step_before_a_recorded_one_was_passed_by() -> None:
    """A branch that was not taken: the steps are in order, and the run got further."""
    cut = run(state=RunState.ERROR, outputs={"Write": [{}], "Mail": [{}]})
    found = decide([shop()], [cut], WORLD)
    assert [(c.step, c.why) for c in found.compensations] == [("mail", "")]


def test_an_unsure_step_is_taken_back_where_the_other_side_knows_what_there_is() -> None:
    by_event = {**REFUND, "values": {"charge": "event.body.id", "amount": "event.body.total"}}
    step = charge(unsure="compensate", compensation=by_event)
    cut = run(state=RunState.ERROR, outputs={}, event={"body": {"id": "e1", "total": 3}})
    [one] = decide([shop(step)], [cut], WORLD).compensations
    assert one.action == "do"
    assert "cut off" in one.why


def test_a_missing_value_refuses_the_plan_when_the_step_is_critical() -> None:
    found = decide([shop(charge())], [run(outputs={"Charge": [{}]})], WORLD)
    [why] = found.refusals
    assert "'charge' of run 7 of shop" in why
    assert "no value for charge (outputs.Charge.0.id)" in why
    assert 'reinstate compensations settle shop 7 --step "charge"' in why


@pytest.mark.parametrize(
    "outputs", [{"Charge": []}, {"Charge": [{}]}, {"Charge": [{"id": None}]}, {"Charge": [{"id": ""}]}]
)
def test_a_missing_value_is_left_to_a_person_when_it_is_not(outputs: dict[str, Any]) -> None:
    found = decide([shop(charge(critical=False, manual="call the bank"))], [run(outputs=outputs)], WORLD)
    [one] = found.compensations
    assert (one.action, one.manual, found.refusals) == ("manual", "call the bank", ())


def test_nothing_is_assumed_when_the_platform_no_longer_has_the_run() -> None:
    gone = run(event=None, outputs=None)
    found = decide([shop()], [gone], WORLD)
    assert brief(found.compensations) == [("7", "mail", "manual"), ("7", "charge", "manual")]
    assert "does not tell" in found.compensations[0].why


def test_a_node_that_no_version_has_is_not_mistaken_for_a_step_not_done() -> None:
    found = decide([shop(charge(node="Chrage"))], [run()], WORLD)
    [one] = found.compensations
    assert one.action == "manual"
    assert "no node 'Chrage'" in one.why or "has a node 'Chrage'" in one.why


def test_one_inverse_for_each_item_the_last_item_first() -> None:
    items = {"Charge": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}
    found = decide([shop(charge(compensation=EACH))], [run(outputs=items)], WORLD).compensations
    assert [c.item for c in found] == [2, 1, 0]
    assert len({c.key for c in found}) == 3
    inverse = shop(charge(compensation=EACH)).steps[0].compensation
    assert inverse is not None
    assert [compensating.values(inverse, run(outputs=items), c.item) for c in found] == [
        {"id": "c"},
        {"id": "b"},
        {"id": "a"},
    ]


def test_a_step_done_several_times_is_not_taken_back_once() -> None:
    items = {"Charge": [{"id": "a"}, {"id": "b"}]}
    found = decide([shop(charge())], [run(outputs=items)], WORLD)
    assert "did it 2 times" in found.refusals[0]


def test_what_was_taken_back_is_not_taken_back_again() -> None:
    world = World(incident="INC-1", nodes={}, settled={("shop", "7", "charge", None): "taken back by R1"})
    [one] = decide([shop(charge())], [run()], world).compensations
    assert (one.action, one.why) == ("settled", "taken back by R1")


def test_a_person_settles_a_step_with_all_its_items() -> None:
    world = World(incident="INC-1", nodes={}, settled={("shop", "7", "charge", None): "by hand"})
    found = decide([shop(charge(compensation=EACH))], [run(outputs={"Charge": [{"id": "a"}, {"id": "b"}]})], world)
    assert {c.action for c in found.compensations} == {"settled"}


def test_a_platform_that_cannot_run_a_workflow_privately_leaves_it_to_a_person() -> None:
    inverse = {"kind": "workflow", "workflow": "refund", "values": {"id": "run"}}
    world = World(incident="INC-1", nodes={}, replays=False)
    found = decide([shop(charge(critical=False, compensation=inverse))], [run()], world)
    assert "while it is paused" in found.compensations[0].why


def test_the_key_is_one_over_incident_run_and_step() -> None:
    key = compensating.key("INC-1", "shop", "7", "charge")
    assert key == compensating.key("INC-1", "shop", "7", "charge")
    others = [("INC-2", "shop", "7", "charge"), ("INC-1", "shop", "8", "charge"), ("INC-1", "shop", "7", "mail")]
    assert key not in {compensating.key(*o) for o in others}
    assert key.isascii()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("outputs.Charge v1.2.0.id", "x"),
        ("outputs.Loop.1.n", 2),
        ("outputs.Loop.2.n", None),
        ("outputs.Loop.n", None),
        ("event.body.flag", True),
        ("event.body.items", None),
        ("event.body.empty", None),
        ("event.body", None),
    ],
)
def test_values_are_found_by_their_path(path: str, found: object) -> None:
    world = {
        "outputs": {"Charge v1.2": [{"id": "x"}], "Loop": [{"n": 1}, {"n": 2}]},
        "event": {"body": {"flag": True, "items": [1], "empty": ""}},
    }
    assert compensating.look_up(world, path) == found


def test_what_a_person_does_is_said_once_per_step() -> None:
    runs = [run(str(n)) for n in range(20, 28)]
    found = decide([shop(MAIL)], runs, WORLD).compensations
    assert compensating.by_hand(found) == ["mail of shop, run 20, 21, 22, 23, 24 and 3 more: write to the customer"]
