from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.replay.cache_replay import hits


def simulated(calls: list[tuple[int, int, int]], lifetime: int) -> list[bool]:
    """Ask a cache call by call; an answer is kept from the end of the call that fetched it."""
    kept: dict[int, tuple[int, int]] = {}
    found = [False] * len(calls)
    for place in sorted(range(len(calls)), key=lambda one: calls[one][1]):
        key, start, end = calls[place]
        since, until = kept.get(key, (0, -1))
        if since <= start < until:
            found[place] = True
        elif start >= until:
            kept[key] = (end, end + lifetime)
    return found


CALLS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 15)).map(
        lambda call: (call[0], call[1], call[1] + call[2])
    ),
    max_size=25,
)


@given(CALLS, st.integers(0, 40))
def test_equals_a_cache_asked_call_by_call(
    calls: list[tuple[int, int, int]], lifetime: int
) -> None:
    columns = [np.array([one[part] for one in calls], dtype=np.int64) for part in range(3)]
    assert hits(columns[0], columns[1], columns[2], lifetime).tolist() == simulated(calls, lifetime)


def test_an_answer_is_kept_for_its_lifetime_and_asked_for_again_after() -> None:
    start = np.array([0, 5, 12, 60, 119, 130])
    found = hits(np.zeros(6, dtype=np.int64), start, start + 10, lifetime_ns=100)
    assert found.tolist() == [False, False, True, True, False, True]
