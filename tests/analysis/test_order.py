from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.vector.order import order_of_pairs, stable_order

near = st.lists(st.integers(-3, 3), max_size=30)
wide = st.lists(st.sampled_from([-70_000, -1, 0, 1, 65_535, 65_536]), max_size=30)
far = st.lists(st.sampled_from([-(1 << 61), -1, 0, 1, (1 << 61) - 1]), max_size=30)


@given(near | wide | far)
def test_equal_values_keep_their_order(values: list[int]) -> None:
    expected = sorted(range(len(values)), key=values.__getitem__)
    assert stable_order(np.array(values, dtype=np.int64)).tolist() == expected


@given(near | wide | far, st.data())
def test_pairs_are_ordered_by_the_first_and_then_by_the_second(
    first: list[int], data: st.DataObject
) -> None:
    second = data.draw(st.lists(st.integers(-2, 2), min_size=len(first), max_size=len(first)))
    pairs = list(zip(first, second, strict=True))
    expected = sorted(range(len(pairs)), key=pairs.__getitem__)
    found = order_of_pairs(*(np.array(one, dtype=np.int64) for one in (first, second)))
    assert found.tolist() == expected


def test_numbers_of_any_width_are_sorted_as_they_are() -> None:
    values = [200, 3, 70_000, 3, 1 << 31]
    for kind in (np.uint32, np.int64, np.uint64):
        assert stable_order(np.array(values, dtype=kind)).tolist() == [1, 3, 0, 2, 4]
