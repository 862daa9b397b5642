"""What a series does when nothing happens: a level, a line, or the same course every day.

Values are first put on a scale on which their noise is even: rates by Anscombe's square root (1948,
Biometrika 35, 246), error ratios by the double arcsine of Freeman and Tukey (1950, Ann. Math. Stat.
21, 607), latency by the logarithm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from perfkit.analysis.statistics.shift_scan import Floats
from perfkit.analysis.statistics.trend import slope_per_s
from perfkit.analysis.vector.forest import Ints

DAY_NS = 86_400 * 10**9
MIN_DAYS = 3
"""Days that a capture must last before a daily course is believed."""
_EDGES = 3
"""So many buckets longer is a capture than from the middle of its first whole one to that of its
last."""
_SLOT_NS = 1800 * 10**9
"""Times of day are told apart by half an hour."""
_BETTER = 0.7
"""A course or a line must leave at most this share of the deviations from a level."""

_CLEARLY = 0.9
"""And one with a bend this share of those from a step."""
_SLOPING = 0.3
_KNOTS = 17
_ENDS = (0.02, 0.98)

_MIN_CORRELATION = 0.5
"""A line cannot leave as little as that of values whose order has less to do with time."""


class Scaled(NamedTuple):
    """A series on a scale on which its noise is even."""

    values: Floats
    floor: float
    """The least standard deviation that is believed: counts vary at least as Poisson's do."""


class Baseline(NamedTuple):
    """What is expected, on the scale of the values, as deviations from their median."""

    shape: str
    """`level`, `drift` or `daily`."""
    course: Floats


def scaled(kind: str, values: Floats, observations: Floats, width_ns: int) -> Scaled:
    """Return a series of that kind on an even scale. Values and observations have no gaps."""
    if kind == "rate":
        seconds = width_ns / 1e9
        total = values * seconds
        with np.errstate(divide="ignore", invalid="ignore"):
            per_count = np.where(observations > 0, total / observations, 1.0)
        return Scaled(2 * np.sqrt(total / np.maximum(np.median(per_count), 1.0) + 0.375), 1.0)
    if kind == "errors":
        failed = values * observations
        arcs = np.arcsin(np.sqrt(np.clip(failed / (observations + 1), 0, 1)))
        arcs += np.arcsin(np.sqrt(np.clip((failed + 1) / (observations + 1), 0, 1)))
        return Scaled(arcs * np.sqrt(observations + 0.5), 1.0)
    if kind == "latency":
        return Scaled(np.log(np.maximum(values, 1.0)), 0.02)
    return Scaled(values, 0.01 * float(np.median(np.abs(values))))


def baseline(times_ns: Ints, values: Floats) -> Baseline:
    """Return which baseline fits. `times_ns` are the middles of buckets, in order."""
    flat = np.zeros(len(values))
    residual = _spread(values - np.median(values))
    # The last bucket is as long as the others, and none is whole at either end of a capture.
    lasts = times_ns[-1] - times_ns[0] + _EDGES * int(np.median(np.diff(times_ns)))
    if lasts >= MIN_DAYS * DAY_NS:
        course = _daily(times_ns, values)
        if _spread(values - course) <= _BETTER * residual:
            return Baseline("daily", course - np.median(course))
    if abs(_rank_correlation(values)) < _MIN_CORRELATION:
        return Baseline("level", flat)
    step = _spread(values - _step(values))
    line, bent = _line(times_ns, values), _bent(times_ns, values)
    # A line that bends is chosen only where it is clearly better than a step.
    for course, most in ((line, step), (bent, _CLEARLY * step)):
        if _spread(values - course) <= min(_BETTER * residual, most):
            return Baseline("drift", course - np.median(course))
    return Baseline("level", flat)


def _rank_correlation(values: Floats) -> float:
    """Return how far the order of the values is that of time (Spearman), from -1 to 1."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    apart = ranks - np.arange(len(values))
    return float(1 - 6 * (apart**2).sum() / (len(values) ** 3 - len(values)))


def _spread(residual: Floats) -> float:
    return float(np.abs(residual - np.median(residual)).mean())


def _line(times_ns: Ints, values: Floats) -> Floats:
    """Return the line through the median with Theil and Sen's slope."""
    slope = slope_per_s(times_ns, values)
    if slope is None:
        return np.full(len(values), np.median(values))
    seconds = (times_ns - times_ns[0]) / 1e9
    line: Floats = slope * (seconds - np.median(seconds)) + np.median(values)
    return line


def _bent(times_ns: Ints, values: Floats) -> Floats:
    """Return the line that is level before, or after, the moment that suits best.

    By least squares with the furthest values clipped. The slope lasts for _SLOPING of the time at
    least, or it would be a step.
    """
    low, high = np.quantile(values, _ENDS)
    clipped = np.clip(values, low, high)
    at = (times_ns - times_ns[0]) / max(times_ns[-1] - times_ns[0], 1)
    best, found = math.inf, np.full(len(values), np.median(values))
    for knot in np.linspace(_SLOPING, 1 - _SLOPING, _KNOTS):
        for slope in (np.maximum(at - knot, 0), np.minimum(at - knot, 0)):
            away = slope - slope.mean()
            power = float(away @ away)
            rise = float(away @ clipped) / power if power > 0 else 0.0
            course = clipped.mean() + rise * away
            left = float(((clipped - course) ** 2).sum())
            if left < best:
                best, found = left, course
    return found


def _step(values: Floats) -> Floats:
    """Return the two levels that fit best, in the sense of least squares."""
    count = len(values)
    left = np.cumsum(values)[:-1]
    size = np.arange(1, count)
    right = values.sum() - left
    at = int(np.argmax(left**2 / size + right**2 / (count - size))) + 1
    return np.where(np.arange(count) < at, np.median(values[:at]), np.median(values[at:]))


def _daily(times_ns: Ints, values: Floats) -> Floats:
    """Return the course of the day: the median of each half hour over days, smoothed."""
    slots = DAY_NS // _SLOT_NS
    slot = times_ns % DAY_NS // _SLOT_NS
    course = np.full(slots, np.nan)
    for one in range(slots):
        if (slot == one).any():
            course[one] = np.median(values[slot == one])
    known = ~np.isnan(course)
    middle = np.arange(slots)
    course = np.interp(middle, middle[known], course[known], period=slots)
    course = np.median([np.roll(course, 1), course, np.roll(course, -1)], axis=0)
    place = times_ns % DAY_NS / _SLOT_NS - 0.5
    smooth: Floats = np.interp(place, middle, course, period=slots)
    return smooth
