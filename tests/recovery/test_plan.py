"""The plan is one frozen value: its hash says exactly what was approved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recovery.plan import Approval, Event, Mode, Plan, RunSelection, Step, TableEffect


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "recovery_id": "R1-INC-1",
        "incident_id": "INC-1",
        "app": "shop",
        "mode": Mode.BOTH,
        "policy": "refuse",
        "made_at": "2026-01-01T00:00:00+00:00",
        "point_id": "p1",
        "publications": (),
        "selection": (
            RunSelection(workflow="intake", role="wf", run_id="7", xids=(1, 2), why="bad-version", attribution="exact"),
        ),
        "carried_xids": (),
        "tables": ("shop.orders",),
        "effects": (TableEffect(table="shop.orders", delete=1, update=2, insert=0, merged=1),),
        "conflicts": {},
        "suspects": 0,
        "events": (Event(workflow="intake", key="e1", run_id="7", order=1),),
        "contained": ("intake",),
        "active_before": ("intake",),
        "steps": (Step(id="undo", kind="undo", title="Undo"),),
    }
    return Plan.model_validate({**values, **changes})


def test_plan_read_back_from_its_record_has_the_same_hash() -> None:
    made = plan()
    assert Plan.model_validate(made.model_dump(mode="json")).hash == made.hash


@given(st.sampled_from(["policy", "suspects", "carried_xids", "notes", "mode", "point_id", "tables"]))
def test_any_change_of_a_plan_changes_its_hash(field: str) -> None:
    other = {
        "policy": "keep-later",
        "suspects": 3,
        "carried_xids": (9,),
        "notes": ("x",),
        "mode": Mode.DATA,
        "point_id": None,
        "tables": ("shop.items",),
    }[field]
    assert plan(**{field: other}).hash != plan().hash


OLD_HASH = "3852fa13f4890b978f902eae82fd5d885149c25b1f4a63e7b8d4d0b77f1c6154"
"""Of this plan, as it was before plans had compensations."""


def test_plans_on_record_keep_their_hash() -> None:
    old = plan().model_dump(mode="json", exclude={"compensations"})
    assert Plan.model_validate(old).hash == plan().hash == OLD_HASH


def test_an_approval_covers_exactly_one_plan() -> None:
    approval = Approval(plan_hash=plan().hash, by="ada", at="2026-01-01T00:00:00+00:00", reason="")
    assert approval.covers(plan())
    assert not approval.covers(plan(suspects=1))


def test_a_plan_cannot_be_changed_after_it_was_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        plan().policy = "keep-later"  # type: ignore[misc]
