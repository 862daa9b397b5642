"""How long callers would wait in turn for places: connections of a pool, or a lock."""

from __future__ import annotations

from heapq import heapreplace

import numpy as np

from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import Floats


def waits(arrive: Floats, hold: Floats, places: int) -> Floats:
    """Return how long each caller waits for one of the places, first come first served.

    `arrive` is when it comes and `hold` for how long it keeps its place, in the same unit; those
    that come together wait in the order in which they are given. For one place this is Lindley's
    recursion in closed form. For several each caller needs the one before, so they are gone through
    one by one (about 0.3 µs a caller).
    """
    if places < 1:
        raise ValueError("a queue needs a place")
    order: Ints = np.argsort(arrive, kind="stable")
    came, held = arrive[order], hold[order]
    if places == 1:
        done_before = np.cumsum(held) - held
        begin = done_before + np.maximum.accumulate(came - done_before)
    elif places >= len(came):
        begin = came
    else:
        begin = _in_turn(came, held, places)
    waited = np.empty_like(begin)
    # Sums of floating-point numbers may fall short of the arrival by a rounding error.
    waited[order] = np.maximum(0.0, begin - came)
    return waited


def _in_turn(came: Floats, held: Floats, places: int) -> Floats:
    free = [-np.inf] * places
    begins = []
    for arrival, hold in zip(came.tolist(), held.tolist(), strict=True):
        begin = max(arrival, free[0])
        begins.append(begin)
        heapreplace(free, begin + hold)
    return np.array(begins)
