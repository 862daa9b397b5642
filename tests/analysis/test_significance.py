from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.statistics.significance import adjusted, compare_runs, verdict
from perfkit.analysis.statistics.student import critical, two_sided_p

# Abramowitz and Stegun, table 26.10: two-sided 5 % and 1 %.
TABLE = [
    (1, 12.706, 63.657),
    (2, 4.303, 9.925),
    (5, 2.571, 4.032),
    (8, 2.306, 3.355),
    (10, 2.228, 3.169),
    (30, 2.042, 2.750),
    (120, 1.980, 2.617),
]


@pytest.mark.parametrize(("freedom", "five", "one"), TABLE)
def test_critical_values_are_those_of_the_published_table(
    freedom: int, five: float, one: float
) -> None:
    assert critical(0.05, freedom) == pytest.approx(five, abs=6e-4)
    assert critical(0.01, freedom) == pytest.approx(one, abs=6e-4)


def integrated(t: float, freedom: float) -> float:
    """Return the two-sided p by adding up the density under a substitution to a finite range."""
    angles = (np.arange(200_000) + 0.5) / 200_000
    low = math.atan(abs(t) / math.sqrt(freedom))
    x = low + angles * (math.pi / 2 - low)
    # With t = sqrt(freedom) tan(x), the density is proportional to cos(x) ** (freedom - 1).
    whole = angles * math.pi / 2
    power = freedom - 1
    beyond = (np.cos(x) ** power).mean() * (math.pi / 2 - low)
    return float(beyond / ((np.cos(whole) ** power).mean() * math.pi / 2))


@given(st.floats(-30, 30), st.floats(1, 400))
def test_p_is_the_area_under_the_density(t: float, freedom: float) -> None:
    assert two_sided_p(t, freedom) == pytest.approx(integrated(t, freedom), rel=1e-4, abs=1e-12)


@given(st.floats(1e-9, 0.9), st.floats(0.5, 1e6))
def test_the_critical_value_has_its_level(level: float, freedom: float) -> None:
    assert two_sided_p(critical(level, freedom), freedom) == pytest.approx(level, rel=1e-6)


def test_welch_as_in_a_published_example() -> None:
    # What R answers to t.test(extra ~ group, data = sleep).
    before = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    after = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    one = compare_runs(before, after, relative=False)
    assert one.change == pytest.approx(1.58)
    assert one.p == pytest.approx(0.07939414, abs=1e-8)


def slow_holm(p: list[float]) -> list[float]:
    order = sorted(range(len(p)), key=lambda i: p[i])
    result = [0.0] * len(p)
    reached = 0.0
    for rank, i in enumerate(order):
        reached = max(reached, min(1.0, p[i] * (len(p) - rank)))
        result[i] = reached
    return result


def slow_benjamini_hochberg(p: list[float]) -> list[float]:
    return [
        min(
            min(1.0, threshold * len(p) / sum(other <= threshold for other in p))
            for threshold in p
            if threshold >= own
        )
        for own in p
    ]


@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.04, 0.3, 1.0, math.nan]), max_size=12))
def test_corrections_equal_their_definitions(p: list[float]) -> None:
    tested = [value for value in p if value == value]
    for method, slow in (
        ("holm", slow_holm(tested)),
        ("benjamini-hochberg", slow_benjamini_hochberg(tested)),
    ):
        found = adjusted(np.array(p), method)
        assert list(np.isnan(found)) == [value != value for value in p]
        assert found[~np.isnan(found)] == pytest.approx(slow)


def test_a_change_has_to_be_sure_and_large() -> None:
    sure = compare_runs(np.array([100.0, 101, 99, 100]), np.array([103.0, 104, 102, 103]))
    assert sure.p < 0.01
    assert verdict(sure, sure.p) == "no evidence"  # 3 % is nothing to report
    assert verdict(sure, sure.p, minimum_effect=0.02) == "grew"
    assert verdict(sure, 0.5, minimum_effect=0.02) == "no evidence"
    back = compare_runs(np.array([200.0, 202, 198]), np.array([100.0, 101, 99]))
    assert verdict(back, back.p) == "shrank"
    assert back.change == pytest.approx(-0.5, abs=0.001)
    assert back.low < back.change < back.high


@pytest.mark.parametrize(
    ("before", "after"), [([], [1.0, 2.0]), ([1.0], [2.0]), ([math.nan, 1.0], [2.0, 3.0]), ([], [])]
)
def test_too_few_runs_are_not_tested(before: list[float], after: list[float]) -> None:
    one = compare_runs(np.array(before), np.array(after))
    assert math.isnan(one.p)
    assert verdict(one, one.p) == "not tested"


def test_runs_without_any_noise() -> None:
    same = compare_runs(np.array([2.0, 2.0]), np.array([2.0, 2.0]))
    assert (same.p, same.change, verdict(same, same.p)) == (1.0, 0.0, "no evidence")
    other = compare_runs(np.array([2.0, 2.0]), np.array([3.0, 3.0]))
    assert (other.p, verdict(other, other.p)) == (0.0, "grew")


def test_figures_of_zero_are_compared_as_they_are() -> None:
    one = compare_runs(np.array([0.0, 0.0, 0.0]), np.array([0.1, 0.12, 0.11]))
    assert not one.relative
    assert one.change == pytest.approx(0.11)
    assert verdict(one, one.p) == "grew"


def share_called(change: float, runs: int, *, trials: int, seed: int) -> float:
    """Return how often a change of a figure with 5 % noise between runs is called a regression."""
    random = np.random.default_rng(seed)
    called = 0
    for _ in range(trials):
        before, after = (factor * (1 + random.normal(0, 0.05, runs)) for factor in (1, 1 + change))
        one = compare_runs(before, after)
        called += verdict(one, one.p) == "grew"
    return called / trials


@pytest.mark.slow
def test_noise_is_seldom_called_a_regression_and_regressions_are_found() -> None:
    # At 2 of 100 the limit leaves room for the trials' own chance; `make bench` runs many more.
    assert share_called(0.0, 5, trials=3000, seed=1) <= 0.02
    assert share_called(0.16, 5, trials=1000, seed=2) >= 0.95
    assert share_called(0.10, 10, trials=1000, seed=3) >= 0.95
