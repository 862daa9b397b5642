"""A step is told from noise that wanders, by the likelihood of either."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.statistics.shift_scan import MIN_POINTS, MIN_RUN, Floats
from perfkit.analysis.statistics.step_test import (
    MAX_POINTS,
    covariances,
    explained,
    find_steps,
    likeliest_step,
    likeliest_steps,
)

Rng = np.random.Generator
SERIES = 300


def slow_gain(values: Floats) -> float:
    """Return the gain by least squares for each covariance and window, one after the other."""
    count = len(values)
    few = max(2, round(count / 10))
    ordered = sorted(values)
    even = np.clip(values, ordered[few], ordered[-1 - few])
    plain, stepped = [], []
    for covariance in covariances(count):
        inverse, (_, log_det) = np.linalg.inv(covariance), np.linalg.slogdet(covariance)
        level = np.ones((count, 1))
        log_det += math.log((level.T @ inverse @ level).item())

        def likelihood(
            design: Floats, inverse: Floats = inverse, log_det: float = log_det
        ) -> float:
            weights = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ even)
            left = even - design @ weights
            return float(-(count - 1) / 2 * math.log(left @ inverse @ left) - log_det / 2)

        plain.append(likelihood(level))
        for length in range(few + 1, count // 2 + 1):
            for begin in range(count - length + 1):
                window = np.zeros((count, 1))
                window[begin : begin + length] = 1.0
                stepped.append(likelihood(np.hstack([level, window])))
    return max(stepped) - max(plain)


@given(st.integers(0, 10**6), st.integers(7, 12), st.floats(0, 4))
def test_the_gain_is_that_of_least_squares_one_by_one(seed: int, count: int, size: float) -> None:
    values = np.random.default_rng(seed).normal(0, 1, count)
    values[count // 2 :] += size
    step = likeliest_step(values)
    assert step.gain == pytest.approx(slow_gain(values), rel=1e-6, abs=1e-6)
    assert MIN_RUN <= step.last - step.first + 1 <= count // 2


@given(st.integers(0, 10**6), st.integers(8, 20), st.integers(1, 5), st.floats(0, 9))
def test_what_one_step_explains_is_that_of_two_levels(
    seed: int, count: int, first: int, size: float
) -> None:
    values = np.random.default_rng(seed).normal(0, 1, count)
    values[first : first + 2] += size
    level = np.ones((count, 1))
    window = np.zeros((count, 1))
    window[first : first + 2] = 1.0
    likelihoods: dict[bool, list[float]] = {False: [], True: []}
    for covariance in covariances(count):
        inverse, (_, log_det) = np.linalg.inv(covariance), np.linalg.slogdet(covariance)
        log_det += math.log((level.T @ inverse @ level).item())
        for stepped, design in ((False, level), (True, np.hstack([level, window]))):
            weights = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ values)
            left = values - design @ weights
            likelihoods[stepped].append(
                float(-(count - 1) / 2 * math.log(left @ inverse @ left) - log_det / 2)
            )
    found = explained(values, first, first + 1)
    assert found.gain == pytest.approx(max(likelihoods[True]) - max(likelihoods[False]), abs=1e-6)
    memory = max(likelihoods[True]) - likelihoods[True][0]
    assert found.memory == pytest.approx(memory, abs=1e-6)


def test_many_series_at_once_are_as_one_by_one() -> None:
    series = np.random.default_rng(1).normal(0, 1, (20, 40))
    for one, several in zip(series, likeliest_steps(series), strict=True):
        alone = likeliest_step(one)
        assert (alone.first, alone.last) == (several.first, several.last)
        assert alone.gain == pytest.approx(several.gain)


def remembering(memory: float) -> Callable[[Rng, int], Floats]:
    def noise(rng: Rng, count: int) -> Floats:
        values = np.empty(count)
        values[0] = rng.normal() / math.sqrt(1 - memory**2)
        for at in range(1, count):
            values[at] = memory * values[at - 1] + rng.normal()
        return values

    return noise


def log_means(rng: Rng, count: int) -> Floats:
    """Return means of logarithms of as many Pareto durations as Poisson arrivals give."""
    return np.array([rng.exponential(1, max(3, rng.poisson(6))).mean() for _ in range(count)])


NOISE: dict[str, tuple[Callable[[Rng, int], Floats], int]] = {
    "normal": (lambda rng, count: rng.normal(0, 1, count), 1),
    "lognormal": (lambda rng, count: np.exp(rng.normal(0, 1, count)), 1),
    "Student's t, 2 degrees": (lambda rng, count: rng.standard_t(2, count), 1),
    "Cauchy": (lambda rng, count: rng.standard_cauchy(count), 1),
    "Poisson, 3": (lambda rng, count: np.sqrt(rng.poisson(3, count) + 0.375), 1),
    "log of Pareto, 6 a bucket": (log_means, 1),
    "memory 0.5": (remembering(0.5), 3),
    "memory 0.9": (remembering(0.9), 9),
    "memory 0.99": (remembering(0.99), 9),
    "walk": (lambda rng, count: np.cumsum(rng.normal(0, 1, count)), 9),
    "walk in noise": (
        lambda rng, count: np.cumsum(rng.normal(0, 0.4, count)) + rng.normal(0, 1, count),
        9,
    ),
    "a day's course": (
        lambda rng, count: (
            np.sin(np.arange(count) * 2 * math.pi / count + rng.uniform(0, 7))
            + rng.normal(0, 1, count)
        ),
        9,
    ),
}
"""Kinds of noise, and in how many of 300 series of any length a step may be seen: of what remembers
nothing in hardly any, of what remembers nearly all in one to two of a hundred."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("count", [30, MAX_POINTS - 1])
def test_noise_hardly_ever_has_a_step(kind: str, count: int) -> None:
    make, most = NOISE[kind]
    rng = np.random.default_rng(count)
    alarms = [bool(find_steps(make(rng, count), 1)) for _ in range(SERIES)]
    assert sum(alarms) <= most


@pytest.mark.parametrize(("size", "least"), [(3.0, 0.3), (5.0, 0.9)])
def test_a_step_is_found_where_it_is(size: float, least: float) -> None:
    rng = np.random.default_rng(4)
    found = 0
    for begin, end in itertools.product((24, 30), (40, 48)):
        for _ in range(20):
            values = rng.normal(0, 1, 48)
            values[begin:end] += size
            runs = find_steps(values, 1)
            found += bool(runs)
            for run in runs:
                edges = (0, 48, begin, end)
                assert min(abs(run.first - edge) for edge in edges) <= 2
                assert min(abs(run.last + 1 - edge) for edge in edges) <= 2
    assert found >= least * 80


def test_what_is_too_short_too_long_or_never_changes_has_no_step() -> None:
    step = np.repeat([0.0, 9.0], 200)
    assert find_steps(step[200 - MIN_POINTS // 2 : 200 + MIN_POINTS // 2 - 1], 1) == []
    assert find_steps(step, 1) == []
    assert find_steps(np.full(40, 7.0), 1) == []
    (run,) = find_steps(step[180:220], 1)
    assert (run.first, run.last) in ((0, 19), (20, 39))
