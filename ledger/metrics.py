"""How long things took, measured from the record, never typed in.

| metric | from | to |
| --- | --- | --- |
| ``detect_s`` | first bad commit (journal time, diagnosis) | detection |
| ``contain_s`` | detection | first proven pause |
| ``diagnose_s`` | detection | first diagnosis |
| ``recover_s`` | first recovery started | last recovery finished |
| ``verify_s`` | sum of the recorded times of verification steps | |
| ``total_s`` | first bad commit, else detection | last recovery that ended at work again, else incident closed |

A metric is ``None`` until both its ends are on record. The first bad commit carries the database's time, detection
that of the ledger's clock: where they disagree by more than the interval, it counts as 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ledger import kinds
from ledger.entry import Entry
from ledger.timeline import story

if TYPE_CHECKING:
    from ledger.ledger import Ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Seconds; see the module. ``data_loss_s`` is how much legitimate work was lost, in time, where a recovery says."""

    first_bad_at: datetime | None = None
    detected_at: datetime | None = None
    contained_at: datetime | None = None
    recovered_at: datetime | None = None
    detect_s: float | None = None
    contain_s: float | None = None
    diagnose_s: float | None = None
    recover_s: float | None = None
    verify_s: float | None = None
    total_s: float | None = None
    data_loss_s: float | None = None
    steps: dict[str, float] = field(default_factory=dict)
    """Recorded seconds by step, all attempts added."""


def metrics(ledger: Ledger, incident: str) -> Metrics:
    """The metrics of one incident so far."""
    return measure(story(ledger, incident))


def measure(entries: Iterable[Entry]) -> Metrics:
    """The same from entries in order. Pure."""
    entries = list(entries)
    detected = _detected_at(entries)
    bad = _first_bad_at(entries)
    contained = _first(entries, kinds.CONTAINED)
    diagnosed = _first(entries, {kinds.INCIDENT_DIAGNOSED})
    started = _first(entries, {kinds.RECOVERY_STARTED})
    finished = [e for e in entries if e.kind == kinds.RECOVERY_FINISHED]
    # One half alone ends in a paused state: that is the end of a recovery, not of the outage.
    recovered = _last(e for e in finished if e.body.get("state", kinds.RESUMED) == kinds.RESUMED)
    closed = _last(e for e in entries if e.kind == kinds.INCIDENT_CLOSED)
    steps, verify = _step_times(entries)
    losses = [_number(e.body.get("data_loss_s")) for e in finished]
    return Metrics(
        first_bad_at=bad,
        detected_at=detected,
        contained_at=contained,
        recovered_at=recovered,
        detect_s=_between(bad, detected),
        contain_s=_between(detected, contained),
        diagnose_s=_between(detected, diagnosed),
        recover_s=_between(started, _last(finished)),
        verify_s=verify,
        total_s=_between(bad or detected, recovered or closed),
        data_loss_s=next((loss for loss in reversed(losses) if loss is not None), None),
        steps=steps,
    )


def instant(value: object) -> datetime | None:
    """An ISO 8601 text with zone as a time in UTC, else ``None``."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None


def _detected_at(entries: list[Entry]) -> datetime | None:
    for kind in (kinds.INCIDENT_DETECTED, kinds.INCIDENT_OPENED):
        for entry in entries:
            if entry.kind == kind:
                return instant(entry.body.get("detected_at")) or entry.at
    return None


def _first_bad_at(entries: list[Entry]) -> datetime | None:
    """The newest diagnosis knows best."""
    for kind in (kinds.INCIDENT_DIAGNOSED, kinds.INCIDENT_OPENED):
        for entry in reversed(entries):
            if entry.kind == kind and (found := instant(entry.body.get("first_bad_at"))):
                return found
    return None


def _step_times(entries: list[Entry]) -> tuple[dict[str, float], float | None]:
    is_verify = {e.step for e in entries if e.kind == kinds.STEP_INTENT and e.body.get("kind") == "verify"}
    steps: dict[str, float] = {}
    verify: float | None = None
    for entry in entries:
        took = _number(entry.body.get("seconds"))
        if entry.kind != kinds.STEP_OUTCOME or entry.step is None or took is None:
            continue
        steps[entry.step] = round(steps.get(entry.step, 0.0) + took, 3)
        if entry.step in is_verify or entry.step.startswith("verify"):
            verify = round((verify or 0.0) + took, 3)
    return steps, verify


def _first(entries: list[Entry], wanted: Iterable[str]) -> datetime | None:
    return next((e.at for e in entries if e.kind in wanted), None)


def _last(entries: Iterable[Entry]) -> datetime | None:
    return next((e.at for e in reversed(list(entries))), None)


def _between(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None:
        return None
    return round(max(0.0, (end - start).total_seconds()), 3)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
