"""The suites of an app at work: half of a run in a snapshot is looked at again, damage fails every look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from checks import suites
from checks.model import SuiteReport
from recovery import verification
from tests.checks.test_persisting import GREEN, fails, red
from tests.recovery.kiosk import Kiosk

pytestmark = pytest.mark.postgres


def looks(monkeypatch: pytest.MonkeyPatch, *reports: SuiteReport) -> list[str]:
    """What the looks from now on see; the snapshots they looked at are in the list."""
    coming: Iterator[SuiteReport] = iter(reports)
    seen: list[str] = []

    def run(*_: object, snapshot: str, **__: object) -> SuiteReport:
        seen.append(snapshot)
        return next(coming)

    monkeypatch.setattr(suites, "run", run)
    monkeypatch.setattr(verification, "LOOK_AGAIN_S", (0.0, 0.0, 0.0))
    return seen


def test_half_of_a_run_of_a_workflow_at_work_is_no_damage(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looks(monkeypatch, red(fails("a")), red(fails("b")))
    assert verification.standing(kiosk.open()).suites.passed
    assert len(set(seen)) == 2, "each look has a snapshot of its own"


def test_damage_fails_every_look(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looks(monkeypatch, *[red(fails("a", f"half {n}")) for n in range(4)])
    assert not verification.standing(kiosk.open()).suites.passed
    assert len(seen) == 4


def test_where_nothing_is_at_work_the_first_look_counts(
    kiosk: Kiosk, wrecked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = looks(monkeypatch, red(fails("a")), GREEN)
    assert not verification.verify(kiosk.open(), incident=wrecked).suites.passed
    assert len(seen) == 1
