"""The hypergeometric tail, beside a slow one of whole numbers and beside SciPy's."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.statistics import fisher


def slowly(a: int, n: int, k: int, total: int) -> float:
    ways = sum(comb(k, i) * comb(total - k, n - i) for i in range(a, min(n, k) + 1))
    return float(Fraction(ways, comb(total, n)))


def tables() -> st.SearchStrategy[tuple[int, int, int, int]]:
    sizes = st.integers(1, 60).flatmap(
        lambda total: st.tuples(st.integers(0, total), st.integers(0, total), st.just(total))
    )
    return sizes.flatmap(
        lambda one: st.tuples(
            st.integers(max(0, one[0] + one[1] - one[2]), min(one[0], one[1])), *map(st.just, one)
        )
    )


@given(st.lists(tables(), max_size=8), st.sampled_from([1, 7, 1_000_000]))
def test_it_is_the_tail_of_the_hypergeometric_distribution(
    tests: list[tuple[int, int, int, int]], terms: int
) -> None:
    columns = np.array(tests, dtype=np.int64).reshape(-1, 4).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fisher, "_TERMS", terms)
        found = fisher.more_frequent(*columns)
    assert found == pytest.approx([slowly(*one) for one in tests], rel=1e-9)


def test_many_requests() -> None:
    found = fisher.more_frequent(*(np.array([one]) for one in (5_200, 50_000, 100_000, 1_000_000)))
    # scipy.stats.hypergeom.sf(5199, 1_000_000, 100_000, 50_000)
    assert found[0] == pytest.approx(0.0011976886808540241, rel=1e-8)
