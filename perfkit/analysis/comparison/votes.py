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
import polars as pl

from perfkit.analysis.comparison.excess import Values, beyond, effective, upper_bound
from perfkit.analysis.statistics.fisher import more_frequent
from perfkit.analysis.statistics.significance import LEVEL, MINIMUM_EFFECT
from perfkit.analysis.vector.forest import Bools, Ints, nearest_marked
from perfkit.analysis.vector.percentiles import Floats, codes, quantiles
from perfkit.analysis.vector.summary import sums

NORMAL_LEVEL = 0.99
SURE_Z = 1.645
"""Normal quantile of one-sided 95 %."""
_LEAST = 0.01
"""A smaller part of what is observed is rounding, not evidence."""

OPERATION = ("service", "name", "callee")
_PLACE = ("service", "name", "above")


class Repeats(NamedTuple):
    """How often each parent makes each call: one entry a parent and operation."""

    parent: Ints
    number: Ints
    duration: Ints
    """Sum over the calls, in ns."""
    kind: Ints
    """Number of the operation and that of its parent."""
    kinds: int


@dataclass(frozen=True)
class Calls:
    """The spans of `calls.charged` as arrays, numbered by what they are compared by."""

    frame: pl.DataFrame
    operation: Ints
    """Number of service, name and callee."""
    place: Ints
    """Number of service, name and parent's name."""
    pattern: Ints
    """Number of the place and the set of what is right below."""
    patterns: int
    repeats: Repeats
    endpoint: Ints
    """Number of what the span's request was for."""
    owner: Ints
    owners: list[str]
    entry: Ints
    parent: Ints
    own: Floats
    weight: Floats
    failed: Bools

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Calls:
        """Number the spans of both sides alike."""
        operation, _ = codes(frame, OPERATION)
        place, _ = codes(frame, _PLACE)
        owner, owners = codes(frame, ["owner"])
        parent = frame["parent"].to_numpy()
        called, _ = codes(frame, [*OPERATION, "target"])
        below = _sets_below(frame, parent, called)
        pattern, patterns = codes(
            pl.DataFrame({"place": place, "below": below}), ["place", "below"]
        )
        return cls(
            frame,
            operation,
            place,
            pattern,
            patterns.height,
            _repeats(frame, parent, operation),
            _endpoints(frame, parent, operation, called),
            owner,
            owners["owner"].to_list(),
            frame["entry"].to_numpy(),
            parent,
            frame["own_ns"].to_numpy().astype(np.float64),
            frame["weight"].to_numpy(),
            frame["failed"].to_numpy(),
        )


@dataclass(frozen=True)
class Votes:
    """What the judged spans say; arrays are by span (0 elsewhere), or by owner."""

    excess: Floats
    """Time beyond normal of each span, in ns; of repeated calls it is with the caller."""
    unusual: Floats
    """Strength of each span's vote for behaviour, where it begins."""
    tally: Tally


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


class Usual(NamedTuple):
    """How much each normal span weighs (0 for others), so that requests are mixed as on the judged
    side: what an operation does depends on what it is asked for.

    Of each operation, and of each place, the endpoints have the shares that they have there (direct
    standardisation).
    """

    operation: Floats
    place: Floats

    @classmethod
    def of(cls, calls: Calls, normal: Bools, judged: Bools) -> Usual:
        """Weigh the normal spans."""
        groups = (calls.operation, calls.place)
        return cls(*(_mixed_alike(calls, normal, judged, group) for group in groups))


class Seen(NamedTuple):
    """In how many observations bounds are taken: those of the two sides that are compared.

    Halves of a side that judge each other are given these as well, not their own: votes of one kind
    of judging are then those of the other, when nothing changed.
    """

    times: Floats
    """By operation, for its distribution of self times."""
    operations: Floats
    """By operation, for what was never seen below it: normal spans."""
    places: Floats
    """By place, for shares of its spans."""
    normal_places: Floats
    """By place, normal spans."""

    @classmethod
    def of(cls, calls: Calls, normal: Bools, judged: Bools) -> Seen:
        """Count two sides."""
        usual = Usual.of(calls, normal, judged)
        weight = np.where(judged, calls.weight, 0.0)
        times, operations = _pooled(calls.operation, usual.operation, weight)
        return cls(times, operations, *_pooled(calls.place, usual.place, weight))


def _pooled(group: Ints, normal: Floats, judged: Floats) -> tuple[Floats, Floats]:
    """Return n m / (n + m) of each group, in which a difference between two sides is seen, and n:
    how many observations are on the normal side, m on the judged one.
    """
    groups = int(group.max(initial=-1)) + 1
    n, m = (effective(group, side, groups) for side in (normal, judged))
    return np.divide(n * m, n + m, out=np.zeros(groups), where=n + m > 0), n


def _mixed_alike(calls: Calls, normal: Bools, judged: Bools, group: Ints) -> Floats:
    cell, of = _cells(group, calls.endpoint)
    sides = [sums(cell[side], calls.weight[side], len(of)) for side in (normal, judged)]
    shared = sides[1] * (sides[0] > 0)
    # Where the sides share no endpoint of an operation, all normal ones count as they are.
    none = sums(of, shared, int(of.max(initial=-1)) + 1)[of] == 0
    factor = np.divide(shared, sides[0], out=np.zeros(len(of)), where=sides[0] > 0)
    weight = calls.weight * np.where(none, 1.0, factor)[cell]
    result: Floats = np.where(normal, weight, 0.0)
    return result


def _cells(group: Ints, endpoint: Ints) -> tuple[Ints, Ints]:
    """Number the pairs of group and endpoint, and say of each number which group it is of."""
    endpoints = int(endpoint.max(initial=-1)) + 1
    groups = int(group.max(initial=-1)) + 1
    pair = group * endpoints + endpoint
    if groups * endpoints <= 4 * len(pair):
        return pair, np.repeat(np.arange(groups), endpoints)
    cell, pairs = codes(pl.DataFrame({"pair": pair}), ["pair"])
    return cell, pairs["pair"].to_numpy() // endpoints


def cast(
    calls: Calls, normal: Bools, judged: Bools, seen: Seen, blocks: Blocks, *, sure: bool = False
) -> Votes:
    """Judge some spans by others; whole requests are in the one or the other.

    When sure, hardly ever is there any vote at all unless something differs: bounds are those of
    all that is looked at together, and an operation has to take longer by as much as is reported.
    """
    z = _z_of_all(calls, judged) if sure else SURE_Z
    rows = np.flatnonzero(judged)
    usual = Usual.of(calls, normal, judged)
    excess = _excess(calls, normal, rows, usual, seen, z, sure)
    unusual = _origins(calls, _unusual(calls, rows, usual, seen, sure))
    entries, request = numbered(calls.entry[rows], len(calls.entry))
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
    tally = Tally(
        *(
            sums(cell, column, owners * blocks.number).reshape(owners, blocks.number)
            for column in columns
        )
    )
    return Votes(excess, unusual, tally)


def beyond_normal(calls: Calls, normal: Bools, judged: Bools, seen: Seen) -> Floats:
    """Return the time beyond normal of each judged span, in ns; 0 for others."""
    usual = Usual.of(calls, normal, judged)
    return _excess(calls, normal, np.flatnonzero(judged), usual, seen, SURE_Z, False)


def _z_of_all(calls: Calls, judged: Bools) -> float:
    """Return how many deviations a share has to be off, that of all of them one is so by chance in
    `LEVEL` of the cases: Hoeffding's bound, which holds for a distribution's ranks as well.
    """
    tests = len(np.unique(calls.operation[judged])) + len(np.unique(calls.pattern[judged]))
    return math.sqrt(2 * math.log(max(tests, 1) / LEVEL))


def numbered(rows: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the distinct rows of 0 to `size` - 1, ascending, and which of them each one is."""
    # As np.unique with return_inverse, but without sorting.
    marked = np.zeros(size, dtype=np.bool_)
    marked[rows] = True
    return np.flatnonzero(marked), (np.cumsum(marked) - 1)[rows]


def _sets_below(frame: pl.DataFrame, parent: Ints, called: Ints) -> Ints:
    """Return a hash of the set of operations right below each span; 0 where nothing is.

    A call is told apart by what it reached, whatever its name. Whom it reached was for its caller
    to choose, though: of a call itself counts only that it arrived.
    """
    below = np.flatnonzero(parent >= 0)
    above = parent[below]
    arrived = frame["callee"].is_not_null().to_numpy()
    arrived &= np.bincount(above, minlength=len(parent)) == 1
    sets = (
        pl.DataFrame({"parent": above, "called": np.where(arrived[above], -1, called[below])})
        .unique()
        .with_columns(hash=pl.col("called").hash(seed=0))
        .group_by("parent")
        .agg(pl.col("hash").sum().reinterpret(signed=True))
    )
    result = np.zeros(len(parent), dtype=np.int64)
    result[sets["parent"].to_numpy()] = sets["hash"].to_numpy()
    return result


def _endpoints(frame: pl.DataFrame, parent: Ints, operation: Ints, called: Ints) -> Ints:
    """Return the number of what each span's request was for.

    That is the operation that it begins with; but for a router, an operation that calls one other
    at most, and not always the same, with the one that it reached.
    """
    below = np.flatnonzero((parent >= 0) & frame["callee"].is_not_null().to_numpy())
    calls = np.bincount(parent[below], minlength=len(parent))
    reached = np.full(len(parent), -1)
    reached[parent[below]] = called[below]
    entries = np.flatnonzero(parent < 0)
    described = pl.DataFrame(
        {"operation": operation[entries], "calls": calls[entries], "reached": reached[entries]}
    )
    router = (pl.col("calls").max() <= 1).over("operation")
    described = described.with_columns(reached=pl.when(router).then("reached"))
    endpoint = np.zeros(len(parent), dtype=np.int64)
    endpoint[entries], _ = codes(described, ["operation", "reached"])
    result: Ints = endpoint[frame["entry"].to_numpy()]
    return result


def _repeats(frame: pl.DataFrame, parent: Ints, operation: Ints) -> Repeats:
    called = pl.DataFrame(
        {"parent": parent, "operation": operation, "duration": frame["duration_ns"]}
    ).filter(parent >= 0)
    groups = called.group_by("parent", "operation").agg(
        number=pl.len().cast(pl.Int64), duration=pl.col("duration").sum()
    )
    above = groups["parent"].to_numpy()
    kind, kinds = codes(
        groups.select("operation", of=pl.Series(operation[above])), ["operation", "of"]
    )
    number, duration = groups["number"].to_numpy(), groups["duration"].to_numpy()
    return Repeats(above, number, duration, kind, kinds.height)


def _excess(
    calls: Calls, normal: Bools, rows: Ints, usual: Usual, seen: Seen, z: float, sure: bool
) -> Floats:
    """Return the time beyond normal of each judged span."""
    operations = len(seen.times)
    known = np.bincount(calls.operation, usual.operation, operations) > 0
    values = Values(calls.operation, operations, calls.own)
    judged = np.zeros(len(calls.own))
    judged[rows] = calls.weight[rows]
    excess = np.nan_to_num(beyond(values, usual.operation, judged, seen.times, z, sure=sure))
    if sure:
        more = sums(calls.operation, excess * judged, operations)
        usually = sums(calls.operation, calls.own * judged, operations) - more
        excess[(more < MINIMUM_EFFECT * usually)[calls.operation]] = 0.0
    _charge_new(calls, seen, rows, known, excess, z)
    _charge_repeats(calls, normal, rows, excess)
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


def _unusual(calls: Calls, rows: Ints, usual: Usual, seen: Seen, sure: bool) -> Floats:
    """Return for each judged span how unusual its failure, or its set of children, is."""
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
