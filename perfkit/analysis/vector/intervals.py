"""Many intervals at once: merging them by group, cutting others out, cutting them at changes.

Times are ranks (positions in a sorted list of all moments that occur), so that a group and a time
fit into one integer and no sum of Unix times can overflow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from perfkit.analysis.vector.order import order_of_pairs

Ints = npt.NDArray[np.int64]


class Intervals(NamedTuple):
    """Half-open intervals [start, end), each belonging to a group."""

    group: Ints
    start: Ints
    end: Ints

    def where(self, keep: npt.NDArray[np.bool_]) -> Intervals:
        """Return those that are kept."""
        return Intervals(self.group[keep], self.start[keep], self.end[keep])


def union(intervals: Intervals, moments: int) -> Intervals:
    """Merge the intervals of each group that overlap or touch; in order of group and start.

    Groups and ranks count from 0; ranks are below `moments`. Empty intervals vanish.
    """
    intervals = intervals.where(intervals.end > intervals.start)
    order = order_of_pairs(intervals.group, intervals.start)
    group, start, end = (values[order] for values in intervals)
    reach = np.maximum.accumulate(group * moments + end)
    opens = np.ones(len(group), dtype=np.bool_)
    opens[1:] = (group * moments + start)[1:] > reach[:-1]
    first = np.flatnonzero(opens)
    last = np.append(first[1:], len(group))[: len(first)] - 1
    return Intervals(group[first], start[first], reach[last] - group[first] * moments)


def uncovered(whole: Intervals, covers: Intervals, moments: int) -> Intervals:
    """Return the parts of each whole that its covers leave free.

    `whole.group` numbers the wholes 0, 1, …; `covers.group` says which whole a cover belongs to.
    """
    clipped = Intervals(
        covers.group,
        np.maximum(covers.start, whole.start[covers.group]),
        np.minimum(covers.end, whole.end[covers.group]),
    )
    blocks = union(clipped, moments)
    first = np.ones(len(blocks.group), dtype=np.bool_)
    first[1:] = blocks.group[1:] != blocks.group[:-1]
    last = np.append(first[1:], True)[: len(first)]
    before = np.where(first, whole.start[blocks.group], np.roll(blocks.end, 1))
    tail = whole.start.copy()
    tail[blocks.group[last]] = blocks.end[last]
    parts = Intervals(
        np.concatenate([blocks.group, whole.group]),
        np.concatenate([before, tail]),
        np.concatenate([blocks.start, whole.end]),
    )
    return parts.where(parts.end > parts.start)


class Pieces(NamedTuple):
    """Intervals cut at changes: which one each piece is of, the state in it, and its times."""

    source: Ints
    state: Ints
    start_ns: Ints
    end_ns: Ints


class Changes(NamedTuple):
    """Moments at which the state of a group changes; states are numbered in one list.

    Every group begins with a state of its own.
    """

    moments: Ints
    """Unix ns of all changes; the first stands for the time before any."""
    key: Ints
    """For each state the group × number of moments + position of the moment of its begin."""

    @classmethod
    def of(cls, groups: int, group: Ints, time_ns: Ints) -> Changes:
        """Collect the changes of `groups` groups (at least one); equal ones are one."""
        moments = distinct(np.append(time_ns, np.iinfo(np.int64).min))
        begin = np.arange(groups) * len(moments)
        key = group * len(moments) + np.searchsorted(moments, time_ns)
        return cls(moments, distinct(np.concatenate([begin, key])))

    def rank(self, time_ns: Ints) -> Ints:
        """Return the position of the last moment that is not after the given times."""
        return np.searchsorted(self.moments, time_ns, side="right") - 1

    def state(self, group: Ints, rank: Ints) -> Ints:
        """Return which state a group is in at the moment of that rank."""
        return np.searchsorted(self.key, group * len(self.moments) + rank, side="right") - 1

    def cut(self, group: Ints, start_ns: Ints, end_ns: Ints) -> Pieces:
        """Cut intervals at the changes of their group; an empty interval gives one piece."""
        at_start = self.rank(start_ns)
        first = self.state(group, at_start)
        before_end = np.searchsorted(self.moments, end_ns) - 1
        last = self.state(group, np.maximum(before_end, at_start))
        pieces = last - first + 1
        source = np.repeat(np.arange(len(group)), pieces)
        number = np.arange(len(source)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        state = first[source] + number
        began = np.where(
            number > 0, self.moments[self.key[state] % len(self.moments)], start_ns[source]
        )
        ended = end_ns[source]
        inner = np.flatnonzero(number[1:] > 0)
        ended[inner] = began[inner + 1]
        return Pieces(source, state, began, ended)

    def sums(self, group: Ints, start: Ints, end: Ints, *values: Ints) -> list[Ints]:
        """Return for each state how many intervals are open in it, and the sum of each value.

        Starts and ends are ranks of changes.
        """
        opens, closes = self.state(group, start), self.state(group, end)
        result = []
        for value in (np.ones(len(group), dtype=np.int64), *values):
            total = np.zeros(len(self.key), dtype=np.int64)
            np.add.at(total, opens, value)
            np.add.at(total, closes, -value)
            result.append(np.cumsum(total))
        return result

    def thinned(self, keep: npt.NDArray[np.bool_]) -> Changes:
        """Return the changes without those that make no difference; begins must be kept."""
        return Changes(self.moments, self.key[keep])

    def begins(self) -> npt.NDArray[np.bool_]:
        """Return which states are the first of their group."""
        first: npt.NDArray[np.bool_] = self.key % len(self.moments) == 0
        return first

    def length_ns(self) -> Ints:
        """Return how long each state lasts; 0 for those before the first and after the last."""
        rank = self.key % len(self.moments)
        begin = self.moments[rank]
        length = np.append(begin[1:] - begin[:-1], 0)[: len(begin)]
        bounded = (rank > 0) & np.append(rank[1:] > rank[:-1], False)[: len(rank)]
        return np.where(bounded, length, 0)


def distinct(values: Ints) -> Ints:
    """Return the distinct values in order; of millions `numpy.unique` takes 40 times as long."""
    values = np.sort(values)
    keep = np.ones(len(values), dtype=np.bool_)
    keep[1:] = values[1:] != values[:-1]
    return values[keep]
