"""What the supervisor decides, from what it sees. Pure."""

from __future__ import annotations

import pytest

from console.service import decide, settings
from console.service.decide import Action, Memory, Seen

UP, DOWN = Seen(alive=True), Seen(alive=False)


def test_what_runs_is_taken_over_once() -> None:
    first = decide.decide(UP, Memory(), 10.0)
    assert first.action is Action.ADOPT
    assert decide.decide(UP, first.memory, 10.5).action is Action.NOTHING


def test_what_is_missing_is_started_at_once() -> None:
    first = decide.decide(DOWN, Memory(), 10.0)
    assert (first.action, first.died) == (Action.START, False)
    assert decide.decide(UP, first.memory, 10.5).action is Action.NOTHING


def test_what_runs_with_other_settings_is_replaced() -> None:
    other = Seen(alive=True, same=False)
    assert decide.decide(other, Memory(), 1.0).action is Action.REPLACE
    assert decide.decide(other, Memory(since=0.0, known=True), 1.0).action is Action.REPLACE


def test_a_death_is_told_once_and_waits_its_pause() -> None:
    running = Memory(since=0.0, known=True)
    fallen = decide.decide(DOWN, running, 5.0)
    assert (fallen.died, fallen.action) == (True, Action.NOTHING)
    soon = decide.decide(DOWN, fallen.memory, 5.5)
    assert (soon.died, soon.action) == (False, Action.NOTHING)
    later = decide.decide(DOWN, fallen.memory, 6.0)
    assert (later.died, later.action) == (False, Action.START)


def test_the_pause_grows_to_its_limit_and_shrinks_after_a_steady_time() -> None:
    memory, now, pauses = Memory(since=0.0, known=True), 0.0, []
    for _ in range(8):
        fallen = decide.decide(DOWN, memory, now)
        pauses.append(fallen.memory.again - now)
        now = fallen.memory.again
        memory = decide.decide(DOWN, fallen.memory, now).memory
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    steady = decide.decide(DOWN, memory, now + decide.STEADY_S)
    assert steady.memory.again - (now + decide.STEADY_S) == 1


def test_somebody_else_may_start_it_meanwhile() -> None:
    fallen = decide.decide(DOWN, Memory(since=0.0, known=True), 5.0).memory
    assert decide.decide(UP, fallen, 5.2).action is Action.NOTHING


@pytest.mark.parametrize("names", [["pages", "server", "steward", "watcher-a", "watcher-b"], ["server"], []])
def test_who_begins_work_ends_before_those_who_do_it(names: list[str]) -> None:
    first, then = settings.order_of_ending(names)
    assert sorted([*first, *then]) == names
    assert set(then) <= {"server", "pages"}
