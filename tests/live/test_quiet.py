"""The control that must stay quiet: a harmless new version and a burst of traffic are no incident."""

from __future__ import annotations

import pytest

from tests.live.wreck import Wreck

pytestmark = [pytest.mark.live, pytest.mark.controls]


def test_a_harmless_version_and_a_burst_are_not_contained(made: Wreck) -> None:
    assert made.alarm is None
    assert made.quiet_active == ["order-intake", "payment", "status-change", "stock-sync", "tidy-up"]
    assert made.quiet_verdict["wrong_fields_after"] == 0
    assert made.quiet_verdict["legit_events"] >= 200
