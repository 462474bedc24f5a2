"""What a run may have used when nobody says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from checks.versions import may_have_used, possible
from platforms.base import Run, RunState

AT = datetime(2026, 11, 22, tzinfo=UTC)


def run(number: int, version: str | None) -> Run:
    at = AT + timedelta(seconds=number)
    return Run(
        id=str(number), workflow_id="w", state=RunState.SUCCESS, started_at=at, stopped_at=at, version_hash=version
    )


@pytest.mark.parametrize(
    ("versions", "first", "last", "expected"),
    [
        (["a", None, "b"], None, None, {"1": {"a", "b"}}),
        (["a", None, None, "b"], None, None, {"1": {"a", "b"}, "2": {"a", "b"}}),
        (["a", None, "a"], None, None, {"1": set()}),
        ([None, "b"], None, None, {"0": set()}),
        ([None, "b"], "a", None, {"0": {"a", "b"}}),
        (["a", None], None, "b", {"1": {"a", "b"}}),
        (["a", None], None, "a", {"1": set()}),
        ([None], None, None, {"0": set()}),
        (["a", "b"], "x", "y", {}),
    ],
)
def test_the_known_neighbours_say_which_two_it_may_have_been(
    versions: list[str | None], first: str | None, last: str | None, expected: dict[str, set[str]]
) -> None:
    runs = [run(n, version) for n, version in enumerate(versions)]
    for order in (runs, runs[::-1]):
        assert possible(order, first=first, last=last) == expected


def test_a_run_whose_version_is_known_used_no_other() -> None:
    assert not may_have_used(run(1, "a"), frozenset({"b"}), {"1": frozenset({"a", "b"})})
    assert may_have_used(run(1, None), frozenset({"b"}), {"1": frozenset({"a", "b"})})
    assert not may_have_used(run(1, None), frozenset({"b"}), {})
