from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.vector.lookup import Places

# Few different keys, and some that share all their upper or all their lower bits.
keys = st.lists(st.integers(0, 12) | st.integers(0, 6).map(lambda key: key << 61), max_size=60)


@given(keys, keys)
def test_equals_a_dictionary(held: list[int], wanted: list[int]) -> None:
    first: dict[int, int] = {}
    for place, key in enumerate(held):
        first.setdefault(key, place)
    places = Places(np.array(held, dtype=np.uint64))
    assert places.unique == (len(first) == len(held))
    found = places.of(np.array(wanted, dtype=np.uint64))
    assert found.tolist() == [first.get(key, -1) for key in wanted]


def test_many_keys_of_one_sort() -> None:
    held = np.arange(100_000, dtype=np.uint64) << np.uint64(20)
    places = Places(held)
    assert places.unique
    assert places.of(held[::-1]).tolist() == list(range(99_999, -1, -1))
    assert set(places.of(held + np.uint64(1))) == {-1}
