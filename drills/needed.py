"""What a drill of the order desk must reach. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

NEEDED: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "rows_damaged": ("at least 600", lambda n: n >= 600),
    "legit_edits_on_damaged_rows": ("at least 50", lambda n: n >= 50),
    "overlapping_run_pairs": ("at least 20", lambda n: n >= 20),
    "fields_compared": ("at least 500,000", lambda n: n >= 500_000),
    "legit_events_lost": ("0", lambda n: n == 0),
    "legit_edits_lost": ("0", lambda n: n == 0),
    "wrong_fields_after": ("0", lambda n: n == 0),
    "contain_s": ("at most 3", lambda s: s is not None and s <= 3.0),
    "live_version_is_known_good": ("True", lambda v: v is True),
    "active_set_restored": ("True", lambda v: v is True),
    "suites_passed": ("True", lambda v: v is True),
    "canary_passed": ("True", lambda v: v is True),
    "resumed": ("True", lambda v: v is True),
}

JUDGED: Final = ("fields_compared", "legit_events_lost", "legit_edits_lost", "wrong_fields_after", "resumed")
NEEDED_BY: Final[dict[str, dict[str, tuple[str, Callable[[Any], bool]]]]] = {
    "bad-version": NEEDED,
    "schedule-ran-twice": {
        "rows_damaged": ("at least 20", lambda n: n >= 20),
        **{name: NEEDED[name] for name in JUDGED},
    },
    "bulk-delete": {
        "rows_missing_before": ("at least 300", lambda n: n >= 300),
        **{name: NEEDED[name] for name in JUDGED},
    },
}
"""By scenario: how heavy it must be, and what its recovery must reach."""


def shortfalls(figures: Mapping[str, Any], *, scenario: str = "bad-version") -> list[str]:
    """Each figure that is missing or not reached, as a sentence."""
    found = []
    for name, (wanted, reached) in NEEDED_BY[scenario].items():
        if name not in figures:
            found.append(f"{name} was not measured")
        elif not reached(figures[name]):
            found.append(f"{name} is {figures[name]}, needed {wanted}")
    return found
