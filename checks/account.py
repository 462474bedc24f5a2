"""A verdict in sentences with their numbers, for people and for the report. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from checks.blame import Score, Verdict
from checks.model import Finding
from platforms.base import Run
from snapshots.journal.attribution import Attributed

OTHERS = 4
CANDIDATES = 10


def sentences(
    verdict: Verdict,
    *,
    findings: Sequence[Finding],
    point: str | None,
    good: str,
    bad_runs: int,
    overlapping: int,
    unsure: int,
    maybe: int,
    unknown: int,
) -> list[str]:
    """What speaks for the verdict and what does not, most telling first. ``point`` is the id of the recovery point
    the evidence starts from; counts are runs, except ``unsure``: transactions."""
    s = verdict.bad
    counts = ", ".join(f"{f.detector} {f.rows}" for f in findings)
    later = f" and {len(verdict.also)} later versions of it" if verdict.also else ""
    said = [
        f"{sum(f.rows for f in findings)} violating rows ({counts}); {verdict.total} of them traced "
        + (f"since point {point}" if point else "in the whole journal"),
        f"{verdict.explained} of {verdict.total} were written by runs of {s.author}{later}; {s.only} by nobody else",
        f"{s.guilty} of its {s.runs} writing runs wrote a violating row; all {bad_runs} runs of it count as bad",
        *(_compared(other) for other in verdict.others[:OTHERS]),
        *(f"{n} violating rows were written by {who}, which is no version" for who, n in verdict.outside.items()),
    ]
    if verdict.surely < verdict.explained:
        said.append(
            f"{verdict.explained - verdict.surely} of them may also be of runs that overlapped: untagged writes"
        )
    if overlapping:
        said.append(
            f"{overlapping} runs of other versions of {s.author.workflow} overlap bad runs and are not selected"
        )
    if unsure:
        said.append(f"{unsure} transactions of contained workflows belong to no single run and are not selected")
    if maybe:
        said.append(
            f"{maybe} runs of {s.author.workflow} do not tell their version and may have used it: they count as bad"
        )
    if unknown:
        said.append(f"{unknown} runs of {s.author.workflow} do not tell their version and are not selected")
    proof = f"verified with point {point}" if point else "the first one seen to run; no point verified it"
    return [*said, f"good is version {good[:12]}, {proof}"]


def overlapping(runs: Iterable[Run], bad: Collection[str]) -> int:
    """How many other runs were under way between the start of the first bad run and the end of the last."""
    spans = [(r.id in bad, r.started_at, r.stopped_at) for r in runs if r.started_at]
    starts = [start for is_bad, start, _ in spans if is_bad and start]
    if not starts:
        return 0
    first = min(starts)
    last = max(end or datetime.max.replace(tzinfo=first.tzinfo) for is_bad, _, end in spans if is_bad)
    return sum(
        not is_bad and start is not None and start <= last and (end is None or end >= first)
        for is_bad, start, end in spans
    )


def listed(one: Attributed) -> dict[str, Any]:
    """A write that no run explains surely, as the diagnosis lists it: where and when, never values."""
    tx = one.tx
    return {
        "xid": tx.xid,
        "actor": tx.actor,
        "at": tx.first_at.isoformat(),
        "rows": tx.rows,
        "tables": list(tx.tables),
        "attribution": one.attribution.value,
        "candidates": list(one.candidates[:CANDIDATES]),
        "evidence": one.evidence,
    }


def _compared(s: Score) -> str:
    return f"{s.author} wrote {s.rows} violating rows too ({s.only} alone), in {s.guilty} of its {s.runs} writing runs"
