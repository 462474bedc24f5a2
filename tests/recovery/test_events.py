"""Which events are replayed: each legitimate one, once, in order, and none that a good run handled already."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from platforms.base import RunState
from recovery.events import Received, choose, look_up

START = datetime(2026, 1, 1, tzinfo=UTC)


def received(run: str, key: str | None, at: int, *, selected: bool, state: RunState = RunState.SUCCESS) -> Received:
    return Received(
        workflow="intake", key=key, run_id=run, state=state, at=START + timedelta(seconds=at), selected=selected
    )


def test_an_event_delivered_twice_is_replayed_once_from_its_first_run() -> None:
    choice = choose([received("2", "e", 5, selected=True), received("1", "e", 1, selected=True)])
    assert [(e.key, e.run_id) for e in choice.events] == [("e", "1")]


def test_an_event_that_a_good_run_handled_is_not_replayed() -> None:
    failed = received("1", "e", 1, selected=True, state=RunState.ERROR)
    choice = choose([failed, received("2", "e", 2, selected=False)])
    assert choice.events == ()
    assert choice.handled_elsewhere == 1


def test_a_good_run_that_failed_does_not_count_as_handling() -> None:
    choice = choose([received("1", "e", 1, selected=True), received("2", "e", 2, selected=False, state=RunState.ERROR)])
    assert [e.key for e in choice.events] == ["e"]


def test_a_selected_run_without_key_is_named_not_dropped() -> None:
    choice = choose([received("1", None, 1, selected=True)])
    assert [r.run_id for r in choice.unreplayable] == ["1"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 9), st.booleans(), st.sampled_from(list(RunState))),
        max_size=30,
    )
)
def test_every_selected_event_is_replayed_once_or_was_handled(raw: list[tuple[str, int, bool, RunState]]) -> None:
    runs = [received(str(n), k, at, selected=s, state=state) for n, (k, at, s, state) in enumerate(raw)]
    choice = choose(runs)
    keys = [e.key for e in choice.events]
    assert len(keys) == len(set(keys))
    selected = {r.key for r in runs if r.selected}
    good = {r.key for r in runs if not r.selected and r.state is RunState.SUCCESS}
    assert set(keys) == selected - good
    times = {r.run_id: r.at for r in runs}
    assert [times[e.run_id] for e in choice.events] == sorted(times[e.run_id] for e in choice.events)


def test_look_up_follows_a_dotted_path_to_a_scalar() -> None:
    event = {"body": {"event_id": 7, "nested": {}}}
    assert look_up(event, "body.event_id") == "7"
    assert look_up(event, "body.nested") is None
    assert look_up(event, "body.missing.deeper") is None
    assert look_up(None, "body") is None
