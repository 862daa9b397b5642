"""Runs of a noisy series that stand out from how it behaves otherwise.

A run is found where the sum over a window is far beyond what sums over windows of that length do by
themselves. How much they do is measured, for each length, from the differences of neighbouring
windows: the two-sample variance of Allan (1966, Proc. IEEE 54, 221), here by quantiles. It holds
for noise that depends on its own past, and one shift in the series hardly touches it. The scan over
windows of many lengths is that of Arias-Castro, Donoho and Huo (2005, IEEE Trans. Inf. Theory 51,
2402); the chance of a false alarm is divided by the number of windows looked at (Bonferroni).

A bucket counts for at most so much in a window that no single one can make a run.

In a short series a shift that stays is in most of those differences, and passes for noise with a
memory. Where the scan finds nothing, the window that explains most is put to the test once more,
against the noise of the series with that window's level mended (noise that is estimated as
if there were no shift costs the power to find one: Crainiceanu and Vogelsang 2001, CAE Working
Paper 01-14).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MIN_POINTS = 24
"""Shorter series say too little about their own noise (our own choice)."""
MIN_RUN = 3
"""Buckets that a run has at least."""
FALSE_ALARMS = 0.001
"""Expected number of false alarms in all series together, if noise were normal. Real noise has
heavier tails; the tests hold it to one in a hundred hours."""

_CLIP = 4.0
"""Deviations for which a bucket counts at most in the shortest window, in longer ones as many more
as the threshold for their sum is higher."""
_MAX_RUNS = 20
_LAGS = 8
_ROUNDS = 3
_STANDS_OUT = 2.0
"""A run's mean is at least so many deviations of single buckets away (our own choice)."""
_REACH = 12
"""What sums over windows vary by is measured up to this part of a series whose level was mended."""
_SHARES = 2.7
"""No bucket counts for more than this part of what makes a run: it takes three."""
_ENDS = (0.02, 0.98)
"""Beyond these quantiles a bucket does not help to tell where a run is."""
_LEVELS = (0.5, 0.75, 0.9)
_NORMAL = tuple(NormalDist().inv_cdf((1 + level) / 2) for level in _LEVELS)
_SMALLEST = 1e-12
_UNIT_ROOT = -35.0
"""Size times (memory - 1) above which a random walk is not ruled out: of simulated walks of 30 to
600 buckets whose likeliest run was mended, 1 % are below."""
_ABRUPT = 3.5
"""A run in what may be a walk begins or ends with a move of so many deviations (our own choice)."""


class Run(NamedTuple):
    """A run of a series: indices [first, last], and how certain it is."""

    first: int
    last: int
    up: bool
    score: float
    """Deviations of the sum over its clearest window from what such sums are."""


class Noise(NamedTuple):
    """How a series behaves by itself."""

    base: float
    """Its level."""
    single: float
    """Standard deviation of one bucket around it."""
    growth: Floats
    """For each window length, by how much sums over it vary more than those of white noise."""


def window_lengths(points: int) -> list[int]:
    """Return the lengths of windows that are looked at: from MIN_RUN to half the series."""
    lengths, length = [], float(MIN_RUN)
    while length <= max(points // 2, MIN_RUN):
        lengths.append(int(length))
        length = max(length + 1, length * 1.35)
    return lengths


def threshold(points: int, series: int) -> float:
    """Return how many deviations are beyond chance in so many series of so many points."""
    windows = max(1, points * len(window_lengths(points)) * series)
    return -NormalDist().inv_cdf(FALSE_ALARMS / (2 * windows))


def find_runs(values: Floats, floor: float, series: int) -> tuple[list[Run], Noise]:
    """Return the runs of a series without gaps, in order of time, and its noise.

    `floor` is the least deviation of a bucket that is believed; `series` how many series are looked
    at together. At least MIN_POINTS values.
    """
    flagged = np.zeros(len(values), dtype=np.bool_)
    runs: list[Run] = []
    limit = threshold(len(values), series)
    lengths = window_lengths(len(values))
    noise = measure(values, flagged, floor, lengths)
    for _ in range(_MAX_RUNS):
        run = _clearest(values, flagged, noise, lengths, limit)
        if run is None:
            run = _likeliest(values, flagged, floor, lengths, limit)
        if run is None:
            break
        flagged[run.first : run.last + 1] = True
        runs.append(run)
        if flagged.mean() > 0.5:
            break
        noise = measure(values, flagged, floor, lengths)
    far = _STANDS_OUT * noise.single
    kept = [run for run in runs if abs(values[run.first : run.last + 1].mean() - noise.base) >= far]
    if kept and _may_be_a_walk(values, kept):
        kept = [run for run in kept if _abrupt(values, run)]
    return sorted(kept), noise


def _may_be_a_walk(values: Floats, runs: list[Run]) -> bool:
    """Return whether the rest could be a random walk, with the runs taken back to its level.

    The test of Dickey and Fuller (1979, JASA 74, 427) for a unit root, with runs mended because
    shifts pass for one (Perron 1989, Econometrica 57, 1361).
    """
    inside = np.zeros(len(values), dtype=np.bool_)
    for run in runs:
        inside[run.first : run.last + 1] = True
    if inside.all():
        return False
    base, even = values[~inside].mean(), values.copy()
    for run in runs:
        even[run.first : run.last + 1] += base - values[run.first : run.last + 1].mean()
    within = inside[1:] == inside[:-1]
    before, after = even[:-1][within], even[1:][within]
    before, after = before - before.mean(), after - after.mean()
    power = float((before * before).sum())
    remembered = float((before * after).sum()) / power if power > 0 else 0.0
    return len(before) * (remembered - 1) > _UNIT_ROOT


def _abrupt(values: Floats, run: Run) -> bool:
    """Return whether a run begins or ends more suddenly than the series moves elsewhere."""
    total = _running(values)
    means = (total[MIN_RUN:] - total[:-MIN_RUN]) / MIN_RUN
    # Of each moment, the mean just after it less that just before it.
    moves = means[MIN_RUN:] - means[:-MIN_RUN]
    edges = np.array([run.first, run.last + 1]) - MIN_RUN
    near = np.abs(np.arange(len(moves))[:, None] - edges) < 2
    elsewhere = moves[~(np.abs(np.arange(len(moves))[:, None] - edges) < 2 * MIN_RUN).any(axis=1)]
    usual = max(_scale(np.abs(elsewhere), 1), _SMALLEST)
    rises, falls = moves[near[:, 0]], moves[near[:, 1]]
    sign = 1.0 if run.up else -1.0
    most = max((sign * rises).max(initial=0.0), (-sign * falls).max(initial=0.0))
    return bool(most >= _ABRUPT * usual)


def measure(values: Floats, flagged: Bools, floor: float, lengths: list[int]) -> Noise:
    """Return the noise of what is not flagged."""
    rest = values[~flagged] if not flagged.all() else values
    single = max(_single(rest), floor, _SMALLEST)
    base = float(np.median(rest))
    for _ in range(_ROUNDS):
        # A mean and not the median, or long windows of skewed noise would seem to deviate.
        base = float(np.clip(rest, base - 3 * single, base + 3 * single).mean())
    residual = (values - base) / single
    residual[flagged] = np.nan
    return Noise(base, single, _growth(residual, lengths))


def _single(rest: Floats) -> float:
    """Return the deviation of one bucket, from differences: few of them touch a shift.

    Those of neighbours tell of heavy tails, those of buckets far apart of noise with a memory.
    """
    lag = max(len(rest) // _LAGS, 1)
    near = _scale(np.abs(np.diff(rest)), len(_LEVELS))
    far = _scale(np.abs(rest[lag:] - rest[:-lag]), 1)
    return max(near, far) / math.sqrt(2)


def _clipped(residual: Floats, length: int) -> Floats:
    """Return what buckets count for in windows of a length."""
    most = _CLIP * math.sqrt(length / MIN_RUN)
    return np.clip(residual, -most, most)


def _running(values: Floats) -> Floats:
    """Return the running sums of values, which begin with 0."""
    return np.append(0.0, np.cumsum(values))


def _scale(deviations: Floats, levels: int) -> float:
    """Return the standard deviation that absolute deviations speak of, by their quantiles."""
    if not len(deviations):
        return 0.0
    # As np.quantile, which takes longer to look at its arguments than to sort a few hundred values.
    values = np.sort(deviations)
    scales = []
    for level, normal in zip(_LEVELS[:levels], _NORMAL, strict=False):
        at = level * (len(values) - 1)
        low = values[int(at)]
        high = values[min(int(at) + 1, len(values) - 1)]
        scales.append((low + (high - low) * (at - int(at))) / normal)
    return float(max(scales))


def _growth(residual: Floats, lengths: list[int]) -> Floats:
    """Return by how much sums over windows of each length vary more than those of white noise."""
    known = ~np.isnan(residual)
    filled = np.where(known, residual, 0.0)
    holes = np.append(0, np.cumsum(~known))
    lag = max(len(residual) // _LAGS, 1)
    apart = np.abs(residual[lag:] - residual[:-lag])
    single = max(_scale(apart[~np.isnan(apart)], 1), _SMALLEST)
    result = np.empty(len(lengths))
    growth = 1.0
    for at, length in enumerate(lengths):
        total = _running(_clipped(filled, length))
        sums = total[length:] - total[:-length]
        whole = holes[length:] == holes[:-length]
        far = max(lag, length)
        apart = np.abs(sums[far:] - sums[:-far])[whole[far:] & whole[:-far]]
        if len(apart) >= 2 * length:
            growth = max(growth, _scale(apart, 1) / single / math.sqrt(length))
        elif at and growth > 1.5:
            # Too few to measure: noise that has been growing is taken to go on to do so.
            growth *= (length / lengths[at - 1]) ** 0.5
        result[at] = growth
    return result


def _clearest(
    values: Floats, flagged: Bools, noise: Noise, lengths: list[int], limit: float
) -> Run | None:
    """Return the run around the window that deviates most; None when none does enough."""
    residual = (values - noise.base) / noise.single
    residual[flagged] = 0.0
    best, where = 0.0, (0, 0)
    for length, growth in zip(lengths, noise.growth.tolist(), strict=True):
        total = _running(_clipped(residual, length))
        sums = total[length:] - total[:-length]
        at = int(np.argmax(np.abs(sums)))
        certain = _limit(limit, len(values) / (length + growth * growth - 1))
        score = abs(float(sums[at])) / (growth * math.sqrt(length)) / certain
        if score > best:
            best, where = score, (at, length)
    if best < 1.0:
        return None
    at, length = where
    residual = _clipped(residual, length)
    mean = float(residual[at : at + length].mean())
    first, last = _edges(residual, flagged, at, length, mean)
    return Run(first, last, mean > 0, best * limit)


def _likeliest(
    values: Floats, flagged: Bools, floor: float, lengths: list[int], limit: float
) -> Run | None:
    """Return the run that explains most, if it stands out from what is left without it.

    A shift that lasts for much of a short series is in most differences of its windows, and passes
    for noise with a memory. So the noise is measured again with the run taken back to the level.
    """
    free = np.flatnonzero(~flagged)
    if len(free) < MIN_POINTS:
        return None
    rest = values[free]
    first, last = best_split(rest)
    if first < 0:
        return None
    inside = np.zeros(len(rest), dtype=np.bool_)
    inside[first : last + 1] = True
    base, level = float(np.median(rest[~inside])), float(np.median(rest[inside]))
    even = np.where(inside, rest - level + base, rest)
    noise = measure(even, np.zeros(len(rest), dtype=np.bool_), floor, lengths)
    length = last - first + 1
    growth = float(np.interp(length, lengths, noise.growth))
    # Beyond this length the noise of windows is reckoned from that of shorter ones.
    measured = min(length, max(len(rest) // _REACH, MIN_RUN))
    certain = _limit(limit, len(rest) / (measured + growth * growth - 1))
    residual = (rest[inside] - base) / noise.single
    # No two buckets make a run, nor does less than half of it.
    most = certain * growth * math.sqrt(length) / _SHARES
    away = min(abs(float(np.clip(residual, -most, most).mean())), abs(level - base) / noise.single)
    # The mean of the rest is not certain either.
    score = away * math.sqrt(length * (1 - length / len(rest))) / growth / certain
    if score < 1.0 or away < _STANDS_OUT:
        return None
    return Run(int(free[first]), int(free[last]), level > base, score * limit)


def best_split(values: Floats) -> tuple[int, int]:
    """Return the window whose mean and that of the rest explain most of the variance."""
    count = len(values)
    low, high = np.quantile(values, _ENDS)
    clipped = np.clip(values, low, high)
    total = _running(clipped - clipped.mean())
    best, where = 0.0, (-1, -1)
    for length in range(MIN_RUN, count // 2 + 1):
        sums = total[length:] - total[:-length]
        squares = sums * sums
        at = int(squares.argmax())
        gain = float(squares[at]) / (length * (1 - length / count))
        if gain > best:
            best, where = gain, (at, at + length - 1)
    return where


def _limit(limit: float, windows: float) -> float:
    """Return the limit for a deviation that was itself measured from so many windows.

    The quantile of Student's t by the first term of its expansion (Abramowitz and Stegun 26.7.5).
    """
    return limit * (1 + (limit * limit + 1) / (4 * max(windows, 1.0)))


def _edges(residual: Floats, flagged: Bools, at: int, length: int, mean: float) -> tuple[int, int]:
    """Return the likeliest first and last bucket of the run that a window is the core of.

    What is nearer to the run's level than to the base belongs to it.
    """
    gain = residual * np.sign(mean) - abs(mean) / 2
    gain[flagged] = -np.inf
    middle = at + int(np.argmax(gain[at : at + length]))
    left = np.cumsum(gain[middle::-1])
    right = np.cumsum(gain[middle:])
    return middle - int(np.argmax(left)), middle + int(np.argmax(right))
