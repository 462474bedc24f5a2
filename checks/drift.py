"""When a number has moved too far from its history: median and MAD with a percent floor. Pure.

Standard scores fail on flat history (no spread: everything is far) and on history that holds the outlier itself.
The median absolute deviation withstands outliers; the floor says how small a move never matters; the window under test
and past incidents are kept out of the history by the caller. Hampel's identifier with the usual factor 1.4826
(Leys et al., 2013, doi:10.1016/j.jesp.2013.03.013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CONSISTENT = 1.4826
"""MAD to standard deviation, for a normal distribution."""
MEDIAN_ERROR = 1.2533
"""Standard error of a median to that of a mean, for a normal distribution."""
MIN_BUCKETS = 8
"""Fewer buckets of history say nothing about what is usual."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """What is usual. ``spread`` is the robust standard deviation between buckets."""

    center: float
    spread: float
    buckets: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """``observed`` lies farther than ``limit`` from the baseline's center."""

    observed: float
    baseline: Baseline
    limit: float

    @property
    def percent(self) -> float:
        return 100.0 * (self.observed - self.baseline.center) / abs(self.baseline.center)


def baseline(history: Sequence[float]) -> Baseline | None:
    """The baseline of one number per bucket; ``None`` when there is too little history, or nothing ever happened."""
    usable = [x for x in history if math.isfinite(x)]
    if len(usable) < MIN_BUCKETS:
        return None
    center = median(usable)
    if center == 0:
        return None  # a percentage of nothing is nothing: any move would count
    return Baseline(center=center, spread=CONSISTENT * median(abs(x - center) for x in usable), buckets=len(usable))


def drifted(
    observed: float, usual: Baseline | None, *, percent_floor: float, mads: float, sampling_error: float = 0.0
) -> Drift | None:
    """The drift, if there is one. ``sampling_error`` is the standard error of ``observed`` itself: few rows scatter
    more than whole buckets do."""
    if usual is None or not math.isfinite(observed):
        return None
    limit = max(abs(usual.center) * percent_floor / 100.0, mads * max(usual.spread, sampling_error))
    return Drift(observed=observed, baseline=usual, limit=limit) if abs(observed - usual.center) > limit else None


def median_error(values: Sequence[float]) -> float:
    """The standard error of the median of ``values``, estimated robustly."""
    if len(values) < 2:
        return math.inf
    center = median(values)
    return MEDIAN_ERROR * CONSISTENT * median(abs(x - center) for x in values) / math.sqrt(len(values))
