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
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkit.analysis.statistics.student import critical, two_sided_p

Floats = NDArray[np.float64]
Verdict = Literal["grew", "shrank", "no evidence", "not tested"]
Method = Literal["holm", "benjamini-hochberg"]

LEVEL = 0.035
"""Two-sided; a regression, which is one side, is then called falsely in less than 2 of 100 cases:
1.3 with five runs a side (20,000 trials at 5 % noise; 1.5 at a level of 0.04), and a change of 16 %
is found in 96 (95 at 0.03)."""

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


def compare_runs(before: Floats, after: Floats, *, relative: bool = True) -> Change:
    """Compare one figure a run (NaN: not known in that run) on two sides by Welch's test.

    A relative change is tested on logarithms: noise of a latency is a factor, and `before` and
    `after` are geometric means. Where a figure is not above 0 in every run it is tested as it is.
    Welch (1947), Biometrika 34; degrees of freedom by Satterthwaite.
    """
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    some = len(before) > 0 and len(after) > 0
    logarithmic = relative and some and min(before.min(), after.min()) > 0
    if logarithmic:
        before, after = np.log(before), np.log(after)
    one, other = (_mean(side) for side in (before, after))
    low, high, p = _welch(before, after)
    change = other - one
    if logarithmic:
        change, low, high = (math.expm1(value) for value in (change, low, high))
        return Change(math.exp(one), math.exp(other), change, low, high, p, True)
    if relative and one > 0:
        change, low, high = (max(value / one, -1.0) for value in (change, low, high))
        return Change(one, other, change, low, high, p, True)
    return Change(one, other, change, low, high, p, False)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _welch(before: Floats, after: Floats) -> tuple[float, float, float]:
    """Return the interval of the difference of means, and the two-sided p."""
    if min(len(before), len(after)) < MINIMUM_RUNS:
        return math.nan, math.nan, math.nan
    change = float(after.mean() - before.mean())
    parts = [float(side.var(ddof=1)) / len(side) for side in (before, after)]
    total = sum(parts)
    if total <= 1e-24 * max(1.0, change * change):
        return change, change, 1.0 if change == 0 else 0.0
    freedom = total**2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (before, after), strict=True)
    )
    error = math.sqrt(total)
    margin = critical(LEVEL, freedom) * error
    return change - margin, change + margin, two_sided_p(change / error, freedom)


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
