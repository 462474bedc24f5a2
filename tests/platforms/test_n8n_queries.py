"""What n8n is asked for runs: its plain list leaves out those that are running."""

from datetime import UTC, datetime

import pytest

from platforms.base import RunState
from platforms.n8n_data import IN_FLIGHT, run_queries

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EACH = [{"status": "new"}, {"status": "waiting"}, {"status": "running"}]


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (IN_FLIGHT, [*EACH, {"status": "waiting"}]),
        (frozenset(RunState), [*EACH, {"startedAfter": NOON.isoformat()}]),
        (frozenset({RunState.ERROR}), [{"startedAfter": NOON.isoformat()}]),
    ],
    ids=["in flight", "all", "ended"],
)
def test_each_state_in_flight_is_asked_for(wanted: frozenset[RunState], asked: list[dict[str, str]]) -> None:
    assert run_queries(wanted, NOON) == asked


def test_without_a_limit_all_that_ended_are_asked_for() -> None:
    assert run_queries(frozenset({RunState.SUCCESS}), None) == [{}]
