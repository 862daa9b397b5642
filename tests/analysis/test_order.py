from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.vector.order import stable_order

near = st.lists(st.integers(-3, 3), max_size=30)
far = st.lists(st.sampled_from([-(1 << 61), -1, 0, 1, (1 << 61) - 1]), max_size=30)


@given(near | far)
def test_equal_values_keep_their_order(values: list[int]) -> None:
    expected = sorted(range(len(values)), key=values.__getitem__)
    assert stable_order(np.array(values, dtype=np.int64)).tolist() == expected
