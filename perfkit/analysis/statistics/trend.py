"""Does a series rise or fall: a robust slope, and a test that does not ask for normal noise."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

MAX_POINTS = 1000
"""Longer series are thinned evenly: the pairs that both methods compare grow with the square."""

Floats = npt.NDArray[np.float64]
Value = TypeVar("Value", np.float64, np.int64)


class Trend(NamedTuple):
    """Slope in units of the values per second, and the two-sided p of "there is no trend"."""

    slope_per_s: float
    p: float


def trend(times_ns: npt.NDArray[np.int64], values: Floats) -> Trend | None:
    """Return the trend of a series in the order of time; None for fewer than two moments.

    The slope is the median of the slopes of all pairs (Sen 1968, J. Am. Stat. Assoc. 63, 1379).
    The p is Mann and Kendall's by the normal approximation with corrections for ties and for
    continuity (Gilbert 1987, Statistical Methods for Environmental Pollution Monitoring, 16.4). It
    holds for independent points: neighbours that depend on each other make it too small.
    """
    times_ns, values = thin(times_ns), thin(values)
    earlier, later = np.triu_indices(len(values), k=1)
    seconds = (times_ns[later] - times_ns[earlier]) / 1e9
    rise = values[later] - values[earlier]
    apart = seconds > 0
    if not apart.any():
        return None
    return Trend(
        float(np.median(rise[apart] / seconds[apart])), mann_kendall(values, np.sign(rise))
    )


def mann_kendall(values: Floats, signs: Floats) -> float:
    """Return the two-sided p; `signs` are the signs of the differences of all pairs."""
    count = len(values)
    _, ties = np.unique(values, return_counts=True)
    variance = (
        count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())
    ) / 18
    score = float(signs.sum())
    if variance <= 0 or score == 0:
        return 1.0
    z = (abs(score) - 1) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def thin(values: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """Return at most MAX_POINTS of the values, the first and the last included, evenly spaced."""
    count = len(values)
    if count <= MAX_POINTS:
        return values
    return values[np.linspace(0, count - 1, MAX_POINTS).round().astype(np.int64)]
