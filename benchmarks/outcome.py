"""What a benchmark found, as a value, a table and a file. Pure but for the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One line of the table. Figures are in ``unit``: seconds, as a rule.

    With a ``rival``, ``target`` is the most that ours may be as a share of the rival's; without one it is the most
    ours may be. ``speed`` turns the share around: ours against the rival in speed, and ``target`` is the least.
    ``figure`` says which of several runs counts. ``how`` says in words what was measured, ``more`` holds medians of
    what was measured beside it."""

    id: str
    target: float
    seconds: tuple[float, ...]
    figure: Literal["median", "worst"] = "median"
    rival: str | None = None
    rival_seconds: tuple[float, ...] = ()
    how: str = ""
    stretch: float | None = None
    unit: Literal["s", "MB"] = "s"
    speed: bool = False
    scale: str = ""
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def ours_s(self) -> float:
        return median(self.seconds) if self.figure == "median" else max(self.seconds)

    @property
    def rival_s(self) -> float | None:
        return median(self.rival_seconds) if self.rival_seconds else None

    @property
    def ratio(self) -> float | None:
        if not self.rival_s or not self.ours_s:
            return None
        return self.rival_s / self.ours_s if self.speed else self.ours_s / self.rival_s

    @property
    def holds(self) -> bool:
        """Whether the target is met. A rival that is missing proves nothing."""
        if self.rival is None:
            return self.ours_s <= self.target
        if self.ratio is None:
            return False
        return self.ratio >= self.target if self.speed else self.ratio <= self.target

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "rival": self.rival,
            "ratio": rounded(self.ratio),
            "target": self.target,
            "ours_s": rounded(self.ours_s),
            "rival_s": rounded(self.rival_s),
            "runs": len(self.seconds),
            "stretch": self.stretch,
            "at": "least" if self.speed else "most",
            "unit": self.unit,
            "figure": self.figure,
            "seconds": [rounded(s) for s in self.seconds],
            "rival_seconds": [rounded(s) for s in self.rival_seconds],
            "spread": rounded(spread(self.seconds)),
            "more": {name: rounded(value) for name, value in self.more.items()},
            "scale": self.scale,
            "holds": self.holds,
            "how": self.how,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """Ours at one table size, with the same number of changed rows as at the others."""

    id: str
    rows: int
    seconds: tuple[float, ...]

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "rows": self.rows, "ours_s": rounded(median(self.seconds)), "runs": len(self.seconds)}


def rounded(value: float | None) -> float | None:
    """Enough digits to compare, whatever the size."""
    return None if value is None else round(value, 3) if abs(value) >= 0.1 else float(f"{value:.3g}")


def spread(figures: Sequence[float]) -> float | None:
    """Largest distance between runs as a share of their median; ``None`` for one run."""
    middle = median(figures) if figures else 0.0
    return (max(figures) - min(figures)) / middle if len(figures) > 1 and middle else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where it was measured: processors, and how many processes wanted one in the minute before."""

    processors: int
    load: float

    @property
    def busy(self) -> bool:
        """Whether other work took part in what was measured."""
        return self.load > self.processors / 2

    def sentence(self) -> str:
        busy = "; it was busy with other work, so these figures are too high" if self.busy else ""
        return f"measured on {self.processors} processors, load {self.load:.1f} before the start{busy}"


def document(rows: int, outcomes: Sequence[Outcome], machine: Machine, growth: Sequence[Growth] = ()) -> dict[str, Any]:
    """Everything that was measured in one run. ``rows``: of the app that was measured."""
    return {
        "rows": rows,
        "processors": machine.processors,
        "load_before": rounded(machine.load),
        "results": [o.document() for o in outcomes],
        "growth": [g.document() for g in growth],
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the results; those of benchmarks that did not run this time stay as they were."""
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    merged = dict(found)
    for part in ("results", "growth"):
        new = {r["id"] for r in found[part]}
        merged[part] = [*(r for r in known.get(part, ()) if r["id"] not in new), *found[part]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def table(outcomes: Sequence[Outcome], machine: Machine, growth: Sequence[Growth] = ()) -> str:
    """For people, with what each line means below it."""
    head = ("benchmark", "ours", "rival", "ratio", "target", "stretch", "runs", "")
    notes = [f"{o.id}: {o.how}{_beside(o)}" for o in outcomes if o.how]
    return "\n".join(
        [*_aligned([head, *(_cells(o) for o in outcomes)]), "", *notes, *_grown(growth), machine.sentence()]
    )


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _cells(outcome: Outcome) -> tuple[str, ...]:
    rival = (
        "-" if outcome.rival is None else "missing" if outcome.rival_s is None else _amount(outcome, outcome.rival_s)
    )
    bound = f"at {'least' if outcome.speed else 'most'} {outcome.target:g}"
    return (
        outcome.id,
        f"{_amount(outcome, outcome.ours_s)} ({outcome.figure})",
        rival if outcome.rival is None else f"{rival} ({outcome.rival})",
        "-" if outcome.ratio is None else f"{outcome.ratio:.3g}",
        f"{bound}{f' {outcome.unit}' if outcome.rival is None else ''}",
        "-" if outcome.stretch is None else f"{outcome.stretch:g}",
        str(len(outcome.seconds)),
        "holds" if outcome.holds else "MISSED",
    )


def _amount(outcome: Outcome, value: float) -> str:
    return f"{value:.2f} {outcome.unit}" if value >= 1 or outcome.unit != "s" else f"{value * 1000:.3g} ms"


def _beside(outcome: Outcome) -> str:
    more = ", ".join(f"{name} {value:.3g}" for name, value in outcome.more.items())
    return f" ({more})" if more else ""


def _grown(growth: Sequence[Growth]) -> list[str]:
    if not growth:
        return []
    sizes = sorted({g.rows for g in growth})
    lines = [("the same change at", *(f"{rows:,} rows" for rows in sizes), "last / first")]
    for name in dict.fromkeys(g.id for g in growth):
        by_rows = {g.rows: median(g.seconds) for g in growth if g.id == name}
        first, last = by_rows[min(by_rows)], by_rows[max(by_rows)]
        cells = tuple(f"{by_rows[rows]:.3f} s" if rows in by_rows else "-" for rows in sizes)
        lines.append((name, *cells, f"{last / first:.2f}" if first else "-"))
    return ["", *_aligned(lines), ""]
