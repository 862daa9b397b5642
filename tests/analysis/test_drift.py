"""What wanders does not drift, and what drifts is seen to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.statistics import drift
from perfkit.analysis.statistics.drift import MIN_POINTS, drift_p, kinds, largest_p
from perfkit.analysis.statistics.shift_scan import Floats
from perfkit.analysis.statistics.student import two_sided_p

MINUTE = 60


def slow_largest_p(values: Floats, course: Floats) -> float:
    """Return the largest p by the textbook: (X'C⁻¹X)⁻¹X'C⁻¹y for each covariance C."""
    count = len(values)
    design = np.column_stack([np.ones(count), course])
    tried = []
    for covariance in kinds(count):
        inverse = np.linalg.inv(covariance)
        gram = design.T @ inverse @ design
        fitted = np.linalg.solve(gram, design.T @ inverse @ values)
        left = values - design @ fitted
        variance = float(left @ inverse @ left) / (count - 2)
        error = math.sqrt(variance * np.linalg.inv(gram)[1, 1])
        # Harville's restricted likelihood, with the variance at its best.
        likelihood = -(
            (count - 2) * math.log(variance)
            + np.linalg.slogdet(covariance)[1]
            + np.linalg.slogdet(gram)[1]
        )
        tried.append((likelihood / 2, two_sided_p(fitted[1] / error, count - 2)))
    best = max(likelihood for likelihood, _ in tried)
    return max(p * min(1.0, math.exp(likelihood - best + 2.7)) for likelihood, p in tried)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(MIN_POINTS, 30), st.booleans())
def test_the_p_is_that_of_generalised_least_squares(seed: int, count: int, walks: bool) -> None:
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, count)
    course = np.sort(random.random(count))
    values = (np.cumsum(noise) if walks else noise) + random.normal(0, 5) * course
    assert largest_p(values, course) == pytest.approx(slow_largest_p(values, course), rel=1e-4)


def remembering(random: np.random.Generator, memory: float, count: int) -> Floats:
    values = random.normal(0, 1, count)
    for at in range(1, count):
        values[at] += memory * values[at - 1]
    return values


@pytest.mark.parametrize(("memory", "most"), [(0.0, 0), (0.5, 0), (0.9, 0), (0.98, 1), (1.0, 2)])
def test_what_wanders_does_not_drift(memory: float, most: int) -> None:
    random = np.random.default_rng(20260301)
    p = [drift_p(remembering(random, memory, MINUTE)) for _ in range(200)]
    assert sum(one is not None and one < 0.01 for one in p) <= most


@pytest.mark.parametrize("kind", ["noise", "steps", "coins", "starts"])
def test_a_leak_of_a_minute_drifts(kind: str) -> None:
    random = np.random.default_rng(20260302)
    found = 0
    for _ in range(20):
        steps = random.exponential(1.0, MINUTE)
        values = {
            "noise": np.arange(MINUTE) + random.normal(0, 3, MINUTE),
            "steps": np.cumsum(steps),
            "coins": 2.0 * np.cumsum(random.random(MINUTE) < 0.5),
            # It takes eighty seconds' worth at once while it starts.
            "starts": np.arange(MINUTE) + random.normal(0, 1, MINUTE),
        }[kind]
        values[3:] += 80.0 * (kind == "starts")
        p = drift_p(values)
        found += p is not None and p < 0.01
    assert found >= 19


def test_means_of_a_long_series_tell_the_same() -> None:
    random = np.random.default_rng(20260303)
    leak = np.arange(3600.0) + random.normal(0, 300, 3600)
    walks = [np.cumsum(random.normal(0, 1, 3600)) for _ in range(50)]
    p = drift_p(leak)
    assert p is not None
    assert p < 0.001
    wandering = [drift_p(one) for one in walks]
    assert sum(one is not None and one < 0.01 for one in wandering) <= 1


def test_a_level_a_step_and_little_say_nothing() -> None:
    assert drift_p(np.full(40, 3.0)) == 1.0
    assert drift_p(np.where(np.arange(60) < 25, 0.0, 1.0)) == pytest.approx(1.0, abs=0.9)
    assert drift_p(np.arange(MIN_POINTS - 1.0)) is None
    line = drift_p(np.arange(40.0))
    assert line is not None
    assert line < 1e-9
    assert drift_p(np.arange(40.0) * 1e200) == pytest.approx(line, rel=1e-3)


@pytest.mark.parametrize("count", [61, 119, 120, 1000])
def test_blocks_are_means_of_all_values(count: int) -> None:
    values = np.random.default_rng(count).normal(0, 1, count)
    blocks = drift._blocks(values)
    assert len(blocks) == drift.MAX_BLOCKS
    assert blocks.mean() == pytest.approx(values.mean(), abs=1.0 / math.sqrt(count))
    assert drift._blocks(np.arange(120.0)).tolist() == [0.5 + 2 * at for at in range(60)]
