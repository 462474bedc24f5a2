"""Ours and the rivals by turns in one run: what the machine does meanwhile, it does to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

Run = Callable[[], "Lap"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lap:
    """One measured operation. ``figure`` is in the benchmark's unit, seconds as a rule; ``more`` is shown beside it."""

    figure: float
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Watch:
    """Seconds of a block."""

    seconds: float = 0.0


@contextmanager
def timed() -> Iterator[Watch]:
    """Nothing counts but the block."""
    watch = Watch()
    begun = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - begun


def race(rounds: int, ours: Run, rivals: Sequence[Run | None] = ()) -> tuple[list[Lap], list[list[Lap]]]:
    """Run all in turn, ``rounds`` times; who begins changes from round to round. A rival that is ``None`` is missing:
    it has no laps."""
    runners = (ours, *rivals)
    laps: list[list[Lap]] = [[] for _ in runners]
    for number in range(rounds):
        order = [(number + i) % len(runners) for i in range(len(runners))]
        for which in order:
            run = runners[which]
            if run is not None:
                laps[which].append(run())
    return laps[0], laps[1:]
