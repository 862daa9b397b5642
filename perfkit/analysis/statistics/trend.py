"""Does a series rise or fall: a robust slope, and a test that does not ask for normal noise."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

MAX_POINTS = 1000
"""Longer series are thinned evenly: the pairs that both methods compare grow with the square."""

_BEYOND_CHANCE = 1.96

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


def dependent(
    times_ns: npt.NDArray[np.int64], values: Floats, course: Floats | None = None
) -> Trend | None:
    """Return the trend of a series whose neighbours may depend on each other.

    `course` is what it follows, if that is no line.

    The variance of Mann and Kendall's score grows with the autocorrelation of the ranks of what is
    left without the trend (Hamed and Rao 1998, J. Hydrol. 204, 182); only lags count whose
    autocorrelation is beyond chance (5 %). Here it never shrinks: a series that swings to and fro
    is no surer. A walk still has trends more often than p says.
    """
    found = trend(times_ns, values)
    if found is None:
        return None
    times_ns, values = thin(times_ns), thin(values)
    if course is None:
        left = values - found.slope_per_s * ((times_ns - times_ns[0]) / 1e9)
    else:
        left = values - thin(course)
    earlier, later = np.triu_indices(len(values), k=1)
    signs = np.sign(values[later] - values[earlier])
    return Trend(found.slope_per_s, mann_kendall(values, signs, inflation(left)))


def inflation(left: Floats) -> float:
    """Return by how much the variance of the score is larger than of independent points."""
    count = len(left)
    if count < 4:
        return 1.0
    ranks = _mean_ranks(left)
    ranks = ranks - ranks.mean()
    power = float((ranks * ranks).sum())
    if power <= 0:
        return 1.0
    lag = np.arange(1, count)
    related = np.correlate(ranks, ranks, "full")[count:] / power
    related[np.abs(related) <= _BEYOND_CHANCE / math.sqrt(count)] = 0.0
    weight = (count - lag) * (count - lag - 1) * (count - lag - 2)
    sums = 2.0 * float((weight * related).sum())
    return max(1.0, 1.0 + sums / (count * (count - 1) * (count - 2)))


def _mean_ranks(values: Floats) -> Floats:
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(size) - (size - 1) / 2)[group]
    return ranks


def mann_kendall(values: Floats, signs: Floats, larger: float = 1.0) -> float:
    """Return the two-sided p; `signs` are the signs of the differences of all pairs.

    The score varies as many times as much as that of independent points as `larger` says.
    """
    count = len(values)
    _, ties = np.unique(values, return_counts=True)
    variance = (
        count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())
    ) / 18
    score = float(signs.sum())
    if variance <= 0 or score == 0:
        return 1.0
    z = (abs(score) - 1) / math.sqrt(variance * larger)
    return math.erfc(z / math.sqrt(2))


def thin(values: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """Return at most MAX_POINTS of the values, the first and the last included, evenly spaced."""
    count = len(values)
    if count <= MAX_POINTS:
        return values
    return values[np.linspace(0, count - 1, MAX_POINTS).round().astype(np.int64)]
