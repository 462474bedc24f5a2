"""The trends as one page that opens offline: what got worse, then charts and figures of each scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drills import score_files, trends
from drills.scorecard import Scorecard
from estate.files import write_private

if TYPE_CHECKING:
    import pandas as pd

FILE: Final = "trends.html"
ROWS: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """The page that was written, over how many drills, and what it says got worse."""

    file: Path
    drills: int
    regressions: tuple[trends.Regression, ...]


def publish(home: Path, out: Path | None = None) -> Published:
    """Write the page over all scorecards of ``home`` to ``out``, by default ``home/trends.html`` (0600)."""
    cards = score_files.listing(home)
    table = trends.frame(cards)
    worse = trends.regressions(table, {c.drill: c.reasons for c in cards})
    file = out or home / FILE
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, render(cards, table, worse))
    return Published(file=file, drills=len(cards), regressions=tuple(worse))


def render(cards: Sequence[Scorecard], table: pd.DataFrame, worse: Sequence[trends.Regression]) -> str:
    """The page as HTML, every text escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).with_name("templates")
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    reasons = {c.drill: c.reasons for c in cards}
    return environment.get_template("trends.html").render(
        drills=len(cards),
        newest=f"{table['at'].iloc[-1]:%Y-%m-%d %H:%M}" if len(table) else "",
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        regressions=worse,
        labels=[f.short for f in trends.FIGURES],
        parts=[part(str(key), rows.reset_index(drop=True), reasons) for key, rows in table.groupby("scenario")],
    )


def part(scenario: str, table: pd.DataFrame, reasons: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """One scenario's piece of the page."""
    from drills import trend_charts

    passed = int(table["passed"].sum())
    newest = table.iloc[::-1].head(ROWS)
    return {
        "scenario": scenario,
        "title": str(table["title"].iloc[-1]),
        "summary": f"{passed} of {len(table)} drills passed",
        "charts": trend_charts.of_scenario(table),
        "rows": [
            {
                "drill": row["drill"],
                "at": f"{row['at']:%Y-%m-%d %H:%M}",
                "passed": bool(row["passed"]),
                "figures": [cell(row[f.name], share=not f.name.endswith("_s")) for f in trends.FIGURES],
                "why": "; ".join(trends.shortened(r) for r in reasons.get(row["drill"], ())),
            }
            for _, row in newest.iterrows()
        ],
    }


def cell(value: float, *, share: bool) -> str:
    """A figure for the table; a dash where it was not measured."""
    if value != value:  # noqa: PLR0124 - not a number
        return "-"
    return f"{value:.1%}" if share else f"{value:.1f} s"
