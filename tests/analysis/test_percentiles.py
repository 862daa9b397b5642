from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.vector.percentiles import codes, quantiles

values = st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 4))
LEVELS = [0.0, 0.25, 0.5, 0.9, 0.99, 1.0]


@given(st.lists(values, max_size=20))
def test_a_weight_is_that_many_equal_values(rows: list[tuple[int, int, int]]) -> None:
    group, value, weight = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    found = quantiles(group, value, weight.astype(np.float64), 4, LEVELS)
    for number in range(4):
        repeated = np.repeat(value[group == number], weight[group == number])
        if len(repeated):
            assert found[number] == pytest.approx(np.quantile(repeated, LEVELS))
        else:
            assert np.isnan(found[number]).all()


def test_fractional_weights_stay_between_the_values() -> None:
    found = quantiles(
        np.zeros(2, dtype=np.int64), np.array([10, 20]), np.array([1.5, 2.5]), 1, LEVELS
    )
    assert (np.diff(found[0]) >= 0).all()
    assert found[0][[0, -1]].tolist() == [10, 20]


keys = st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 2))


@given(st.lists(keys, max_size=20))
def test_codes_number_keys_as_they_first_appear(rows: list[tuple[str | None, int]]) -> None:
    frame = pl.DataFrame(rows, schema={"x": pl.String, "y": pl.Int64}, orient="row")
    code, distinct = codes(frame, ["x", "y"])
    expected = list(dict.fromkeys(rows))
    assert distinct.rows() == expected
    assert code.tolist() == [expected.index(row) for row in rows]
