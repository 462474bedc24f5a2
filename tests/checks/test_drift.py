"""How far is too far: median and MAD with a floor."""

import math

import pytest

from checks.drift import baseline, drifted, median_error

USUAL = [100.0, 103, 97, 101, 99, 102, 98, 100, 104, 96]


def far(observed: float, history: list[float], *, floor: float = 25, error: float = 0.0) -> bool:
    return drifted(observed, baseline(history), percent_floor=floor, mads=6, sampling_error=error) is not None


def test_a_move_past_floor_and_spread_is_drift_in_both_directions() -> None:
    assert far(140, USUAL)
    assert far(60, USUAL)
    assert not far(120, USUAL)


def test_flat_history_tolerates_what_the_floor_allows() -> None:
    assert not far(124, [100.0] * 20)
    assert far(126, [100.0] * 20)


def test_noisy_history_needs_a_larger_move() -> None:
    noisy = [100.0, 150, 50, 170, 30, 120, 80, 160, 40, 100]
    assert not far(200, noisy)


def test_one_old_outlier_does_not_widen_the_limit() -> None:
    assert far(140, [*USUAL, 10_000.0])


@pytest.mark.parametrize("history", [[], [100.0] * 7, [0.0] * 50, [math.nan] * 50])
def test_too_little_history_or_none_at_all_never_fires(history: list[float]) -> None:
    assert not far(1e9, history)


def test_few_rows_scatter_more_than_buckets() -> None:
    assert far(140, USUAL, error=median_error([140.0, 141, 139, 140, 140, 141]))
    assert not far(140, USUAL, error=median_error([20.0, 300, 140, 90, 200]))
    assert median_error([1.0]) == math.inf


def test_the_drift_says_how_far() -> None:
    drift = drifted(150, baseline([100.0] * 10), percent_floor=25, mads=6)
    assert drift is not None
    assert drift.percent == pytest.approx(50)
    assert drift.limit == pytest.approx(25)
