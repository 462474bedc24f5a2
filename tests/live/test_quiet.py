"""The control that must stay quiet: a harmless new version and a burst of traffic are no incident."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from drills.scorecard import Control, Scorecard
from drills.scoring import CONTROL_EVENTS, score
from tests.live.wreck import Wreck

pytestmark = [pytest.mark.live, pytest.mark.controls]


def test_a_harmless_version_and_a_burst_are_not_contained(made: Wreck) -> None:
    assert made.control is not None
    assert made.control.acted is None  # nothing contained, no incident, every workflow still active
    assert made.control.wrong_fields == 0
    assert made.control.events >= CONTROL_EVENTS
    assert not any(code.startswith("control") for code in card(made, made.control).red)


def test_a_product_that_acts_upon_it_gets_a_red_scorecard(made: Wreck) -> None:
    assert made.alarmed is not None
    found = card(made, made.alarmed)
    assert "control-acted" in found.red
    # Orders are written by several workflows: whose rows the wolf saw first is chance.
    reason = found.reasons[found.red.index("control-acted")]
    named = re.search(r"it contained (.+) \(incident INC-", reason)
    assert named is not None, reason
    assert set(named[1].split(", ")) <= {"order-intake", "payment", "status-change", "stock-sync", "tidy-up"}


def card(made: Wreck, control: Control) -> Scorecard:
    return score(replace(made.observed(judged=False), control=control))
