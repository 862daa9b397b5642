"""Does a series go one way by itself, or may noise that remembers have taken it there.

A series that wanders looks as if it rose: neighbours that depend on each other are worth fewer than
they are, and a random walk has a "significant" slope more often than not. So a slope is tested
under each of many kinds of noise: independent, remembering a share of the value before, walking at
random, and mixtures with independent noise; by generalised least squares, which weighs levels and
increments as that noise wants it. What counts is the largest p of all kinds, and of kinds that
explain the series clearly worse than the likeliest does so much less of it as they are less likely.
(Berger and Boos 1994, JASA 89, 1012: the largest p over what a nuisance parameter may be. The
likelihood is the restricted one, which does not favour noise with little memory: Harville 1977,
JASA 72, 320. For tests that hold with and without a unit root see Harvey, Leybourne and Taylor
2007, J. Econometrics 141, 1302.)

A leak that grows in steps has increments of one sign, which no walk has; one in independent noise
has levels that no independent noise has. Either is seen, though for different reasons. What walks
with a momentum, one way for a while, passes for a drift: told apart, a leak that takes a step a
second would be found within half a minute 43 times in 100 instead of 97.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from perfkit.analysis.statistics.shift_scan import Floats
from perfkit.analysis.statistics.step_test import covariances
from perfkit.analysis.statistics.student import two_sided_p

MIN_POINTS = 10
"""Fewer say nothing about what noise they have (our own choice)."""
MAX_BLOCKS = 60
"""Longer series are looked at as so many means."""
WARM_UP = 0.3
"""This first part of a series may go another way: what starts, fills caches and pools."""
SURE = 0.01
"""Below this p a drift is told (our own choice; rules have it as a parameter of their own)."""
_NEARLY = 2.7
"""Kinds of noise count in full whose logarithm of the likelihood is that near to the best, others
by as much less as they are less likely. A sharp edge, at 4, finds as many leaks in independent
noise, but takes what remembers 0.9 a second for a drift (p under SURE) four times in 12,000 minutes
where this does once."""
_MEANS = 1 / 6
"""Means over parts of a walk vary as a walk less so much independent noise for each step's 1."""
_TINY = 1e-9


class _Noise(NamedTuple):
    """Kinds of noise, as what is known of them before any value is."""

    white: Floats
    """Of each kind the matrix that makes values independent and equally sure."""
    half_log_det: Floats
    """Half the logarithm of the determinant of each covariance."""


def drift_p(values: Floats, course: Floats | None = None) -> float | None:
    """Return the two-sided p of "it goes nowhere, whatever noise it has"; None where it is short.

    Values are evenly spaced and have no gaps. `course` is what it is thought to follow, a straight
    line if not given. It is looked at as a whole, and without its warm-up: the smaller p counts,
    doubled because there are two.
    """
    course = np.arange(len(values), dtype=np.float64) if course is None else course
    settled = int(WARM_UP * len(values))
    found = [
        largest_p(values[first:], course[first:])
        for first in (0, settled)
        if len(values) - first >= MIN_POINTS
    ]
    return min(1.0, 2 * min(found)) if found else None


def largest_p(values: Floats, course: Floats) -> float:
    """Return the largest p of all kinds of noise, less of those that explain the series worse."""
    values, course = _blocks(values), _blocks(course)
    spread = float(np.ptp(values))
    if spread == 0.0 or not math.isfinite(spread) or np.ptp(course) == 0.0:
        return 1.0
    count = len(values)
    noise = _noise(count)
    level = noise.white.sum(axis=2)
    size = (level * level).sum(axis=1)

    def free(series: Floats) -> Floats:
        """Return a series under each noise, without its level."""
        apart: Floats = noise.white @ ((series - series.mean()) / np.ptp(series))
        apart -= level * ((apart * level).sum(axis=1) / size)[:, None]
        return apart

    rising, moved = free(course), free(values)
    power = (rising * rising).sum(axis=1)
    along = (rising * moved).sum(axis=1)
    total = (moved * moved).sum(axis=1)
    # A line without any noise is as sure as numbers are exact.
    left = np.maximum(total - along**2 / power, _TINY * total)
    freedom = count - 2
    likelihood = -(freedom * np.log(left) + np.log(size * power)) / 2 - noise.half_log_det
    t = np.abs(along) / np.sqrt(power * left / freedom)
    weight = np.exp(np.minimum(likelihood - likelihood.max() + _NEARLY, 0.0))
    largest, lowest = 0.0, math.inf
    for kind in np.lexsort((t, -weight)):
        if weight[kind] <= largest:
            break
        # What counts for less and is further from nought has no larger p.
        if t[kind] < lowest:
            lowest = float(t[kind])
            largest = max(largest, float(weight[kind]) * two_sided_p(lowest, freedom))
    return largest


def _blocks(values: Floats) -> Floats:
    """Return means over at most MAX_BLOCKS parts that are as long as each other, but for one."""
    if len(values) <= MAX_BLOCKS:
        return values
    first = np.linspace(0, len(values), MAX_BLOCKS + 1).astype(np.int64)[:-1]
    means: Floats = np.add.reduceat(values, first) / np.diff(np.append(first, len(values)))
    return means


@lru_cache(maxsize=8)
def _noise(count: int) -> _Noise:
    halves = [np.linalg.cholesky(one) for one in kinds(count)]
    return _Noise(
        np.stack([np.linalg.inv(half) for half in halves]),
        np.array([float(np.log(np.diag(half)).sum()) for half in halves]),
    )


def kinds(count: int) -> list[Floats]:
    """Return the covariances of all kinds of noise."""
    at = np.arange(count)
    walk = np.minimum(at[:, None], at[None, :]) + 1.0
    return [*covariances(count), walk - _MEANS * np.eye(count)]
