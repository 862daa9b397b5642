from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perfkit.report.pack import DTYPES, Delta, narrow, pack, raw
from tests.report.unpack import unpack

_EXACT = 2**53


def same(got: Any, expected: Any) -> bool:
    if isinstance(expected, Delta):
        return bool(np.array_equal(got, expected.values.astype(np.float64)))
    if isinstance(expected, np.ndarray):
        return bool(np.array_equal(got, expected, equal_nan=expected.dtype.kind == "f"))
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[k], expected[k]) for k in expected)
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    return bool(got == expected)


integers = hnp.arrays(np.int64, st.integers(0, 9), elements=st.integers(-_EXACT, _EXACT))
arrays = st.one_of(
    integers,
    hnp.arrays(np.uint8, st.integers(0, 9)),
    hnp.arrays(np.bool_, st.integers(0, 9)),
    hnp.arrays(np.float32, st.integers(0, 9)),
    hnp.arrays(np.float64, st.integers(0, 9)),
    integers.map(lambda values: Delta(np.sort(values) // 2)),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-_EXACT, _EXACT),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
trees = st.dictionaries(
    keys,
    st.recursive(
        arrays | scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


def test_times_of_a_clock_that_was_not_set_are_rounded_and_not_refused() -> None:
    times = np.array([0, 20_000_000, 1_695_943_858_153_000_001, 1_695_943_858_153_000_257])
    got = unpack(pack({"start_ns": Delta(times)}))["start_ns"]
    assert np.abs(got - times).max() <= 128


@given(trees)
def test_what_is_packed_comes_back(data: dict[str, Any]) -> None:
    assert same(unpack(pack(data)), data)


@given(arrays)
def test_the_dtype_is_one_that_scripts_have(array: np.ndarray | Delta) -> None:
    if isinstance(array, np.ndarray):
        assert narrow(array).dtype.str[1:] in DTYPES


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([], "u1"),
        ([0, 255], "u1"),
        ([-1, 127], "i1"),
        ([-1, 128], "i2"),
        ([0, 65_535], "u2"),
        ([-1, 65_535], "i4"),
        ([0, 2**32 - 1], "u4"),
        ([-1, 2**32 - 1], "f8"),
        ([2**53], "f8"),
    ],
)
def test_the_smallest_dtype_is_taken(values: list[int], dtype: str) -> None:
    assert narrow(np.array(values, dtype=np.int64)).dtype.str[1:] == dtype


def test_big_endian_arrays_are_turned() -> None:
    assert unpack(pack({"a": np.array([1.5, -2.0], dtype=">f8")}))["a"].tolist() == [1.5, -2.0]


def test_equal_arrays_are_stored_once() -> None:
    array = np.arange(1000, dtype=np.float64)
    once = len(raw({"a": array}))
    assert len(raw({"a": array, "b": {"c": array.copy()}})) < once + 100


def test_the_same_data_gives_the_same_text() -> None:
    data = {"a": np.arange(100), "b": ["x", 1, None], "c": Delta(np.arange(0, 10**12, 10**9))}
    assert pack(data) == pack(data)


def test_hostile_text_stays_inside_the_block() -> None:
    hostile = "</script><script>alert(1)</script>\x00\u2028"
    packed = pack({"strings": [hostile]})
    assert set(packed) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    assert unpack(packed) == {"strings": [hostile]}


@pytest.mark.parametrize(
    "value",
    [
        np.array([2**60]),
        np.zeros((2, 2)),
        np.array(["text"]),
        {"$array": 1},
        float("nan"),
        Delta(np.array([0.5])),
    ],
)
def test_what_a_page_cannot_read_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says its own
        pack({"a": value})
