from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.vector import overlaps
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.overlaps import (
    concurrency,
    concurrency_in_slices,
    covered,
    most_at_once,
    order_by,
    overlapping_earlier,
    runs,
)

FAR = 1 << 61
interval = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 6)).map(
    lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])
)
# Some groups lie so far apart, or are so long, that all of them do not fit on one axis.
scales = st.sampled_from([1, FAR // 20])


def columns(rows: list[tuple[int, int, int]]) -> tuple[Ints, Ints, Ints]:
    group, start, end = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3).T
    return group, start, end


@given(st.lists(interval, max_size=12), scales)
def test_covered(rows: list[tuple[int, int, int]], scale: int) -> None:
    group, start, end = columns(rows)
    found = covered(group, start * scale, end * scale, 5)
    for number in range(5):
        moments = {at for g, begin, stop in rows if g == number for at in range(begin, stop)}
        assert found[number] == len(moments) * scale


@given(st.lists(interval, max_size=12), scales)
def test_overlapping_earlier(rows: list[tuple[int, int, int]], scale: int) -> None:
    group, start, end = columns(rows)
    found = overlapping_earlier(group, start * scale, end * scale)
    for at in range(len(group)):
        earlier = [one for one in range(at) if group[one] == group[at]]
        assert found[at] == any(end[one] > start[at] for one in earlier)


@given(st.lists(interval, max_size=12), scales)
def test_most_at_once(rows: list[tuple[int, int, int]], scale: int) -> None:
    group, start, end = columns(rows)
    found = most_at_once(group, start * scale, end * scale, 5)
    for number in range(5):
        own = [
            (begin * scale, max(stop * scale, begin * scale + 1))
            for g, begin, stop in rows
            if g == number
        ]
        at_starts = [sum(b <= moment < e for b, e in own) for moment, _ in own]
        assert found[number] == max(at_starts, default=0)


@settings(max_examples=40)
@given(st.lists(interval, max_size=12), st.integers(1, 3), st.integers(1, 12), scales)
def test_concurrency_slice_by_slice(
    rows: list[tuple[int, int, int]], sampled: int, most: int, scale: int
) -> None:
    _, start, end = columns(rows)
    start, end = start * scale, end * scale
    expected = concurrency(np.zeros(len(start), dtype=np.int64), start, end, 1)
    halves = [(start[::2], end[::2]), (start[1::2], end[1::2])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps, "_SAMPLED", sampled)
        found = concurrency_in_slices(lambda: halves, most)
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]


pairs = st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, FAR, 2 * FAR - 1]))


@given(st.lists(pairs, max_size=12))
def test_order_by(rows: list[tuple[int, int]]) -> None:
    group, value = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    expected = sorted(range(len(rows)), key=lambda at: rows[at])
    assert order_by(group, value, 4).tolist() == expected


def test_runs() -> None:
    first, last = runs(np.array([4, 4, 1, 4, 4, 4]))
    assert first.tolist() == [0, 2, 3]
    assert last.tolist() == [1, 2, 5]
    assert [len(part) for part in runs(np.zeros(0, dtype=np.int64))] == [0, 0]
