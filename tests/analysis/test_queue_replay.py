from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.replay.queue_replay import waits


def simulated(arrive: list[int], hold: list[int], places: int) -> list[int]:
    """Go from moment to moment: whoever has come first takes a place as soon as one is free."""
    waiting = sorted(range(len(arrive)), key=lambda one: arrive[one])
    until: dict[int, int] = {}
    result = [0] * len(arrive)
    now = 0
    while waiting:
        until = {one: end for one, end in until.items() if end > now}
        first = waiting[0]
        if arrive[first] <= now and len(until) < places:
            waiting.pop(0)
            result[first] = now - arrive[first]
            if hold[first]:
                until[first] = now + hold[first]
        else:
            now += 1
    return result


CALLERS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=20)


@given(CALLERS, st.integers(1, 5))
def test_equals_a_simulation_moment_by_moment(callers: list[tuple[int, int]], places: int) -> None:
    arrive, hold = [one for one, _ in callers], [one for _, one in callers]
    found = waits(np.array(arrive, float), np.array(hold, float), places)
    assert found.tolist() == simulated(arrive, hold, places)


def test_a_queue_needs_a_place() -> None:
    with pytest.raises(ValueError, match="place"):
        waits(np.zeros(1), np.zeros(1), 0)
