"""Votes of requests for the components that changed them: the evidence behind a root cause.

A population of spans is judged by another, which says what is normal. Every judged request has at
most one vote of each kind, and shares it out among components:

- **latency**: by the part of the request's work that lies beyond normal: self time over the 99th
  percentile of the same operation, and calls repeated more often than in 99 of 100 parents;
- **behaviour**: by spans that failed, or whose set of children is not a usual one (calls missing,
  calls that are new), where nothing below them is unusual: an error counts where it begins, not
  where it passes through.

How strong a vote is, is in both cases the attributable fraction: the part of what is observed that
would not be there at the normal rate, taken at its upper bound (Wilson 1927, one-sided 95 %), so
that what few observations say counts for little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

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
    """Number of the place and the set of operations right below."""
    patterns: int
    repeats: Repeats
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
        children = pl.DataFrame({"parent": parent, "operation": operation}).filter(parent >= 0)
        sets = (
            children.unique()
            .with_columns(hash=pl.col("operation").hash(seed=0))
            .group_by("parent")
            .agg(pl.col("hash").sum().reinterpret(signed=True))
        )
        below = np.zeros(frame.height, dtype=np.int64)
        below[sets["parent"].to_numpy()] = sets["hash"].to_numpy()
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
    latency: Floats
    behaviour: Floats
    """Sum of the votes for each owner."""
    requests: Floats
    """In how many of the judged requests each owner has a part."""


def cast(calls: Calls, normal: Bools, judged: Bools) -> Votes:
    """Judge some spans by others; whole requests are in the one or the other."""
    rows = np.flatnonzero(judged)
    excess = _excess(calls, normal, rows)
    unusual = _origins(calls, _unusual(calls, normal, rows))
    entries, request = numbered(calls.entry[rows], len(calls.entry))
    owners = len(calls.owners)
    weight = calls.weight[entries]
    pair = request * owners + calls.owner[rows]
    present = np.unique(pair)
    work = np.bincount(request, calls.own[rows], len(entries))
    late = np.bincount(request, excess[rows], len(entries))
    # The share of the request's work that is beyond normal, but never more than one vote.
    per_late = np.divide(weight, np.maximum(work, late), out=np.zeros(len(work)), where=work > 0)
    odd = np.bincount(request, unusual[rows], len(entries))
    # Many spans of one request say the same again: it votes as strongly as its strongest.
    strongest = np.zeros(len(entries))
    np.maximum.at(strongest, request, unusual[rows])
    per_odd = weight * np.divide(strongest, odd, out=np.zeros(len(odd)), where=odd > 0)
    return Votes(
        excess,
        unusual,
        sums(calls.owner[rows], excess[rows] * per_late[request], owners),
        sums(calls.owner[rows], unusual[rows] * per_odd[request], owners),
        sums(present % owners, weight[present // owners], owners),
    )


def numbered(rows: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the distinct rows of 0 to `size` - 1, ascending, and which of them each one is."""
    # As np.unique with return_inverse, but without sorting.
    marked = np.zeros(size, dtype=np.bool_)
    marked[rows] = True
    return np.flatnonzero(marked), (np.cumsum(marked) - 1)[rows]


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


def _excess(calls: Calls, normal: Bools, rows: Ints) -> Floats:
    """Return the time beyond normal of each judged span."""
    excess = np.zeros(len(calls.own))
    operations = int(calls.operation.max(initial=-1)) + 1
    limit = quantiles(
        calls.operation[normal],
        calls.own[normal].astype(np.int64),
        calls.weight[normal],
        operations,
        [NORMAL_LEVEL],
    )[:, 0]
    known = np.isfinite(limit)
    beyond = calls.own[rows] - limit[calls.operation[rows]]
    excess[rows] = np.maximum(np.nan_to_num(beyond), 0.0)
    _charge_new(calls, normal, rows, known, excess)
    _charge_repeats(calls, normal, rows, excess)
    return excess


def _charge_new(calls: Calls, normal: Bools, rows: Ints, known: Bools, excess: Floats) -> None:
    """Charge what is not done normally at all to whoever does it now, if that one is known."""
    new = rows[~known[calls.operation[rows]]]
    if not len(new):
        return
    above = nearest_marked(calls.parent, known[calls.operation])[new]
    new, above = new[above >= 0], above[above >= 0]
    operations = len(known)
    parents = np.bincount(calls.operation[normal], minlength=operations)[calls.operation[above]]
    now = np.bincount(calls.operation[rows], minlength=operations)
    rate = now[calls.operation[new]] / now[calls.operation[above]]
    strength = _attributable(np.minimum(rate, 1.0), np.zeros(len(new)), parents.astype(np.float64))
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


def _unusual(calls: Calls, normal: Bools, rows: Ints) -> Floats:
    """Return for each judged span how unusual its failure, or its set of children, is."""
    places = int(calls.place.max(initial=-1)) + 1
    usual, now = (np.bincount(calls.place[of], minlength=places) for of in (normal, rows))
    result = np.zeros(len(calls.own))
    place = calls.place[rows]
    for observed, groups, group in (
        (np.ones(len(calls.own), dtype=np.bool_), calls.patterns, calls.pattern),
        (calls.failed, places, calls.place),
    ):
        before = np.bincount(group[normal & observed], minlength=groups)
        after = np.bincount(group[rows[observed[rows]]], minlength=groups)
        strength = _attributable(
            after[group[rows]] / now[place],
            before[group[rows]].astype(np.float64),
            usual[place].astype(np.float64),
        )
        result[rows] = np.maximum(result[rows], np.where(observed[rows], strength, 0.0))
    return result


def _attributable(rate: Floats, seen: Floats, of: Floats) -> Floats:
    """Return the part of a rate that is beyond the upper bound of the normal one (seen / of)."""
    of = np.maximum(of, 1e-9)
    share, z2 = seen / of, SURE_Z * SURE_Z
    bound = share + z2 / (2 * of) + SURE_Z * np.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    bound /= 1 + z2 / of
    bound = np.where(of >= 1, np.minimum(bound, 1.0), 1.0)
    part = 1.0 - np.divide(bound, rate, out=np.ones(len(rate)), where=rate > 0)
    limited: Floats = np.where(part < _LEAST, 0.0, part)
    return limited


def _origins(calls: Calls, unusual: Floats) -> Floats:
    """Return the strength only of those that have nothing unusual below them."""
    marked = np.append(0, np.cumsum(unusual > 0))
    rows = np.arange(len(unusual))
    below = marked[rows + calls.frame["subtree"].to_numpy()] - marked[rows + 1]
    return np.where(below > 0, 0.0, unusual)
