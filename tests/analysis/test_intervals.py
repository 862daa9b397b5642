from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.vector.intervals import Intervals, uncovered, union

MOMENTS = 20
triples = st.tuples(st.integers(0, 3), st.integers(0, MOMENTS - 1), st.integers(0, MOMENTS - 1))
drawn = st.lists(triples, max_size=15)


def columns(rows: list[tuple[int, int, int]]) -> Intervals:
    return Intervals(*np.array(rows, dtype=np.int64).reshape(-1, 3).T)


def moments(intervals: Intervals, group: int) -> list[int]:
    """List every moment, as often as it is covered."""
    return sorted(
        moment
        for g, start, end in zip(*intervals, strict=True)
        if g == group
        for moment in range(start, end)
    )


@given(drawn)
def test_union_covers_each_moment_once_and_leaves_gaps_between(
    rows: list[tuple[int, int, int]],
) -> None:
    merged = union(columns(rows), MOMENTS)
    for group in range(4):
        assert moments(merged, group) == sorted(set(moments(columns(rows), group)))
    order = list(zip(merged.group, merged.start, strict=True))
    assert order == sorted(order)
    same = merged.group[1:] == merged.group[:-1]
    assert (merged.start[1:] > merged.end[:-1])[same].all()


@given(drawn, drawn)
def test_uncovered_is_the_difference(
    rows: list[tuple[int, int, int]], covers: list[tuple[int, int, int]]
) -> None:
    whole = columns([(number, start, end) for number, (_, start, end) in enumerate(rows)])
    cover = columns([each for each in covers if each[0] < len(rows)])
    free = uncovered(whole, cover, MOMENTS)
    for group in range(len(rows)):
        expected = set(moments(whole, group)) - set(moments(cover, group))
        assert moments(free, group) == sorted(expected)
