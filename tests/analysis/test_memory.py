from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.statistics.memory import inflation, memory
from perfkit.analysis.statistics.significance import LEVEL, compare_runs


@given(st.floats(0.01, 0.8), st.integers(2, 30))
def test_inflation_is_that_of_the_whole_matrix(correlation: float, count: int) -> None:
    matrix = np.array([[correlation ** abs(i - j) for i in range(count)] for j in range(count)])
    of_mean = matrix.sum() / count**2
    suggested = (np.trace(matrix) - matrix.sum() / count) / (count - 1) / count
    assert inflation(correlation, count) == pytest.approx(of_mean / suggested)


def test_what_has_no_memory_costs_nothing() -> None:
    assert inflation(0.0, 10) == 1.0
    assert memory([]) == 0.0
    assert memory([np.full(10, 3.0), np.array([1.0, 2.0]), np.full(10, np.nan)]) == 0.0
    assert memory([np.array([1.0, -1.0] * 5)]) == 0.0


@given(st.integers(0, 10_000))
def test_equals_the_slow_sums(seed: int) -> None:
    chance = random.Random(seed)
    series = [
        [
            chance.choice([math.nan, chance.random()]) if chance.random() < 0.1 else chance.random()
            for _ in range(chance.choice([3, 10, 10, 20]))
        ]
        for _ in range(4)
    ]
    found, sizes = [], []
    for one in series:
        known = [value for value in one if not math.isnan(value)]
        if len(known) < 4:
            continue
        mean = sum(known) / len(known)
        square = sum((value - mean) ** 2 for value in known) / len(known)
        pairs = [
            (a - mean) * (b - mean)
            for a, b in itertools.pairwise(one)
            if not math.isnan(a) and not math.isnan(b)
        ]
        found.append(sum(pairs) / len(pairs) / square)
        sizes.append(len(known))
    n = sum(sizes) / len(sizes) if sizes else 10
    expected = (sum(found) / max(1, len(found)) + 1 / (n - 1)) / (1 - min(3 / (n - 1), 0.9))
    assert memory([np.array(one) for one in series]) == pytest.approx(
        min(0.8, max(0.0, expected if found else 0.0))
    )


def wandering(chance: np.random.Generator, correlation: float) -> np.ndarray:
    values = [chance.normal()]
    for _ in range(9):
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * chance.normal())
    return np.exp(0.1 * np.array(values))


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "most"), [(0.0, 0.03), (0.3, 0.06), (0.5, 0.08)])
def test_blocks_that_wander_are_hardly_ever_a_change(correlation: float, most: float) -> None:
    chance = np.random.default_rng(1)
    false = 0
    for _ in range(400):
        # Ten figures that have each other's load, as the endpoints of one service.
        load = [wandering(chance, correlation) for _ in range(2)]
        sides = [[one * np.exp(0.05 * chance.normal(size=10)) for one in load] for _ in range(10)]
        found = memory([np.log(side) for pair in sides for side in pair])
        false += compare_runs(*sides[0], correlation=found).p < LEVEL
    assert false / 400 <= most
