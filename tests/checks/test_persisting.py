"""What counts of a suite's failures over an app at work: the rows that fail at two looks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from checks.model import ExpectationResult, SuiteReport
from checks.persisting import persisting

GREEN = SuiteReport(passed=True, ran=3, failed=(), seconds=0.1, snapshot="s")


def fails(*keys: str, unexpected: int | None = None, suite: str = "orders", kind: str = "rows") -> ExpectationResult:
    return ExpectationResult(
        suite=suite,
        table=f"desk.{suite}",
        expectation=kind,
        success=False,
        unexpected=len(keys) if unexpected is None else unexpected,
        keys=tuple((key,) for key in keys),
    )


def red(*failed: ExpectationResult) -> SuiteReport:
    return replace(GREEN, passed=False, failed=failed)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (red(fails("a")), GREEN),
        (red(fails("a")), red(fails("b"))),
        (red(fails("a")), red(fails("a", suite="lines"))),
        (red(fails("a")), red(fails("a", kind="nulls"))),
        (red(fails("a"), fails("b")), red(fails("c"), fails("d", "e"))),
    ],
    ids=["gone", "other rows", "another suite", "another expectation", "all others"],
)
def test_what_failed_only_once_was_half_of_a_run(first: SuiteReport, second: SuiteReport) -> None:
    assert persisting(first, second).passed
    assert persisting(first, second).failed == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (red(fails("a")), red(fails("a"))),
        (red(fails("a", "b")), red(fails("b", "c"))),
        (red(fails("a", unexpected=30)), red(fails("b"))),
        (red(fails("a")), red(fails("b", unexpected=30))),
        (red(fails(unexpected=0)), red(fails(unexpected=0))),
        (red(fails("a"), fails("b")), red(fails("c"), fails("b"))),
    ],
    ids=["the same", "one of them", "not all named before", "not all named now", "no rows at all", "one expectation"],
)
def test_what_fails_twice_or_may_have_counts(first: SuiteReport, second: SuiteReport) -> None:
    report = persisting(first, second)
    assert not report.passed
    assert report.failed[-1] == second.failed[-1]
    assert (report.ran, report.seconds) == (second.ran, second.seconds)


def test_a_report_that_does_not_say_what_failed_does_not_pass() -> None:
    assert not persisting(red(fails("a")), red()).passed
