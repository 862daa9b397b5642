"""By how much a series rises or falls: a robust slope. Whether it does at all says `drift`."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

MAX_POINTS = 1000
"""Longer series are thinned evenly: the pairs that are compared grow with the square."""

Floats = npt.NDArray[np.float64]
Value = TypeVar("Value", np.float64, np.int64)


def slope_per_s(times_ns: npt.NDArray[np.int64], values: Floats) -> float | None:
    """Return the slope of a series in the order of time; None for fewer than two moments.

    In units of the values per second: the median of the slopes of all pairs (Sen 1968, J. Am. Stat.
    Assoc. 63, 1379).
    """
    times_ns, values = thin(times_ns), thin(values)
    earlier, later = np.triu_indices(len(values), k=1)
    seconds = (times_ns[later] - times_ns[earlier]) / 1e9
    rise = values[later] - values[earlier]
    apart = seconds > 0
    if not apart.any():
        return None
    return float(np.median(rise[apart] / seconds[apart]))


def thin(values: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """Return at most MAX_POINTS of the values, the first and the last included, evenly spaced."""
    count = len(values)
    if count <= MAX_POINTS:
        return values
    return values[np.linspace(0, count - 1, MAX_POINTS).round().astype(np.int64)]
