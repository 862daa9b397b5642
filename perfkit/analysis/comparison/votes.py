"""Votes of requests for the components that changed them: the evidence behind a root cause.

A population of spans is judged by another, which says what is normal. Every judged request has at
most one vote of each kind, and shares it out among components:

- **latency**: by the part of the request's work that lies beyond normal: self time longer than its
  like among normal spans of the same operation (`excess`), and calls repeated more often than in 99
  of 100 parents;
- **behaviour**: by spans that failed, or whose set of children is not a usual one (calls missing,
  calls that are new), where nothing below them is unusual: an error counts where it begins, not
  where it passes through.

How strong a vote is, is in both cases the attributable fraction: the part of what is observed that
would not be there at the normal rate, taken at its upper bound (Wilson 1927, one-sided 95 %), so
that what few observations say counts for little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from perfkit.analysis.comparison.call_kinds import Calls
from perfkit.analysis.comparison.excess import Values, beyond, upper_bound
from perfkit.analysis.comparison.sides import Seen, Sides
from perfkit.analysis.statistics.fisher import more_frequent
from perfkit.analysis.statistics.significance import LEVEL, MINIMUM_EFFECT
from perfkit.analysis.vector.forest import Bools, Ints, nearest_marked
from perfkit.analysis.vector.percentiles import Floats, quantiles
from perfkit.analysis.vector.summary import sums

NORMAL_LEVEL = 0.99
SURE_Z = 1.645
"""Normal quantile of one-sided 95 %."""
_LEAST = 0.01
"""A smaller part of what is observed is rounding, not evidence."""


class Strength(NamedTuple):
    """What speaks for a change, by span; 0 for spans that are not judged."""

    excess: Floats
    """Time beyond normal, in ns; of repeated calls it is with the caller."""
    unusual: Floats
    """Strength of the vote for behaviour, where it begins."""


@dataclass(frozen=True)
class Tally:
    """Votes added up: one row an owner, one column a block of requests."""

    latency: Floats
    behaviour: Floats
    latency_squares: Floats
    behaviour_squares: Floats
    """Sums of squares of each request's votes: the variance of a sum of votes that come at random
    (a compound Poisson variable)."""
    requests: Floats
    """In how many of the judged requests each owner has a part."""

    def __add__(self, other: Tally) -> Tally:
        """Return both together."""
        pairs = zip(self.parts(), other.parts(), strict=True)
        return Tally(*(one + more for one, more in pairs))

    def total(self, without: int | None = None) -> Tally:
        """Return the sums over all blocks, or all but one: arrays by owner."""
        kept = np.arange(self.requests.shape[1]) != without
        return Tally(*(part[:, kept].sum(axis=1) for part in self.parts()))

    def parts(self) -> tuple[Floats, ...]:
        """Return all arrays, in the order of the fields."""
        return (
            *(self.latency, self.behaviour, self.latency_squares, self.behaviour_squares),
            self.requests,
        )


class Blocks(NamedTuple):
    """Which block of requests, of so many, each span belongs to."""

    of_span: Ints
    number: int


def judge(calls: Calls, sides: Sides, *, sure: bool = False) -> Strength:
    """Judge some spans by others.

    When sure, hardly ever is there any vote at all unless something differs: bounds are those of
    all that is looked at together, and an operation has to take longer by as much as is reported.
    """
    z = _z_of_all(calls, sides.judged) if sure else SURE_Z
    rows = np.flatnonzero(sides.judged)
    excess = _excess(calls, sides, rows, z, sure)
    return Strength(excess, _origins(calls, _unusual(calls, sides, rows, sure)))


def cast(calls: Calls, judged: Bools, strength: Strength, blocks: Blocks) -> Tally:
    """Let each judged request vote for the owners of its spans."""
    rows = np.flatnonzero(judged)
    excess, unusual = strength
    entries, request = _numbered(calls.entry[rows], len(calls.entry))
    owners = len(calls.owners)
    weight = calls.weight[entries]
    pair = request * owners + calls.owner[rows]
    present, of_pair = np.unique(pair, return_inverse=True)
    work = np.bincount(request, calls.own[rows], len(entries))
    late = np.bincount(request, excess[rows], len(entries))
    # The share of the request's work that is beyond normal, but never more than one vote.
    per_late = np.divide(weight, np.maximum(work, late), out=np.zeros(len(work)), where=work > 0)
    odd = np.bincount(request, unusual[rows], len(entries))
    # Many spans of one request say the same again: it votes as strongly as its strongest.
    strongest = np.zeros(len(entries))
    np.maximum.at(strongest, request, unusual[rows])
    per_odd = weight * np.divide(strongest, odd, out=np.zeros(len(odd)), where=odd > 0)
    latency = sums(of_pair, excess[rows] * per_late[request], len(present))
    behaviour = sums(of_pair, unusual[rows] * per_odd[request], len(present))
    cell = (present % owners) * blocks.number + blocks.of_span[entries[present // owners]]
    columns = (latency, behaviour, latency**2, behaviour**2, weight[present // owners])
    return Tally(
        *(
            sums(cell, column, owners * blocks.number).reshape(owners, blocks.number)
            for column in columns
        )
    )


def _z_of_all(calls: Calls, judged: Bools) -> float:
    """Return how many deviations a share has to be off, that of all of them one is so by chance in
    `LEVEL` of the cases: Hoeffding's bound, which holds for a distribution's ranks as well.
    """
    tests = len(np.unique(calls.operation[judged])) + len(np.unique(calls.pattern[judged]))
    return math.sqrt(2 * math.log(max(tests, 1) / LEVEL))


def _numbered(rows: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the distinct rows of 0 to `size` - 1, ascending, and which of them each one is."""
    # As np.unique with return_inverse, but without sorting.
    marked = np.zeros(size, dtype=np.bool_)
    marked[rows] = True
    return np.flatnonzero(marked), (np.cumsum(marked) - 1)[rows]


def _excess(calls: Calls, sides: Sides, rows: Ints, z: float, sure: bool) -> Floats:
    """Return the time beyond normal of each judged span."""
    operations, usual = len(sides.seen.times), sides.usual.operation
    known = np.bincount(calls.operation, usual, operations) > 0
    values = Values(calls.operation, operations, calls.own)
    judged = np.zeros(len(calls.own))
    judged[rows] = calls.weight[rows]
    excess = np.nan_to_num(beyond(values, usual, judged, sides.seen.times, z, sure=sure))
    if sure:
        more = sums(calls.operation, excess * judged, operations)
        usually = sums(calls.operation, calls.own * judged, operations) - more
        excess[(more < MINIMUM_EFFECT * usually)[calls.operation]] = 0.0
    _charge_new(calls, sides.seen, rows, known, excess, z)
    _charge_repeats(calls, sides.normal, rows, excess)
    return excess


def _charge_new(
    calls: Calls, seen: Seen, rows: Ints, known: Bools, excess: Floats, z: float
) -> None:
    """Charge what is not done normally at all to whoever does it now, if that one is known."""
    new = rows[~known[calls.operation[rows]]]
    if not len(new):
        return
    above = nearest_marked(calls.parent, known[calls.operation])[new]
    new, above = new[above >= 0], above[above >= 0]
    parents = seen.operations[calls.operation[above]]
    now = np.bincount(calls.operation[rows], minlength=len(known))
    rate = now[calls.operation[new]] / now[calls.operation[above]]
    strength = _attributable(np.minimum(rate, 1.0), np.zeros(len(new)), parents, z)
    np.add.at(excess, above, calls.own[new] * strength)


def _charge_repeats(calls: Calls, normal: Bools, rows: Ints, excess: Floats) -> None:
    """Charge calls beyond the usual number under one parent to that parent."""
    parent, number, duration, kind, kinds = calls.repeats
    usual = normal[parent]
    weight = calls.weight[parent]
    limit = quantiles(kind[usual], number[usual], weight[usual], kinds, [NORMAL_LEVEL])
    judged = np.zeros(len(calls.parent), dtype=np.bool_)
    judged[rows] = True
    more = np.nan_to_num(number - limit[kind, 0])
    some = judged[parent] & (more > 0)
    share = more[some] / number[some]
    np.add.at(excess, parent[some], share * duration[some])


def _unusual(calls: Calls, sides: Sides, rows: Ints, sure: bool) -> Floats:
    """Return for each judged span how unusual its failure, or its set of children, is."""
    usual, seen = sides.usual, sides.seen
    places = len(seen.places)
    before, now = (
        np.bincount(calls.place, usual.place, places),
        np.bincount(calls.place[rows], minlength=places),
    )
    place_of_pattern = np.zeros(calls.patterns, dtype=np.int64)
    place_of_pattern[calls.pattern] = calls.place
    result = np.zeros(len(calls.own))
    for observed, group, place in (
        (np.ones(len(calls.own), dtype=np.bool_), calls.pattern, place_of_pattern),
        (calls.failed, calls.place, np.arange(places)),
    ):
        usually = np.bincount(group, usual.place * observed, len(place))
        after = np.bincount(group[rows[observed[rows]]], minlength=len(place))
        share = np.divide(usually, before[place], out=np.zeros(len(place)), where=before[place] > 0)
        strength = _attributable(
            after / np.maximum(now[place], 1),
            share,
            np.where(before[place] > 0, seen.places[place], 0.0),
            SURE_Z,
        )
        if sure:
            some = np.flatnonzero((strength > 0) & (after > 0))
            n = np.rint(seen.normal_places[place[some]]).astype(np.int64)
            k = np.rint(share[some] * n).astype(np.int64)
            m = now[place[some]]
            p = more_frequent(after[some], m, after[some] + k, m + n)
            strength[some[p * calls.patterns >= LEVEL]] = 0.0
        result[rows] = np.maximum(
            result[rows], np.where(observed[rows], strength[group[rows]], 0.0)
        )
    return result


def _attributable(rate: Floats, share: Floats, of: Floats, z: float) -> Floats:
    """Return the part of a rate that is beyond the upper bound of a share, seen in so many."""
    bound = np.where(of >= 1, upper_bound(share, np.maximum(of, 1.0), z), 1.0)
    part = 1.0 - np.divide(bound, rate, out=np.ones(len(rate)), where=rate > 0)
    limited: Floats = np.where(part < _LEAST, 0.0, part)
    return limited


def _origins(calls: Calls, unusual: Floats) -> Floats:
    """Return the strength only of those that have nothing unusual below them."""
    marked = np.append(0, np.cumsum(unusual > 0))
    rows = np.arange(len(unusual))
    below = marked[rows + calls.frame["subtree"].to_numpy()] - marked[rows + 1]
    return np.where(below > 0, 0.0, unusual)
