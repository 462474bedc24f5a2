"""Which findings are acted upon. Pure.

A finding about rows is a fact: rows that break a rule exist, so one sight of enough of them confirms it. A drift is a
guess: it counts after several rounds in a row, or at once beside a fact about the same table. What has been acted upon
is not acted upon again until it was quiet for several rounds, so two detectors that take turns over the same damage
join one incident instead of opening one each, and a value at the edge of its limit does not open one a minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from checks.model import Finding

ROUNDS = 3
"""Rounds in a row that make a drift a fact, and quiet rounds that end an incident."""
DRIFTS = frozenset({"value-drift", "volume-drift"})


def confirmed(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings that call for containment on one sight: large enough, about rows, and meant to contain. Drifts
    are among them only beside such a finding about the same table."""
    serious = [f for f in findings if f.confirmed and f.contain]
    tables = {f.table for f in serious if f.kind not in DRIFTS}
    return tuple(f for f in serious if f.table in tables)


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What the watcher remembers between rounds. ``streaks`` counts rounds in a row per detector; ``acted`` holds the
    detectors of the running incident; ``quiet`` counts rounds without any of their findings."""

    streaks: Mapping[str, int] = field(default_factory=dict)
    acted: frozenset[str] = frozenset()
    quiet: int = 0
    since: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """``contain``: act now. ``joined``: belongs to the incident already acted upon. ``warn``: only say so."""

    contain: tuple[Finding, ...] = ()
    joined: tuple[Finding, ...] = ()
    warn: tuple[Finding, ...] = ()


def decide(memory: Memory, findings: Sequence[Finding], *, now: datetime, cooldown_s: float) -> tuple[Memory, Decision]:
    """One round. Invariant: between two decisions to contain lie at least ``cooldown_s`` seconds and :data:`ROUNDS`
    rounds without a finding that calls for it. Start from an empty ``Memory`` after a resume: a relapse is new."""
    streaks = {f.detector: memory.streaks.get(f.detector, 0) + 1 for f in findings if f.confirmed}
    at_once = {f.detector for f in confirmed(findings)}
    serious = tuple(
        f for f in findings if f.confirmed and f.contain and (f.detector in at_once or streaks[f.detector] >= ROUNDS)
    )
    warn = tuple(f for f in findings if f not in serious)
    over = _over(memory, now, cooldown_s)
    if serious and (not memory.acted or over):
        started = Memory(streaks=streaks, acted=frozenset(f.detector for f in serious), since=now)
        return started, Decision(contain=serious, warn=warn)
    if serious:
        joined = memory.acted | {f.detector for f in serious}
        return Memory(streaks=streaks, acted=joined, since=memory.since), Decision(joined=serious, warn=warn)
    return Memory(streaks=streaks, acted=memory.acted, quiet=memory.quiet + 1, since=memory.since), Decision(warn=warn)


def _over(memory: Memory, now: datetime, cooldown_s: float) -> bool:
    """Whether the incident acted upon has ended: the time is up and it has been quiet for long enough."""
    cooled = memory.since is None or now - memory.since >= timedelta(seconds=cooldown_s)
    return cooled and memory.quiet >= ROUNDS
