"""Fisher's exact test: is something more frequent in one group than its share of all explains?"""

from __future__ import annotations

import itertools

import numpy as np

from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import Floats

_TERMS = 1_000_000
"""So many at once are in memory."""


def more_frequent(with_it: Ints, group: Ints, all_with_it: Ints, everyone: Ints) -> Floats:
    """Return the one-sided p of each test: `with_it` or more of a `group` have what
    `all_with_it` of `everyone` have, if the group were drawn at random (the hypergeometric tail).
    """
    last = int(everyone.max(initial=0)) + 1
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, last + 1)))])

    def choose(n: Ints, k: Ints) -> Floats:
        result: Floats = logs[n] - logs[k] - logs[np.subtract(n, k)]
        return result

    p = np.ones(len(with_it))
    most = np.minimum(group, all_with_it)
    tests = np.flatnonzero(
        (with_it > np.maximum(0, group + all_with_it - everyone)) & (with_it <= most)
    )
    lengths = (most - with_it + 1)[tests]
    for part in _parts(lengths):
        mine, length = tests[part], lengths[part]
        first = np.cumsum(length) - length
        counts = np.arange(length.sum()) + np.repeat(with_it[mine] - first, length)
        n, k, total = (np.repeat(one[mine], length) for one in (group, all_with_it, everyone))
        terms = choose(k, counts) + choose(total - k, n - counts) - choose(total, n)
        p[mine] = np.minimum(1.0, np.add.reduceat(np.exp(terms), first))
    return p


def _parts(lengths: Ints) -> list[slice]:
    """Return slices of tests that have not many more terms together than `_TERMS`."""
    part = np.cumsum(lengths) // _TERMS
    cuts = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(lengths)]
    return [slice(low, high) for low, high in itertools.pairwise(cuts) if low < high]
