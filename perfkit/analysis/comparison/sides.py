"""The two sides that are compared: what each normal span weighs, and how much is seen of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.comparison.call_kinds import Calls
from perfkit.analysis.comparison.excess import effective
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.percentiles import Floats, codes
from perfkit.analysis.vector.summary import sums


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
    def of(cls, calls: Calls, usual: Usual, judged: Bools) -> Seen:
        """Count two sides."""
        weight = np.where(judged, calls.weight, 0.0)
        times, operations = _pooled(calls.operation, usual.operation, weight)
        return cls(times, operations, *_pooled(calls.place, usual.place, weight))


class Sides(NamedTuple):
    """The spans that say what is normal, and those that are judged: whole requests are in one."""

    normal: Bools
    judged: Bools
    usual: Usual
    seen: Seen

    @classmethod
    def of(cls, calls: Calls, normal: Bools, judged: Bools, seen: Seen | None = None) -> Sides:
        """Weigh and count two sides; for halves of one, `seen` is that of the whole sides."""
        usual = Usual.of(calls, normal, judged)
        return cls(normal, judged, usual, seen or Seen.of(calls, usual, judged))


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
