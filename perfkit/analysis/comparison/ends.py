"""Which end of a slow way between two services is to blame: the caller, or whom it calls.

The time between a call and its arrival is the callee's (`calls`): its network, its queue. But a
caller whose answers and questions leave late (its network is slow, or it has no time to read) is
slow towards all. So a way is the caller's when most of the caller's other ways are late as well,
and more of them than of the callee's.
"""

from __future__ import annotations

import numpy as np

from perfkit.analysis.comparison.call_kinds import Calls
from perfkit.analysis.statistics.significance import MINIMUM_EFFECT
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.percentiles import Floats, codes
from perfkit.analysis.vector.summary import sums

_MOST = 0.5
"""By calls, each as far as it is as late as the way in question."""


def owners_of_ways(calls: Calls, excess: Floats, judged: Bools) -> Ints:
    """Return who answers for each span's own time, given the time beyond normal of judged ones."""
    number = {name: owner for owner, name in enumerate(calls.owners)}
    place, services = codes(calls.frame, ["service"])
    caller = np.array([number.get(name, -1) for name in services["service"]], dtype=np.int64)[place]
    ways = judged & (caller >= 0) & (caller != calls.owner)
    pair, way = np.unique(caller[ways] * len(calls.owners) + calls.owner[ways], return_inverse=True)
    count, own, late = (
        sums(way, (of * calls.weight)[ways], len(pair))
        for of in (np.ones(len(excess)), calls.own, excess)
    )
    ends = np.stack([pair // len(calls.owners), pair % len(calls.owners)])
    each = np.divide(late, count, out=np.zeros(len(pair)), where=count > 0)
    late_ways = np.flatnonzero(late > MINIMUM_EFFECT * (own - late)).tolist()
    blamed = [one for one in late_ways if _is_the_callers(one, ends, each, count)]
    theirs = np.isin(caller * len(calls.owners) + calls.owner, pair[blamed]) & (caller >= 0)
    result: Ints = np.where(theirs, caller, calls.owner)
    return result


def _is_the_callers(way: int, ends: Ints, each: Floats, count: Floats) -> bool:
    """Say whether a way's caller is late towards others too, more than others to its callee."""
    as_late = np.minimum(each / each[way], 1.0)
    shares = []
    for end in ends[:, way]:
        others = (ends == end).any(axis=0)
        others[way] = False
        total = count[others].sum()
        shares.append((as_late * count)[others].sum() / total if total > 0 else 0.0)
    return bool(shares[0] >= _MOST and shares[0] > shares[1])
