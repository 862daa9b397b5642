"""Runs are found where something was planted, and nowhere in noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.statistics.baselines import baseline, scaled
from perfkit.analysis.statistics.shift_scan import (
    MIN_POINTS,
    MIN_RUN,
    Floats,
    Run,
    best_split,
    find_runs,
    measure,
    window_lengths,
)

HOURS = 60
SHORT = (30, 59, 120)
"""Buckets of captures of a minute or two."""
BUCKETS = 600
WIDTH_NS = 6 * 10**9
TIMES = np.arange(BUCKETS) * WIDTH_NS


def autocorrelated(rng: np.random.Generator, rho: float, spread: float, count: int) -> Floats:
    """Return noise in which a bucket remembers the share `rho` of the one before."""
    steps = rng.normal(0, spread * math.sqrt(1 - rho**2), count)
    values = np.empty(count)
    values[0] = rng.normal(0, spread)
    for at in range(1, count):
        values[at] = rho * values[at - 1] + steps[at]
    return values


def rates(rng: np.random.Generator, count: int) -> Iterator[tuple[str, Floats, Floats]]:
    """Yield requests per bucket: Poisson, at a load that wanders or does not."""
    for per_bucket in (3, 20, 1000):
        for rho, spread in ((0.0, 0.0), (0.6, 0.15), (0.9, 0.2), (0.97, 0.3)):
            load = np.exp(autocorrelated(rng, rho, spread, count)) if spread else 1.0
            counts = rng.poisson(per_bucket * np.ones(count) * load).astype(float)
            yield "rate", counts / 6, counts


def latencies(rng: np.random.Generator, count: int) -> Iterator[tuple[str, Floats, Floats]]:
    """Yield medians and 95th percentiles of lognormal durations, of few and many a bucket."""
    for entries in (10, 40, 200):
        for sigma in (0.4, 1.0, 1.6):
            for rho, spread in ((0.0, 0.0), (0.8, 0.2)):
                level = autocorrelated(rng, rho, spread, count)[:, None] if spread else 0.0
                durations = np.exp(rng.normal(17, sigma, (count, entries)) + level)
                for quantile in (0.5, 0.95):
                    value = np.quantile(durations, quantile, axis=1)
                    # Some buckets are too sparse to have a percentile at all.
                    kept = rng.random(count) < 0.9
                    yield "latency", value[kept], np.full(kept.sum(), float(entries))


def errors(rng: np.random.Generator, count: int) -> Iterator[tuple[str, Floats, Floats]]:
    for entries in (10, 60, 600):
        for ratio in (0.0005, 0.01, 0.1):
            seen = np.maximum(rng.poisson(entries, count), 1)
            yield "errors", rng.binomial(seen, ratio) / seen, seen.astype(float)


def resources(rng: np.random.Generator, count: int) -> Iterator[tuple[str, Floats, Floats]]:
    ones = np.ones(count)
    for rho in (0.0, 0.5, 0.9):
        yield "resource", 0.5 + autocorrelated(rng, rho, 0.1, count), ones
    yield "resource", rng.exponential(1.0, count), ones
    yield "resource", rng.standard_t(3, count), ones
    yield "resource", np.where(rng.random(count) < 0.02, 40.0, rng.random(count)), ones
    yield "resource", np.cumsum(rng.normal(0, 1, count)), ones
    yield "resource", rng.integers(10, 13, count).astype(float), ones


def runs_of(kind: str, values: Floats, observations: Floats) -> list[Run]:
    scale = scaled(kind, values, observations, WIDTH_NS)
    expected = baseline(TIMES[: len(values)], scale.values)
    return find_runs(scale.values - expected.course, scale.floor, 1)[0]


@pytest.mark.slow
def test_noise_raises_at_most_one_false_alarm_in_a_hundred_hours() -> None:
    rng = np.random.default_rng(20260101)
    hours, alarms = 0, []
    for _ in range(HOURS // 10):
        for source in (rates, latencies, errors, resources):
            for number, (kind, values, observations) in enumerate(source(rng, BUCKETS)):
                hours += 1
                alarms += [(source.__name__, number)] * len(runs_of(kind, values, observations))
    assert hours > 5 * HOURS
    assert len(alarms) <= hours / 100, alarms


@pytest.mark.slow
@pytest.mark.parametrize("count", SHORT)
def test_short_noise_raises_a_false_alarm_in_one_of_a_hundred_series_at_most(count: int) -> None:
    rng = np.random.default_rng(20260102)
    series, alarms = 0, []
    for _ in range(10):
        for source in (rates, latencies, errors, resources):
            for number, (kind, values, observations) in enumerate(source(rng, count)):
                if len(values) >= MIN_POINTS:
                    series += 1
                    alarms += [(source.__name__, number)] * bool(
                        runs_of(kind, values, observations)
                    )
    assert series > 600
    assert len(alarms) <= series / 100, alarms


@pytest.mark.slow
@pytest.mark.parametrize(("count", "most"), [(59, 6), (120, 3), (BUCKETS, 2)])
def test_a_walk_is_hardly_ever_a_shift(count: int, most: int) -> None:
    rng = np.random.default_rng(count)
    walks = [np.cumsum(rng.normal(0, 1, count)) for _ in range(100)]
    walks += [autocorrelated(rng, 0.99, 0.1, count) for _ in range(100)]
    alarms = [bool(runs_of("resource", one, np.ones(count))) for one in walks]
    # See the table in docs/performance.md.
    assert sum(alarms) <= most


@pytest.mark.parametrize("per_bucket", [3, 5])
def test_medians_of_few_raise_no_alarm_and_show_what_is_six_times_as_long(per_bucket: int) -> None:
    rng = np.random.default_rng(20260103)
    alarms, found = 0, 0
    for number in range(60):
        durations = np.exp(rng.normal(17, (0.4, 0.6, 1.6)[number % 3], (48, per_bucket)))
        values = np.median(durations, axis=1)
        observations = np.full(48, float(per_bucket))
        alarms += bool(runs_of("latency", values, observations))
        if number % 3 < 2:
            values[20:] *= 6
            runs = runs_of("latency", values, observations)
            found += any(abs(one.first - 20) <= 1 or abs(one.last - 19) <= 1 for one in runs)
    assert alarms == 0
    assert found >= 0.6 * 40


def stepped(count: int, at: int, factor: float, seed: int) -> Floats:
    """Return medians of 30 lognormal durations a bucket, `factor` times as long from `at` on."""
    rng = np.random.default_rng(seed)
    durations = np.exp(rng.normal(math.log(5e7), 0.4, (count, 30)))
    durations[at:] *= factor
    medians: Floats = np.median(durations, axis=1)
    return medians


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0, 6.0])
@pytest.mark.parametrize("count", SHORT)
def test_latency_that_steps_to_twice_as_much_or_more_is_found(count: int, factor: float) -> None:
    tries, found = 0, 0
    for share in (0.15, 0.33, 0.5, 0.68, 0.85):
        at = int(count * share)
        for seed in range(8):
            values = stepped(count, at, factor, seed)
            runs = runs_of("latency", values, np.full(count, 30.0))
            tries += 1
            # The run is what is before the step, or what is after it.
            found += any(abs(edge - at) <= 1 for run in runs for edge in (run.first, run.last + 1))
    # Of 30 buckets noise is not known well enough to be sure of each doubling.
    few = count == min(SHORT)
    assert found >= (0.55 if few and factor in (0.5, 2.0) else 0.85 if few else 0.95) * tries


@given(st.lists(st.floats(-50, 50), min_size=MIN_POINTS, max_size=40))
def test_the_split_explains_most_of_the_variance(values: list[float]) -> None:
    series = np.clip(values, *np.quantile(values, (0.02, 0.98)))
    first, last = best_split(np.array(values))

    def within(begin: int, end: int) -> float:
        inside, outside = series[begin:end], np.append(series[:begin], series[end:])
        return float(sum(((part - part.mean()) ** 2).sum() for part in (inside, outside)))

    count = len(values)
    windows = [
        (begin, begin + length)
        for length in range(MIN_RUN, count // 2 + 1)
        for begin in range(count - length + 1)
    ]
    least = min(within(*window) for window in windows)
    found = within(first, last + 1) if first >= 0 else float(((series - series.mean()) ** 2).sum())
    assert found == pytest.approx(least, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("factor", [3.0, 0.2])
@pytest.mark.parametrize("length", [5, 12, 60])
def test_a_planted_run_of_the_rate_is_found_where_it_is(factor: float, length: int) -> None:
    rng = np.random.default_rng(7)
    for begin in (50, 300, 500):
        rate = np.full(BUCKETS, 40.0)
        rate[begin : begin + length] *= factor
        counts = rng.poisson(rate).astype(float)
        (run,) = runs_of("rate", counts / 6, counts)
        assert run.up == (factor > 1)
        assert abs(run.first - begin) <= 1
        assert abs(run.last - (begin + length - 1)) <= 1


def test_a_planted_run_of_latency_is_found_in_noise_with_memory() -> None:
    rng = np.random.default_rng(8)
    value = np.exp(17 + autocorrelated(rng, 0.7, 0.15, BUCKETS))
    value[200:220] *= 4
    (run,) = runs_of("latency", value, np.full(BUCKETS, 50.0))
    assert (run.first, run.last, run.up) == (200, 219, True)


def test_two_spikes_are_two_runs() -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(0, 1, BUCKETS)
    values[100:110] += 9
    values[300:330] -= 7
    runs, _ = find_runs(values, 0.01, 1)
    assert [(run.first, run.last, run.up) for run in runs] == [(100, 109, True), (300, 329, False)]


@given(st.integers(0, BUCKETS - 1), st.floats(10, 1e9), st.integers(0, 10))
def test_one_noisy_bucket_is_no_run(at: int, size: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 1, BUCKETS)
    values[at] = size
    runs, _ = find_runs(values, 0.01, 1)
    assert runs == []


def test_a_run_has_at_least_three_buckets() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0, 1, BUCKETS)
    values[77:80] += 30
    (run,), _ = find_runs(values, 0.01, 1)
    assert (run.first, run.last) == (77, 79)
    assert run.last - run.first + 1 >= MIN_RUN


def slow_best(values: Floats, floor: float, run: Run | None = None) -> float:
    """Return the deviation of the clearest window by loops over windows.

    Beside the noise of all, or beside that of what is left with the level of a run mended.
    """
    lengths = window_lengths(len(values))
    even = values.copy()
    if run:
        inside = slice(run.first, run.last + 1)
        outside = np.append(values[: run.first], values[run.last + 1 :])
        even[inside] += np.median(outside) - np.median(values[inside])
    noise = measure(even, np.zeros(len(values), dtype=bool), floor, lengths)
    best = 0.0
    for length, growth in zip(lengths, noise.growth, strict=True):
        most = 4 * math.sqrt(length / 3)
        for begin in range(len(values) - length + 1):
            total = 0.0
            for value in values[begin : begin + length]:
                total += min(max((value - noise.base) / noise.single, -most), most)
            best = max(best, abs(total) / (growth * math.sqrt(length)))
    return best


@given(
    st.lists(st.floats(-50, 50, allow_nan=False), min_size=MIN_POINTS, max_size=60),
    st.floats(0.1, 5),
)
def test_runs_lie_apart_and_only_where_some_window_stands_out(
    values: list[float], floor: float
) -> None:
    series = np.array(values)
    runs, noise = find_runs(series, floor, 1)
    assert noise.single >= floor
    assert np.isfinite(noise.growth).all()
    for one, other in itertools.pairwise(runs):
        assert one.last < other.first
    for run in runs:
        assert 0 <= run.first <= run.last < len(series)
    if runs:
        # Beside the noise of all, or beside what is left with the level of a run mended.
        mended = [slow_best(series, floor, run) for run in runs]
        assert max(slow_best(series, floor), *mended) > 4


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e300])
def test_a_series_that_never_changes_has_no_runs(value: float) -> None:
    assert find_runs(np.full(100, value), 0.0, 1)[0] == []
