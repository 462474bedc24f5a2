"""Trends over the scorecards of a home: a table of figures per drill, and what got worse, in words. pandas; no files.

A figure of the newest drill of a scenario has *regressed* when it is worse than the median of the earlier green drills
of that scenario by more than ``MADS`` scaled median absolute deviations, and by more than ``FLOOR`` of the median, and
by more than the figure's own noise. Red drills never teach what is normal; fewer than ``ENOUGH`` green ones teach
nothing yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from drills.scorecard import Scorecard

if TYPE_CHECKING:
    import pandas as pd

MADS: Final = 4.0
SCALE: Final = 1.4826
"""Makes the median absolute deviation of normal noise its standard deviation."""
FLOOR: Final = 0.25
ENOUGH: Final = 3
REASON: Final = 160
WINDOW: Final = 20
"""So many earlier green drills are normal; older ones are history."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """What is followed. ``noise`` is a difference that never counts, in the figure's unit; ``higher_is_worse`` is
    false for shares."""

    name: str
    label: str
    short: str
    noise: float
    higher_is_worse: bool = True


GOALS: Final = ("rto_s", "rpo_s", "contain_target_s")
FIGURES: Final = (
    Figure(name="detect_s", label="time to detect", short="detect", noise=1.0),
    Figure(name="contain_s", label="time to contain", short="contain", noise=0.5),
    Figure(name="recover_s", label="time to recover", short="recover", noise=5.0),
    Figure(name="verify_s", label="time to verify", short="verify", noise=2.0),
    Figure(name="total_s", label="time in all", short="in all", noise=5.0),
    Figure(name="loss_s", label="work lost", short="lost", noise=0.0),
    Figure(name="precision", label="precision", short="precision", noise=0.0, higher_is_worse=False),
    Figure(name="recall", label="recall", short="recall", noise=0.0, higher_is_worse=False),
    Figure(name="replay_success", label="replay success", short="replay", noise=0.0, higher_is_worse=False),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """One figure that got worse. ``text`` is a sentence; ``figure`` is empty when the drill itself turned red."""

    scenario: str
    drill: str
    figure: str
    value: float | None
    usual: float | None
    text: str


def frame(cards: Sequence[Scorecard]) -> pd.DataFrame:
    """One row per drill, oldest first: ``drill``, ``scenario``, ``at`` (UTC), ``passed`` and the figures as numbers."""
    import pandas as pd

    columns = ["drill", "scenario", "title", "at", "passed", *GOALS, *(f.name for f in FIGURES)]
    rows = [{c: getattr(card, c) for c in columns} for card in cards]
    table = pd.DataFrame(rows, columns=columns)
    table["at"] = pd.to_datetime(table["at"], utc=True, format="ISO8601")
    for name in (*GOALS, *(f.name for f in FIGURES)):
        table[name] = pd.to_numeric(table[name])
    table["passed"] = table["passed"].astype(bool)
    return table.sort_values(["at", "drill"], ignore_index=True)


def regressions(table: pd.DataFrame, reasons: Mapping[str, Sequence[str]] | None = None) -> list[Regression]:
    """What is worse in the newest drill of each scenario. ``reasons`` by drill explain a red one."""
    found: list[Regression] = []
    for scenario, of_scenario in table.groupby("scenario", sort=True):
        ordered = of_scenario.reset_index(drop=True)
        newest, earlier = ordered.iloc[-1], ordered.iloc[:-1]
        green = earlier[earlier["passed"]].tail(WINDOW)
        if not newest["passed"]:
            given = (reasons or {}).get(str(newest["drill"]), ())
            why = "; ".join(shortened(g) for g in given) or "see its scorecard"
            before = "after a green one" if len(earlier) and earlier.iloc[-1]["passed"] else "not for the first time"
            if not len(earlier):
                before = "the first of its scenario"
            text = f"{scenario}: drill {newest['drill']} is red, {before}: {why}"
            name = str(newest["drill"])
            found.append(Regression(scenario=str(scenario), drill=name, figure="", value=None, usual=None, text=text))
        found += [r for f in FIGURES if (r := _worse(str(scenario), newest, green, f)) is not None]
    return found


def shortened(reason: str) -> str:
    """A reason among others; the scorecard has all of it."""
    return reason if len(reason) <= REASON else reason[:REASON].rstrip() + " ..."


def _worse(scenario: str, newest: pd.Series, green: pd.DataFrame, figure: Figure) -> Regression | None:
    import pandas as pd

    usual = green[figure.name].dropna()
    value = newest[figure.name]
    if len(usual) < ENOUGH or pd.isna(value):
        return None
    middle = float(usual.median())
    spread = SCALE * float((usual - middle).abs().median())
    excess = float(value) - middle if figure.higher_is_worse else middle - float(value)
    floor = FLOOR * abs(middle) if figure.higher_is_worse else 0.0
    if excess <= max(MADS * spread, floor, figure.noise):
        return None
    shown, was = (
        (f"{value:.1f} s", f"{middle:.1f} s") if figure.name.endswith("_s") else (f"{value:.1%}", f"{middle:.1%}")
    )
    text = f"{scenario}: {figure.label} was {shown} in drill {newest['drill']}, usual are {was} ({len(usual)} drills)"
    return Regression(
        scenario=scenario, drill=str(newest["drill"]), figure=figure.name, value=float(value), usual=middle, text=text
    )
