"""CPU time of threads whose clock was not read, against a plain division of it."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.formats import unreadtime
from perfkit.formats.cputime import Rows

LOOK_NS = 10


def rows(*seen: tuple[int, int, int, int]) -> Rows:
    """Return rows from (frame, length, asked, running)."""
    frame, length, asked, running = np.array(seen, dtype=np.int64).T
    none = np.zeros(len(frame))
    return Rows(frame, frame, length, frame * 0, asked, running, none, none, none)


def test_what_code_does_elsewhere() -> None:
    share = unreadtime.running_share(
        rows((0, 30, 2, 2), (0, 30, 1, 1), (1, 80, 9, 0), (2, 50, 0, 0), (3, 40, 0, 0)), 5, LOOK_NS
    )
    assert share[:3] == pytest.approx([3.5 / 4, 0.5 / 10, 0.0])
    # Too little was seen of the one, and nothing of the other.
    assert np.isnan(share[3:]).all()


def test_what_runs_most_often_comes_first_and_what_waits_gets_nothing() -> None:
    share = np.array([0.9, 0.1, 0.0, math.nan])
    process = np.zeros(4, dtype=np.int64)
    length = np.array([100, 1000, 5000, 400], dtype=np.int64)
    ran, unseen = unreadtime.allot(process, np.arange(4), length, share, np.array([120.0]))
    assert ran[:3] == pytest.approx([90, 30, 0])
    assert np.isnan(ran[3])
    assert unseen == pytest.approx([0, 0, 0, 0])
    ran, unseen = unreadtime.allot(process, np.arange(4), length, share, np.array([255.0]))
    assert ran[:3] == pytest.approx([90, 100, 0])
    assert unseen == pytest.approx([1, 10, 50, 4])


SHARES = st.sampled_from([0.0, 0.2, 0.5, 0.9, math.nan])


@given(
    st.lists(SHARES, min_size=1, max_size=5),
    st.lists(st.integers(0, 500), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 90)), min_size=1, max_size=20
    ),
)
def test_it_equals_a_division_by_hand(
    shares: list[float], cpu: list[int], seen: list[tuple[int, int, int]]
) -> None:
    seen = [(one % len(cpu), frame % len(shares), length) for one, frame, length in seen]
    process, frame, length = np.array(seen, dtype=np.int64).T
    ran, unseen = unreadtime.allot(
        process, frame, length, np.array(shares), np.array(cpu, dtype=np.float64)
    )
    expected: dict[int, float] = {}
    for one in range(len(cpu)):
        mine = [number for number in range(len(seen)) if seen[number][0] == one]
        groups: dict[int, list[int]] = defaultdict(list)
        for number in mine:
            groups[seen[number][1]].append(number)
        left = float(cpu[one])
        told = sorted(key for key in groups if not math.isnan(shares[key]))
        for key in sorted(told, key=lambda key: -shares[key]):
            room = sum(seen[number][2] * shares[key] for number in groups[key])
            given_ns = min(left, room)
            left -= given_ns
            for number in groups[key]:
                expected[number] = seen[number][2] * shares[key] * (given_ns / room if room else 0)
        if mine:
            assert sum(unseen[number] for number in mine) == pytest.approx(left)
    for number, (_, key, _) in enumerate(seen):
        if math.isnan(shares[key]):
            assert np.isnan(ran[number])
        else:
            assert ran[number] == pytest.approx(expected[number])
