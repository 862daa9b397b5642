"""Time beyond normal: how much longer each value is than its like on the normal side.

Values of two sides are matched by rank: the longest with the longest, the middle with the middle
(the transport that moves least from one distribution to the other). So a longer tail is seen as
well as a body that moved, each by as much as it did. The normal value is taken at the upper bound
of its rank (Wilson 1927, one-sided), so that what few observations say counts for little.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.overlaps import order_by
from perfkit.analysis.vector.percentiles import Floats


class Values(NamedTuple):
    """Values in groups, 0 to `groups` - 1."""

    group: Ints
    groups: int
    value: Floats


class _Side(NamedTuple):
    """One side: its values by group, in each group ascending."""

    rows: Ints
    first: Ints
    """Where each group begins, and where the last one ends."""
    until: Floats
    """Sum of the weights up to and with each value, after a leading 0."""

    @classmethod
    def of(cls, values: Values, weight: Floats) -> _Side:
        rows = np.flatnonzero(weight > 0)
        group, value = values.group[rows], values.value[rows].astype(np.int64)
        rows = rows[order_by(group, value, values.groups, stable=False)]
        group = values.group[rows]
        first = np.searchsorted(group, np.arange(values.groups + 1))
        return cls(rows, first, np.append(0.0, np.cumsum(weight[rows])))

    def total(self, group: Ints) -> Floats:
        """Return the sum of weights of the groups."""
        return self.until[self.first[group + 1]] - self.until[self.first[group]]


def beyond(
    values: Values, normal: Floats, judged: Floats, of: Floats, z: float, *, sure: bool = False
) -> Floats:
    """Return how far each judged value is beyond its match, not below 0.

    Both sides are given by the weight of their values, 0 for what belongs not to them. NaN stands
    for what is not judged, or whose group has no normal value. `of` says in how many observations a
    rank is seen, for each group; `z` is the normal quantile of the bound. A bound may lie higher
    than the highest normal value: that one is then taken, unless the answer has to be sure.
    """
    one, other = _Side.of(values, normal), _Side.of(values, judged)
    group = values.group[other.rows]
    known = one.first[group + 1] > one.first[group]
    rows, group = other.rows[known], group[known]
    middle = other.until[1:][known] - judged[rows] / 2
    rank = (middle - other.until[other.first[group]]) / other.total(group)
    rank = upper_bound(np.clip(rank, 0.0, 1.0), np.maximum(of[group], 1e-9), z)
    # The normal value that is observed at this rank: the first whose sum of weights reaches it.
    sought = one.until[one.first[group]] + rank * one.total(group) * (1 - 1e-12)
    place = np.searchsorted(one.until[1:], sought)
    match = one.rows[np.clip(place, one.first[group], one.first[group + 1] - 1)]
    more = np.maximum(values.value[rows] - values.value[match], 0.0)
    if sure:
        more[rank > 1 - 1 / (one.first[group + 1] - one.first[group])] = 0.0
    result = np.full(len(values.value), np.nan)
    result[rows] = more
    return result


def effective(group: Ints, weight: Floats, groups: int) -> Floats:
    """Return how many equal observations each group is worth (Kish 1965).

    What was sampled and stands for many was still seen once.
    """
    total = np.bincount(group, weight, groups)
    squares = np.bincount(group, weight * weight, groups)
    number: Floats = np.divide(total * total, squares, out=np.zeros(groups), where=squares > 0)
    return number


def upper_bound(share: Floats, of: Floats, z: float) -> Floats:
    """Return the upper bound of a share that was seen in so many (at least some)."""
    z2 = z * z
    bound = share + z2 / (2 * of) + z * np.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    bounded: Floats = np.minimum(bound / (1 + z2 / of), 1.0)
    return bounded
