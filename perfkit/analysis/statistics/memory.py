"""How much blocks of time resemble the block before them, and what that costs a test over them.

Blocks of one capture that follow each other share what wanders slowly (a busy neighbour, a filling
cache), so they say less than as many independent runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FEWEST = 4
_MOST = 0.8


def memory(series: Sequence[Floats]) -> float:
    """Return the correlation of neighbouring values within series, pooled over all; 0 to 0.8.

    NaN is not known. Of each series the mean is taken out, which makes the correlation of n values
    too small by about (1 + 3r) / n (Kendall 1954); that is put back.
    """
    estimates, sizes = [], []
    for one in series:
        known = np.isfinite(one)
        count = int(known.sum())
        if count < _FEWEST:
            continue
        values = one - one[known].mean()
        square = float((values[known] ** 2).mean())
        both = known[1:] & known[:-1]
        if square <= 0 or not both.any():
            continue
        estimates.append(float((values[1:] * values[:-1])[both].mean()) / square)
        sizes.append(count)
    if not estimates:
        return 0.0
    r, n = float(np.mean(estimates)), float(np.mean(sizes))
    # With pairs averaged over n - 1 and squares over n, white noise has -1 / (n - 1).
    return float(np.clip((r + 1 / (n - 1)) / (1 - min(3 / (n - 1), 0.9)), 0.0, _MOST))


def inflation(correlation: float, count: int) -> float:
    """Return how many times larger the variance of a mean is than `count` values seem to say.

    For values each of which is `correlation` times the one before, plus noise: the variance of the
    mean by what the variance among the values suggests on average.
    """
    if correlation <= 0 or count < 2:
        return 1.0
    lag = np.arange(1, count)
    of_mean = float(1 + 2 * np.sum((1 - lag / count) * correlation**lag)) / count
    return of_mean * (count - 1) / (1 - of_mean)
