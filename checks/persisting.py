"""What of a suite's failures stays: over an app at work a snapshot may hold half of a run that is under way. Pure."""

from __future__ import annotations

from dataclasses import replace

from checks.model import ExpectationResult, SuiteReport


def persisting(first: SuiteReport, second: SuiteReport) -> SuiteReport:
    """``second``, with only those failures that ``first``, an earlier look, does not show to be passing: a failure is,
    when none of its rows failed before. Where not all rows are named, it counts."""
    failed = tuple(result for result in second.failed if not _passing(result, first))
    return replace(second, passed=second.passed or (bool(second.failed) and not failed), failed=failed)


def _passing(result: ExpectationResult, first: SuiteReport) -> bool:
    before = [r for r in first.failed if (r.suite, r.expectation) == (result.suite, result.expectation)]
    if not before:
        return True
    if not all(map(_complete, (result, *before))):
        return False
    return {key for r in before for key in r.keys}.isdisjoint(result.keys)


def _complete(result: ExpectationResult) -> bool:
    return bool(result.unexpected) and len(set(result.keys)) == result.unexpected
