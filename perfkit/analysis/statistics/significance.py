"""Is a difference between two sides more than the noise between their runs?

The unit is the run (a capture, or where there is one a block of its time), never the request:
requests of one run share its luck, and a test over pooled requests calls noise a change more often
than not. Welch's test over one figure a run, and a minimum effect beside it, do not.

A family of tests is corrected for its size: by Holm's method where one false alarm spoils the
whole answer (a gate), by Benjamini and Hochberg's where the answer is a list to be read on (a
comparison).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkit.analysis.statistics.memory import inflation
from perfkit.analysis.statistics.moderated import moderate
from perfkit.analysis.statistics.student import critical, two_sided_p

Floats = NDArray[np.float64]
Verdict = Literal["grew", "shrank", "no evidence", "not tested"]
Method = Literal["holm", "benjamini-hochberg"]

LEVEL = 0.035
"""Two-sided. A regression, which is one side, is then called falsely in 1.3 of 100 comparisons, so
that of 1,000 hardly ever more than 20 are; and five runs a side still find 16 % (docs/ci.md)."""

NORMAL_MARGIN = NormalDist().inv_cdf(1 - LEVEL / 2)
"""Half the width of an interval at `LEVEL`, in standard errors, where these are known."""

MINIMUM_EFFECT = 0.05
"""A change of less than 5 % is not reported, however sure: runs differ by as much for no reason."""

MINIMUM_RUNS = 2
"""So many runs a side give a variance at all; five a side find what matters (docs/numbers.md)."""


class Change(NamedTuple):
    """One figure on two sides: means, the change, its confidence interval, and the p of no change.

    Change and interval are relative to `before` (0.1 is a tenth more) when `relative`, otherwise in
    the figure's own unit. They and `p` are NaN where there are too few runs.
    """

    before: float
    after: float
    change: float
    low: float
    high: float
    p: float
    relative: bool


class _Sides(NamedTuple):
    """What is tested: the figure of each run, or its logarithm."""

    before: Floats
    after: Floats
    logarithmic: bool

    @property
    def change(self) -> float:
        return _mean(self.after) - _mean(self.before)


class _Noise(NamedTuple):
    """The variance of the difference of two means, and its degrees of freedom."""

    variance: float
    freedom: float


def compare_runs(
    before: Floats, after: Floats, *, relative: bool = True, correlation: float = 0.0
) -> Change:
    """Compare one figure a run (NaN: not known in that run) on two sides by Welch's test.

    A relative change is tested on logarithms: noise of a latency is a factor, and `before` and
    `after` are geometric means. Where a figure is not above 0 in every run it is tested as it is.
    Welch (1947), Biometrika 34; degrees of freedom by Satterthwaite. Student's test is made too,
    and the less sure of both counts: where one side has two runs that happen to agree, Welch's
    alone calls noise a change in up to 7 of 100 cases.

    `correlation` is that of neighbouring runs, where these are blocks of time (`memory`): they then
    say as much as fewer runs.
    """
    sides = _sides(before, after, relative)
    return _change(sides, [_inflated(sides, one, correlation) for one in _noises(sides)], relative)


def _inflated(sides: _Sides, noise: _Noise, correlation: float) -> _Noise:
    """Return the noise of runs that follow each other and resemble the one before."""
    if correlation <= 0:
        return noise
    count = min(len(sides.before), len(sides.after))
    worth = (1 - correlation) / (1 + correlation)
    return _Noise(noise.variance * inflation(correlation, count), max(1.0, noise.freedom * worth))


def compare_family(pairs: Sequence[tuple[Floats, Floats]]) -> list[Change]:
    """Compare figures of one kind, each as `compare_runs` does, and their noise with each other's.

    The noise of each is drawn towards that of the others (`moderated`): with five runs a side of
    twenty figures a change of 16 % in one is found in 76 of 100 cases instead of 46.
    """
    family = [_sides(before, after, True) for before, after in pairs]
    noises = [_noises(sides) for sides in family]
    alike = [
        number
        for number, (sides, own) in enumerate(zip(family, noises, strict=True))
        if sides.logarithmic and own and not _still(sides, own)
    ]
    if alike:
        # Figures may be known in fewer runs than others: compared is the variance of one run.
        scale = np.array([_per_run(family[number]) for number in alike])
        together = [
            moderate(
                np.array([noises[number][test].variance for number in alike]) / scale,
                np.array([noises[number][test].freedom for number in alike]),
            )
            for test in (0, 1)
        ]
        for place, number in enumerate(alike):
            noises[number] = [
                _Noise(float(variance[place] * scale[place]), float(freedom[place]))
                for variance, freedom in together
            ]
    return [_change(sides, own, True) for sides, own in zip(family, noises, strict=True)]


def _sides(before: Floats, after: Floats, relative: bool) -> _Sides:
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    some = len(before) > 0 and len(after) > 0
    if relative and some and min(before.min(), after.min()) > 0:
        return _Sides(np.log(before), np.log(after), True)
    return _Sides(before, after, False)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _per_run(sides: _Sides) -> float:
    return 1 / len(sides.before) + 1 / len(sides.after)


def _noises(sides: _Sides) -> list[_Noise]:
    """Return the noise as Welch's test and as Student's has it; nothing where runs are too few."""
    both = (sides.before, sides.after)
    if min(map(len, both)) < MINIMUM_RUNS:
        return []
    freedoms = [len(side) - 1 for side in both]
    variances = [float(side.var(ddof=1)) for side in both]
    parts = [one / len(side) for one, side in zip(variances, both, strict=True)]
    total = sum(parts)
    spread = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    pooled = sum(one * freedom for one, freedom in zip(variances, freedoms, strict=True))
    student = _Noise(pooled / sum(freedoms) * _per_run(sides), sum(freedoms))
    return [_Noise(total, total**2 / spread if spread else sum(freedoms)), student]


def _still(sides: _Sides, noises: list[_Noise]) -> bool:
    return noises[0].variance <= 1e-24 * max(1.0, sides.change**2)


def _change(sides: _Sides, noises: list[_Noise], relative: bool) -> Change:
    one, other, change = _mean(sides.before), _mean(sides.after), sides.change
    low, high, p = _interval(sides, noises)
    if sides.logarithmic:
        change, low, high = (math.expm1(value) for value in (change, low, high))
        return Change(math.exp(one), math.exp(other), change, low, high, p, True)
    if relative and one > 0:
        change, low, high = (max(value / one, -1.0) for value in (change, low, high))
        return Change(one, other, change, low, high, p, True)
    return Change(one, other, change, low, high, p, False)


def _interval(sides: _Sides, noises: list[_Noise]) -> tuple[float, float, float]:
    """Return the interval of the difference of means, and the two-sided p."""
    if not noises:
        return math.nan, math.nan, math.nan
    change = sides.change
    if _still(sides, noises):
        return change, change, 1.0 if change == 0 else 0.0
    tests = [
        (two_sided_p(change / math.sqrt(noise.variance), noise.freedom), noise) for noise in noises
    ]
    p, noise = max(tests, key=lambda test: test[0])
    margin = critical(LEVEL, noise.freedom) * math.sqrt(noise.variance)
    return change - margin, change + margin, p


def adjusted(p: Floats, method: Method) -> Floats:
    """Return the p-values corrected for how many there are; NaN (not tested) stays and counts not.

    Holm (1979), Scandinavian Journal of Statistics 6, bounds the chance of any false alarm;
    Benjamini and Hochberg (1995), J. R. Statist. Soc. B 57, the share of false ones among alarms.
    """
    result = np.full(len(p), math.nan)
    tested = np.flatnonzero(np.isfinite(p))
    count = len(tested)
    order = tested[np.argsort(p[tested], kind="stable")]
    rank = np.arange(count)
    if method == "holm":
        corrected = np.maximum.accumulate(p[order] * (count - rank))
    else:
        corrected = np.minimum.accumulate((p[order] * count / (rank + 1))[::-1])[::-1]
    result[order] = np.minimum(corrected, 1.0)
    return result


def verdict(one: Change, p_adjusted: float, *, minimum_effect: float = MINIMUM_EFFECT) -> Verdict:
    """Return what a test says once its p is corrected: significant and large enough, or not.

    The minimum effect is relative, or in the figure's unit, as the change is.
    """
    if not math.isfinite(p_adjusted):
        return "not tested"
    size = _size(one.change) if one.relative else abs(one.change)
    least = math.log1p(minimum_effect) if one.relative else minimum_effect
    if p_adjusted >= LEVEL or size < least:
        return "no evidence"
    return "grew" if one.change > 0 else "shrank"


def _size(change: float) -> float:
    """Return a relative change as a distance on the scale on which halving undoes doubling."""
    return abs(math.log1p(change)) if change > -1 else math.inf
