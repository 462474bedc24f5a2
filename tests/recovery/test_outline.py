"""The steps of a plan and the stages of a resume."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.outline import stages, steps
from recovery.plan import Mode, Step


def outline(mode: Mode, *, events: int = 3, carried: int = 1, **more: Any) -> tuple[Step, ...]:
    return steps(
        mode,
        published=["intake"],
        contained=["intake", "payment"],
        resume_order=[["intake"]],
        replayed=["intake"],
        canaries=["intake"],
        events=events,
        carried=carried,
        **more,
    )


def test_both_halves_are_verified_before_anything_resumes() -> None:
    ids = [s.id for s in outline(Mode.BOTH)]
    assert ids == [
        "contain", "publish:intake", "undo", "replay", "carry", "verify", "canary",
        "resume:1", "resume:2", "watch", "close",
    ]  # fmt: skip


def test_inverses_come_before_the_replay_and_held_events_after_the_resume() -> None:
    ids = [s.id for s in outline(Mode.BOTH, compensations=2, held=True)]
    assert ids == [
        "contain", "publish:intake", "undo", "compensate", "replay", "carry", "verify", "canary",
        "resume:1", "resume:2", "watch", "release", "close",
    ]  # fmt: skip
    for mode in (Mode.LOGIC, Mode.DATA):
        assert "release" not in {s.id for s in outline(mode, held=True)}, "while paused, events stay held"


@pytest.mark.parametrize("mode", [Mode.LOGIC, Mode.DATA])
def test_one_half_alone_never_resumes(mode: Mode) -> None:
    kinds = {s.kind for s in outline(mode)}
    assert not kinds & {"resume", "canary", "watch"}
    assert "verify" in kinds


def test_logic_alone_touches_no_rows_and_data_alone_no_definition() -> None:
    assert not {s.kind for s in outline(Mode.LOGIC)} & {"undo", "replay", "carry"}
    assert "publish" not in {s.kind for s in outline(Mode.DATA)}


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=4), st.sets(st.sampled_from("abcdefgh")))
def test_every_contained_workflow_is_in_exactly_one_stage(order: list[list[str]], contained: set[str]) -> None:
    seen = [w for stage in stages(order, contained) for w in stage]
    assert sorted(seen) == sorted(contained)


NAMES = "abcdef"
CALLS = st.dictionaries(st.sampled_from(NAMES), st.frozensets(st.sampled_from(NAMES)))


@given(st.lists(st.lists(st.sampled_from(NAMES), unique=True), max_size=4), st.sets(st.sampled_from(NAMES)), CALLS)
def test_what_is_called_comes_back_no_later_than_its_callers(
    order: list[list[str]], contained: set[str], calls: dict[str, frozenset[str]]
) -> None:
    found = stages(order, contained, calls)
    place = {w: n for n, stage in enumerate(found) for w in stage}
    assert sorted(place) == sorted(contained)
    assert sum(map(len, found)) == len(contained)
    late = {(k, c) for k in contained for c in calls.get(k, ()) if place.get(c, -1) > place[k]}
    assert not late


def test_only_what_is_called_is_put_forward() -> None:
    order = [["intake"], ["payment", "report"], ["count"]]
    calls = {"intake": frozenset({"report"}), "report": frozenset({"count"})}
    contained = ["count", "intake", "payment", "report"]
    assert stages(order, contained, calls) == [("intake", "report", "count"), ("payment",)]
    assert stages(order, contained) == [("intake",), ("payment", "report"), ("count",)]
