"""Matching by rank, against a slow twin that repeats each value as often as it weighs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.comparison.excess import Values, beyond, effective, upper_bound

_SIDE = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), max_size=12)


def matched(normal: list[tuple[int, int]], judged: list[tuple[int, int]]) -> list[float]:
    """Return for each judged value how far it is beyond the normal value at its own rank."""
    usual = sorted(value for value, weight in normal for _ in range(weight))
    order = sorted(range(len(judged)), key=lambda i: judged[i][0])
    total, passed = sum(weight for _, weight in judged), 0.0
    result = [math.nan] * len(judged)
    for i in order:
        value, weight = judged[i]
        rank = (passed + weight / 2) / total
        passed += weight
        if usual:
            place = max(math.ceil(rank * len(usual) - 1e-9) - 1, 0)
            result[i] = max(value - usual[place], 0)
    return result


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(_SIDE, _SIDE), min_size=1, max_size=3))
def test_values_are_matched_by_rank_in_each_group(
    groups: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    # Values of a side are distinct, so that their order is.
    groups = [
        tuple(list({value: (value, weight) for value, weight in side}.values()) for side in sides)
        for sides in groups
    ]
    flat = [
        (number, side, value, weight)
        for number, sides in enumerate(groups)
        for side, values in enumerate(sides)
        for value, weight in values
    ]
    columns = np.array(flat, dtype=np.float64).reshape(-1, 4)
    group, side = columns[:, 0].astype(np.int64), columns[:, 1]
    values = Values(group, len(groups), columns[:, 2])
    weight = [np.where(side == number, columns[:, 3], 0.0) for number in (0, 1)]
    # With a bound of no width a rank is what it is.
    found = beyond(values, weight[0], weight[1], np.full(len(groups), 10.0), 0.0)
    for number, (normal, judged) in enumerate(groups):
        mine = found[(group == number) & (side == 1)].tolist()
        assert mine == pytest.approx(matched(normal, judged), nan_ok=True)
    assert np.isnan(found[side == 0]).all()


def test_a_tail_that_grew_is_seen_in_the_tail_and_a_body_that_moved_everywhere() -> None:
    usual = np.arange(1000.0)
    tail = np.where(usual >= 900, usual + 500, usual)
    for other, moved in ((tail, 100), (usual + 500, 1000)):
        values = Values(np.zeros(2000, dtype=np.int64), 1, np.append(usual, other))
        weight = np.ones(2000)
        sides = (
            np.where(np.arange(2000) < 1000, weight, 0),
            np.where(np.arange(2000) < 1000, 0, 1),
        )
        found = beyond(values, sides[0], sides[1], np.array([1e9]), 0.0)[1000:]
        assert int((found > 490).sum()) == moved
        assert found[found < 490].max(initial=0) <= 1


def test_what_may_lie_beyond_all_normal_values_is_not_sure() -> None:
    values = Values(np.zeros(6, dtype=np.int64), 1, np.array([1.0, 2, 3, 10, 20, 30]))
    sides = (np.array([1.0, 1, 1, 0, 0, 0]), np.array([0.0, 0, 0, 1, 1, 1]))
    loose = beyond(values, *sides, np.array([1.5]), 4.0)
    assert loose[3:].tolist() == [7, 17, 27]
    assert beyond(values, *sides, np.array([1.5]), 4.0, sure=True)[3:].tolist() == [0, 0, 0]


def test_the_upper_bound_is_wilsons() -> None:
    # Brown, Cai and DasGupta 2001: 0 of 10 at 95 %, two-sided, is up to 0.2775.
    assert upper_bound(np.array([0.0]), np.array([10.0]), 1.96)[0] == pytest.approx(
        0.2775, abs=1e-4
    )
    assert upper_bound(np.array([1.0]), np.array([10.0]), 1.96)[0] == 1.0


def test_what_stands_for_many_was_seen_once() -> None:
    group = np.array([0, 0, 0, 1])
    assert effective(group, np.array([100.0, 100, 100, 0]), 2).tolist() == [3, 0]
    assert effective(group, np.array([3.0, 1, 0, 1]), 2).tolist() == [pytest.approx(1.6), 1]
