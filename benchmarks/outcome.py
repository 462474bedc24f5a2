"""What a benchmark found, as a value, a table and a file. Pure but for the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One line of the table. All times are seconds.

    With a ``rival``, ``target`` is the most that ours may take as a share of the rival's time; without one it is the
    most seconds. ``figure`` says which of several runs counts. ``how`` says in words what was measured."""

    id: str
    target: float
    seconds: tuple[float, ...]
    figure: Literal["median", "worst"] = "median"
    rival: str | None = None
    rival_seconds: tuple[float, ...] = ()
    how: str = ""

    @property
    def ours_s(self) -> float:
        return median(self.seconds) if self.figure == "median" else max(self.seconds)

    @property
    def rival_s(self) -> float | None:
        return median(self.rival_seconds) if self.rival_seconds else None

    @property
    def ratio(self) -> float | None:
        return self.ours_s / self.rival_s if self.rival_s else None

    @property
    def holds(self) -> bool:
        """Whether the target is met. A rival that is missing proves nothing."""
        if self.rival is None:
            return self.ours_s <= self.target
        return self.ratio is not None and self.ratio <= self.target

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "rival": self.rival,
            "ratio": rounded(self.ratio),
            "target": self.target,
            "ours_s": rounded(self.ours_s),
            "rival_s": rounded(self.rival_s),
            "runs": len(self.seconds),
            "figure": self.figure,
            "seconds": [rounded(s) for s in self.seconds],
            "holds": self.holds,
            "how": self.how,
        }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


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


def document(rows: int, outcomes: Sequence[Outcome], machine: Machine) -> dict[str, Any]:
    """Everything that was measured in one run. ``rows``: of the app that was measured."""
    return {
        "rows": rows,
        "processors": machine.processors,
        "load_before": rounded(machine.load),
        "results": [o.document() for o in outcomes],
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the results; those of benchmarks that did not run this time stay as they were."""
    known: list[dict[str, Any]] = []
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8")).get("results", [])
    new = {r["id"] for r in found["results"]}
    merged = {**found, "results": [*(r for r in known if r["id"] not in new), *found["results"]]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def table(outcomes: Sequence[Outcome], machine: Machine) -> str:
    """For people, with what each line means below it."""
    head = ("benchmark", "ours", "rival", "ratio", "target", "runs", "")
    lines = [head, *(_cells(o) for o in outcomes)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [f"{o.id}: {o.how}" for o in outcomes if o.how]
    return "\n".join([*rows, "", *notes, machine.sentence()])


def _cells(outcome: Outcome) -> tuple[str, ...]:
    rival = "-" if outcome.rival is None else "missing" if outcome.rival_s is None else f"{outcome.rival_s:.2f} s"
    return (
        outcome.id,
        f"{outcome.ours_s:.2f} s ({outcome.figure})",
        rival,
        "-" if outcome.ratio is None else f"{outcome.ratio:.2f}",
        f"at most {outcome.target:g}{' s' if outcome.rival is None else ''}",
        str(len(outcome.seconds)),
        "holds" if outcome.holds else "MISSED",
    )
