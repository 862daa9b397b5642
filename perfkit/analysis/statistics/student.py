"""Student's t distribution, for any positive degrees of freedom.

Welch's test has fractional degrees of freedom, so the closed forms for whole ones do not serve, and
a library with this function would be the largest dependency of all for these two.
"""

from __future__ import annotations

import math
from statistics import NormalDist

_STEPS = 500
_TINY = 1e-300


def two_sided_p(t: float, freedom: float) -> float:
    """Return the probability of a value at least as far from 0 as `t`.

    By the regularised incomplete beta function (Abramowitz and Stegun 26.5.27 and 26.7.1).
    """
    if not math.isfinite(t):
        return 0.0
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def critical(level: float, freedom: float) -> float:
    """Return the t beyond which, on both sides together, lies the probability `level`.

    The p falls ever less steeply with t, so Newton's steps from below never pass the root. The
    normal distribution's is below, as its tails are thinner.
    """
    t = NormalDist().inv_cdf(1 - level / 2)
    for _ in range(_STEPS):
        step = (two_sided_p(t, freedom) - level) / (2 * _density(t, freedom))
        t += step
        if step < 1e-12 * t:
            break
    return t


def _density(t: float, freedom: float) -> float:
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    log -= math.log(freedom * math.pi) / 2 + (freedom + 1) / 2 * math.log1p(t * t / freedom)
    return math.exp(log)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log + a * math.log(x) + b * math.log1p(-x)) / a
    return front * _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta (26.5.8) by Lentz's method."""
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
