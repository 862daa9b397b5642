"""A trend of a series whose neighbours depend on each other is less sure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.statistics.shift_scan import Floats
from perfkit.analysis.statistics.trend import dependent, inflation, trend

SECOND = 10**9


def slow_inflation(left: list[float]) -> float:
    """Return Hamed and Rao's correction term by term."""
    count = len(left)
    ranks = [sum(b < a for b in left) + (1 + sum(b == a for b in left)) / 2 for a in left]
    mean = sum(ranks) / count
    power = sum((one - mean) ** 2 for one in ranks)
    total = 0.0
    for lag in range(1, count):
        together = sum((ranks[at] - mean) * (ranks[at + lag] - mean) for at in range(count - lag))
        if power and abs(together / power) > 1.96 / math.sqrt(count):
            weight = (count - lag) * (count - lag - 1) * (count - lag - 2)
            total += weight * together / power
    return max(1.0, 1 + 2 * total / (count * (count - 1) * (count - 2)))


@given(st.lists(st.integers(-5, 5).map(float), min_size=4, max_size=30))
def test_the_correction_is_the_sum_of_its_terms(left: list[float]) -> None:
    assert inflation(np.array(left)) == pytest.approx(slow_inflation(left), abs=1e-6)


def remembering(rng: np.random.Generator, memory: float, count: int) -> Floats:
    values = np.empty(count)
    values[0] = rng.normal() / math.sqrt(1 - memory**2)
    for at in range(1, count):
        values[at] = memory * values[at - 1] + rng.normal()
    return values


def test_noise_with_a_memory_has_a_trend_far_less_often_and_a_trend_is_still_one() -> None:
    rng = np.random.default_rng(3)
    times = np.arange(200) * SECOND
    plain = corrected = found = 0
    for _ in range(100):
        values = remembering(rng, 0.9, 200)
        one, other = trend(times, values), dependent(times, values)
        assert one is not None
        assert other is not None
        assert other.slope_per_s == one.slope_per_s
        assert other.p >= one.p
        plain, corrected = plain + (one.p < 0.001), corrected + (other.p < 0.001)
        rising = dependent(times, rng.normal(0, 1, 200) + np.linspace(0, 2, 200))
        found += rising is not None and rising.p < 0.001
    # See the table in docs/performance.md: 46 and 7 of 100 in 300 buckets.
    assert plain >= 30
    assert corrected <= 15
    assert found >= 95


def test_a_line_without_noise_is_a_trend_and_a_level_is_none() -> None:
    times = np.arange(40) * SECOND
    line, level = dependent(times, np.arange(40.0)), dependent(times, np.full(40, 3.0))
    assert line is not None
    assert level is not None
    assert line.p < 1e-9
    assert level.p == 1.0
    assert dependent(times[:1], np.array([1.0])) is None
