"""Fisher's exact test: is something more frequent in one group than its share of all explains?"""

from __future__ import annotations

import math

import numpy as np

from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import Floats


def more_frequent(with_it: Ints, group: Ints, all_with_it: Ints, everyone: Ints) -> Floats:
    """Return the one-sided p of each test: `with_it` or more of a `group` have what
    `all_with_it` of `everyone` have, if the group were drawn at random (the hypergeometric tail).
    """
    last = int(everyone.max(initial=0)) + 1
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, last + 1)))])

    def choose(n: Ints | int, k: Ints | int) -> Floats:
        result: Floats = logs[n] - logs[k] - logs[np.subtract(n, k)]
        return result

    p = np.ones(len(with_it))
    for test, (a, n, k, total) in enumerate(
        zip(*(one.tolist() for one in (with_it, group, all_with_it, everyone)), strict=True)
    ):
        most = min(n, k)
        if a <= max(0, n + k - total) or a > most:
            continue
        counts = np.arange(a, most + 1)
        terms = choose(k, counts) + choose(total - k, n - counts) - choose(total, n)
        p[test] = min(1.0, math.fsum(np.exp(terms)))
    return p
