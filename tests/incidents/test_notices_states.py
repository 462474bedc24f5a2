"""Which entries are news: each state change once, and nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incidents.notices import states
from incidents.notices.states import Change, State
from ledger import kinds
from tests.incidents.notice_desk import (
    CAUSE,
    FINISHED,
    HASH,
    INCIDENT,
    OPENED,
    PATHS,
    PROVEN,
    RELAPSE,
    SHOWN,
    STARTED,
    UNPROVEN,
    Told,
    entries,
)

APPROVED: Told = (kinds.PLAN_APPROVED, {"plan_hash": HASH})
REJECTED: Told = (kinds.PLAN_REJECTED, {"plan_hash": HASH, "by": "ada", "reason": "not today"})
EXPIRED: Told = (kinds.PLAN_EXPIRED, {"plan_hash": HASH})
STOPPED: Told = (kinds.RECOVERY_STOPPED, {"reason": "a suite failed"})
ABANDONED: Told = (kinds.RECOVERY_ABANDONED, {"by": "reinstate", "reason": "planned again"})
CLOSED: Told = (kinds.INCIDENT_CLOSED, {"resolution": "resolved"})
JOINED: Told = (kinds.INCIDENT_JOINED, {"severity": "sev3", "title": "more"})
UNPLANNED: Told = (kinds.PLAN_REFUSED, {"mode": "both", "reason": "a gap"})
UNDIAGNOSED: Told = (kinds.INCIDENT_UNDIAGNOSED, {"why": "two versions fit"})


def changes(*told: Told) -> tuple[Change, ...]:
    return states.changes(entries(*told)).get(INCIDENT, ())


def seen(*told: Told) -> list[State]:
    return [c.state for c in changes(*told)]


@pytest.mark.parametrize("state", State)
def test_every_state_is_reached(state: State) -> None:
    assert seen(*PATHS[state])[-1] is state


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([OPENED, JOINED, PROVEN, JOINED], [State.NOTICED, State.CONTAINED]),
        ([OPENED, PROVEN, PROVEN, STARTED, PROVEN], [State.NOTICED, State.CONTAINED, State.RECOVERING]),
        ([OPENED, UNPROVEN, UNPROVEN, PROVEN], [State.NOTICED, State.NOT_CONTAINED, State.CONTAINED]),
        ([OPENED, PROVEN, STARTED, STARTED], [State.NOTICED, State.CONTAINED, State.RECOVERING]),
        ([OPENED, PROVEN, SHOWN, SHOWN], [State.NOTICED, State.CONTAINED, State.WAITING]),
        ([OPENED, PROVEN, SHOWN, REJECTED, STOPPED], [State.NOTICED, State.CONTAINED, State.WAITING, State.HELD]),
        ([OPENED, PROVEN, SHOWN, EXPIRED, EXPIRED], [State.NOTICED, State.CONTAINED, State.WAITING, State.HELD]),
        ([OPENED, PROVEN, UNDIAGNOSED, UNDIAGNOSED], [State.NOTICED, State.CONTAINED, State.HELD]),
        (
            [OPENED, PROVEN, STARTED, STOPPED, ABANDONED, STARTED],
            [State.NOTICED, State.CONTAINED, State.RECOVERING, State.HELD, State.RECOVERING],
        ),
        (
            [OPENED, PROVEN, STARTED, RELAPSE, ABANDONED, PROVEN, STOPPED],
            [State.NOTICED, State.CONTAINED, State.RECOVERING, State.RELAPSE, State.CONTAINED],
        ),
        (
            [OPENED, PROVEN, STARTED, UNPROVEN, STOPPED, PROVEN],
            [State.NOTICED, State.CONTAINED, State.RECOVERING, State.NOT_CONTAINED, State.HELD, State.CONTAINED],
        ),
        (
            [OPENED, PROVEN, STARTED, FINISHED, CLOSED],
            [State.NOTICED, State.CONTAINED, State.RECOVERING, State.RECOVERED],
        ),
        ([OPENED, PROVEN, CLOSED, PROVEN, STARTED], [State.NOTICED, State.CONTAINED, State.RECOVERED]),
        ([PROVEN, STARTED], []),
    ],
)
def test_each_change_once_and_nothing_else(told: list[Told], expected: list[State]) -> None:
    assert seen(*told) == expected


def test_why_it_is_held() -> None:
    assert changes(OPENED, PROVEN, SHOWN, REJECTED)[-1].why == "rejected"
    assert changes(OPENED, PROVEN, SHOWN, EXPIRED)[-1].why == "expired"
    assert changes(OPENED, PROVEN, STARTED, STOPPED)[-1].why == "stopped"
    assert changes(OPENED, PROVEN, UNDIAGNOSED)[-1].why == "undiagnosed"
    assert changes(OPENED, PROVEN, UNPLANNED)[-1].why == "unplanned"
    assert changes(OPENED, PROVEN, SHOWN, UNPLANNED)[-1].state is State.WAITING
    assert changes(OPENED, PROVEN, STARTED, ABANDONED)[-1].why == "abandoned"


def test_a_pause_is_called_proven_only_when_it_was() -> None:
    assert changes(OPENED, PROVEN, STARTED, STOPPED)[-1].proven
    assert not changes(OPENED, UNPROVEN, STARTED, STOPPED)[-1].proven
    assert not changes(OPENED, PROVEN, STARTED, RELAPSE)[-1].proven


def test_an_approved_plan_waits_no_more() -> None:
    assert not changes(OPENED, PROVEN, SHOWN)[-1].over
    assert changes(OPENED, PROVEN, SHOWN, APPROVED)[-1].over
    assert not changes(OPENED, PROVEN, SHOWN, (kinds.PLAN_APPROVED, {"plan_hash": "another"}))[-1].over


def test_an_old_plan_that_expires_says_nothing_of_the_new_one() -> None:
    newer = (kinds.PLAN_SHOWN, {"plan_hash": "cd" * 32})
    assert seen(OPENED, PROVEN, SHOWN, newer, EXPIRED)[-2:] == [State.WAITING, State.WAITING]


def test_the_severity_is_that_of_the_time() -> None:
    mild = (kinds.INCIDENT_OPENED, {"severity": "sev3"})
    worse = (kinds.INCIDENT_JOINED, {"severity": "sev1"})
    assert [c.severity.value for c in changes(mild, PROVEN, CAUSE, worse, STARTED)] == ["sev3", "sev1", "sev1"]


BODIES = st.dictionaries(
    st.sampled_from(["severity", "state", "resolution", "plan_hash", "workflows"]),
    st.sampled_from(["sev1", "resumed", "false-alarm", "handed-over", "data-restored", 3, None, ["a"], {"a": 1}]),
)


@given(st.lists(st.tuples(st.sampled_from([*states.KINDS, "other"]), BODIES), max_size=12))
def test_no_history_repeats_a_state_or_goes_on_after_the_end(told: list[tuple[str, dict[str, Any]]]) -> None:
    found = changes(*told)
    for before, after in pairwise(found):
        assert before.state is not after.state or before.plan_hash != after.plan_hash
    if any(kind == kinds.INCIDENT_OPENED for kind, _ in told):
        opened = next(i for i, (kind, _) in enumerate(told) if kind == kinds.INCIDENT_OPENED)
        assert found[0].state is State.NOTICED
        if any(kind == kinds.INCIDENT_CLOSED for kind, _ in told[opened:]):
            assert found[-1].state.final
