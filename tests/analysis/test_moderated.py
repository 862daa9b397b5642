"""Variances that are drawn towards each other: against SciPy and a plain reading of the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special

from perfkit.analysis.statistics import moderated


@given(st.floats(1e-3, 1e4))
def test_the_functions_are_those_of_scipy(x: float) -> None:
    assert moderated.digamma(x) == pytest.approx(special.digamma(x), rel=1e-9, abs=1e-9)
    assert moderated.trigamma(x) == pytest.approx(special.polygamma(1, x), rel=1e-9)
    assert moderated.inverse_trigamma(moderated.trigamma(x)) == pytest.approx(x, rel=1e-6)


@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=8), st.integers(1, 30))
def test_variances_are_drawn_as_smyth_says(variances: list[float], freedom: int) -> None:
    count, half = len(variances), freedom / 2
    e = [math.log(one) - special.digamma(half) + math.log(half) for one in variances]
    middle = sum(e) / count
    target = sum((one - middle) ** 2 for one in e) / (count - 1) - special.polygamma(1, half)
    if target > 1e-6:
        root = optimize.brentq(lambda x: special.polygamma(1, math.exp(x)) - target, -30, 30)
        prior = 2 * math.exp(root)
        own = math.exp(middle + special.digamma(prior / 2) - math.log(prior / 2))
    elif target < -1e-6:
        prior, own = math.inf, math.exp(middle)
    else:
        return
    weight = min(prior, freedom)
    drawn, freedoms = moderated.moderate(np.array(variances), np.full(count, float(freedom)))
    slow = [(weight * own + freedom * one) / (weight + freedom) for one in variances]
    assert list(drawn) == pytest.approx(slow, rel=1e-5)
    assert list(freedoms) == pytest.approx([min(weight + freedom, count * freedom)] * count)


def test_one_variance_stays_as_it_is() -> None:
    drawn, freedom = moderated.moderate(np.array([2.0]), np.array([4.0]))
    assert (drawn[0], freedom[0]) == (2.0, 4.0)
