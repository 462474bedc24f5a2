"""The charts of the trend page: SVG as data, one picture each, in colours that colour-blind people tell apart.

Series differ in marker and line as well as in colour, and each chart has a text that says what it shows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E7781"
TICKS: Final = 8
GOALS: Final = ("contain_target_s", "rto_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """``source`` goes into an ``img``, ``alt`` is its text."""

    source: str
    alt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    column: str
    label: str
    colour: str
    marker: str
    line: str = "-"


TIMES: Final = (
    (
        Series(column="detect_s", label="detect", colour=BLUE, marker="o"),
        Series(column="contain_s", label="contain", colour=ORANGE, marker="s", line="--"),
    ),
    (
        Series(column="recover_s", label="recover", colour=GREEN, marker="^"),
        Series(column="total_s", label="in all", colour=BLUE, marker="D", line="--"),
    ),
)
SHARES: Final = (
    Series(column="precision", label="precision", colour=BLUE, marker="o"),
    Series(column="recall", label="recall", colour=ORANGE, marker="s", line="--"),
)


def of_scenario(table: pd.DataFrame) -> tuple[Chart, Chart]:
    """Times against their targets, and precision with recall, over the drills of one scenario (rows in order)."""
    return times(table), shares(table)


def times(table: pd.DataFrame) -> Chart:
    goals = {name: float(known.iloc[-1]) for name in GOALS if len(known := table[name].dropna())}
    contain, rto = (goals.get(name) for name in GOALS)
    figure, panels = _figure(2, height=5.6)
    for panel, series, target, name in (
        (panels[0], TIMES[0], contain, f"contain within {contain:.0f} s" if contain else ""),
        (panels[1], TIMES[1], rto, f"RTO {rto:.0f} s" if rto else ""),
    ):
        _draw(panel, table, series)
        if target is not None:
            panel.axhline(target, color=GREY, linestyle=":", linewidth=1.5, label=name)
        panel.set_ylabel("seconds")
        panel.set_ylim(bottom=0)
        _legend(panel)
    _dates(panels, table)
    said = "; ".join(_said(table, s) for pair in TIMES for s in pair)
    wanted = [f"{what} {s:.0f} s" for what, s in (("contain within", contain), ("in all within", rto)) if s]
    alt = f"Seconds over {len(table)} drills: {said}. Targets: {', '.join(wanted) or 'none'}. {_reds(table)}"
    return Chart(source=_svg(figure), alt=alt)


def shares(table: pd.DataFrame) -> Chart:
    figure, panels = _figure(1, height=2.8)
    _draw(panels[0], table, SHARES)
    panels[0].set_ylim(-0.05, 1.08)
    panels[0].set_ylabel("share")
    _legend(panels[0])
    _dates(panels, table)
    said = "; ".join(_said(table, s, share=True) for s in SHARES)
    return Chart(source=_svg(figure), alt=f"Reconstitution over {len(table)} drills: {said}. {_reds(table)}")


def _figure(panels: int, *, height: float) -> tuple[Any, Sequence[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, height), layout="constrained")
    return figure, [figure.add_subplot(panels, 1, n + 1) for n in range(panels)]


def _draw(panel: Any, table: pd.DataFrame, series: Sequence[Series]) -> None:
    at = range(len(table))
    for one in series:
        panel.plot(
            at, table[one.column].astype(float), color=one.colour, marker=one.marker, linestyle=one.line,
            linewidth=1.5, markersize=5, label=one.label,
        )  # fmt: skip
    red = [n for n in at if not table["passed"].iloc[n]]
    for n in red:
        panel.axvspan(n - 0.3, n + 0.3, color=RED, alpha=0.18, linewidth=0)
    if red:
        panel.plot(
            red, [0.0] * len(red), color=RED, marker="X", markersize=9, linestyle="none", label="red drill",
            clip_on=False, zorder=5,
        )  # fmt: skip
    panel.grid(axis="y", color="#e5e8eb")
    panel.spines[["top", "right"]].set_visible(False)


def _legend(panel: Any) -> None:
    panel.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=8, ncols=4, frameon=False)


def _dates(panels: Sequence[Any], table: pd.DataFrame) -> None:
    places = list(range(0, len(table), -(-len(table) // TICKS)))
    labels = [f"{table['at'].iloc[n]:%d %b %H:%M}" for n in places]
    for panel in panels:
        panel.set_xlim(-0.6, len(table) - 0.4)
        panel.set_xticks(places, labels if panel is panels[-1] else [""] * len(places), fontsize=8)


def _said(table: pd.DataFrame, one: Series, *, share: bool = False) -> str:
    known = table[one.column].dropna()
    if not len(known):
        return f"{one.label} never measured"
    newest, middle = float(known.iloc[-1]), float(known.median())
    return (
        f"{one.label} newest {newest:.1%}, median {middle:.1%}"
        if share
        else f"{one.label} newest {newest:.1f}, median {middle:.1f}"
    )


def _reds(table: pd.DataFrame) -> str:
    red = [str(d) for d in table[~table["passed"]]["drill"]]
    return f"Red drills, marked by an X: {', '.join(red)}." if red else "No drill was red."


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "reinstate"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"
