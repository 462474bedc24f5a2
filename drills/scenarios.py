"""The scenarios that a drill can play on the order desk: what is published, and the control that must stay quiet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drills.errors import DrillError


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One story. ``mode`` and ``negative_mode`` are modes of :mod:`drills.driver`: the fault, and a new version of the
    same ``workflow`` (its key in the catalogue) that does no harm. ``what`` tells a newcomer what happens."""

    key: str
    title: str
    mode: str
    negative_mode: str
    workflow: str
    what: str


_ALL = (
    Scenario(
        key="bad-version",
        title="A bad version of order intake",
        mode="bad",
        negative_mode="harmless",
        workflow="order-intake",
        what=(
            "Somebody publishes a new version of order intake. It charges wrong totals, takes some orders twice, takes "
            "goods from stock twice and puts hundreds of old orders on hold, while customers, payments and staff go on."
        ),
    ),
    Scenario(
        key="schedule-ran-twice",
        title="A schedule that books twice",
        mode="twice",
        negative_mode="twice-harmless",
        workflow="stock-sync",
        what=(
            "Somebody changes the stock sync so that deliveries stay open for some seconds after they were booked. The "
            "schedule's next runs book them again: the shop believes in stock that is not there, and goes on selling."
        ),
    ),
    Scenario(
        key="bulk-delete",
        title="A clean-up with a wrong filter",
        mode="delete",
        negative_mode="delete-harmless",
        workflow="tidy-up",
        what=(
            "Somebody shortens the filter of the clean-up of old cancelled orders. Instead of a few orders from two "
            "years ago it deletes hundreds, also recent ones that staff still work on, and leaves their items behind."
        ),
    ),
)

SCENARIOS: Final[Mapping[str, Scenario]] = {s.key: s for s in _ALL}
"""By key, in the order in which they are offered."""


def scenario(key: str) -> Scenario:
    """The scenario of that key. Raises ``DrillError`` naming those there are."""
    try:
        return SCENARIOS[key]
    except KeyError:
        raise DrillError(f"scenario {key}: there is none; choose one of {', '.join(SCENARIOS)}") from None
