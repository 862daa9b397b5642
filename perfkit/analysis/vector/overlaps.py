"""Unions and overlaps of many groups of intervals at once.

The groups are laid end to end on one axis, so that a single running maximum over all of them is
the running maximum of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.order import stable_order

_AXIS_NS = float(1 << 62)


def covered(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Return for each group (0 to `groups` - 1) how much time its intervals cover together.

    Intervals are sorted by group; within a group by start. None ends before it starts.
    """
    result = np.zeros(groups, dtype=np.int64)
    for axis in _axes(group, start, end):
        before = np.append(axis.start[:1], axis.reached[:-1])
        new = np.maximum(axis.reached - np.maximum(axis.start, before), 0)
        result[group[axis.rows][axis.first]] = np.add.reduceat(new, axis.first)
    return result


def overlapping_earlier(group: Ints, start: Ints, end: Ints) -> Bools:
    """Return which intervals start before an earlier one of their group has ended.

    Intervals are sorted as for `covered`.
    """
    result = np.zeros(len(group), dtype=np.bool_)
    for axis in _axes(group, start, end):
        overlaps = axis.start < np.append(axis.start[:1], axis.reached[:-1])
        overlaps[axis.first] = False
        result[axis.rows] = overlaps
    return result


def order_by(group: Ints, value: Ints, groups: int, *, stable: bool = True) -> Ints:
    """Return the order of (group, value); if stable, equal ones in the order in which they come."""
    axis = _on_one_axis(group, value, groups)
    if axis is None:
        return np.lexsort((value, group))
    return stable_order(axis) if stable else np.argsort(axis)


def _on_one_axis(group: Ints, value: Ints, groups: int) -> Ints | None:
    """Return one number for group and value, in their order; null where none is large enough."""
    lowest = np.full(groups, np.iinfo(np.int64).max)
    highest = np.full(groups, np.iinfo(np.int64).min)
    np.minimum.at(lowest, group, value)
    np.maximum.at(highest, group, value)
    filled = highest >= lowest
    length = np.where(filled, highest, 0) - np.where(filled, lowest, 0) + filled
    if np.sum(length, dtype=np.float64) >= _AXIS_NS / 2:
        return None
    origin = np.cumsum(length) - length - np.where(filled, lowest, 0)
    axis: Ints = value + origin[group]
    return axis


def most_at_once(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Return for each group the largest number of its intervals that are open at one time.

    An interval that begins when another ends does not overlap it; one of no length lasts 1 ns.
    """
    result = np.zeros(groups, dtype=np.int64)
    if len(group):
        level, _ = _levels(group, start, end, groups)
        filled, first = _filled(group, groups)
        result[filled] = np.maximum.reduceat(level, first)
    return result


class Concurrency(NamedTuple):
    """For each group: the most intervals that are open at once, for how long they are, and the
    time in which any is open.
    """

    most: Ints
    most_ns: Ints
    busy_ns: Ints


def concurrency(group: Ints, start: Ints, end: Ints, groups: int) -> Concurrency:
    """Return how many intervals of each group are open at once; see `most_at_once`."""
    found = Concurrency(*(np.zeros(groups, dtype=np.int64) for _ in range(3)))
    if len(group):
        level, times = _levels(group, start, end, groups)
        lasts = np.append(np.diff(times), 0)
        filled, first = _filled(group, groups)
        found.most[filled] = np.maximum.reduceat(level, first)
        size = np.diff(np.append(first, len(level)))
        at_most = level == np.repeat(found.most[filled], size)
        found.most_ns[filled] = np.add.reduceat(np.where(at_most, lasts, 0), first)
        found.busy_ns[filled] = np.add.reduceat(np.where(level > 0, lasts, 0), first)
    return found


def _levels(group: Ints, start: Ints, end: Ints, groups: int) -> tuple[Ints, Ints]:
    """Return how many intervals are open after each start and end, by group and time, and when.

    Each group returns to 0 at its end; times are only good for differences inside a group.
    """
    count = len(group)
    both = np.concatenate([group, group])
    times = np.concatenate([start, np.maximum(end, start + 1)])
    axis = _on_one_axis(both, times, groups)
    if axis is None:
        order = np.lexsort((np.arange(2 * count) < count, times, both))
        return np.cumsum(np.where(order < count, 1, -1)), times[order]
    # Even numbers are ends and odd ones starts: at one moment ends come first.
    axis *= 2
    axis[:count] += 1
    axis.sort()
    return np.cumsum((axis & 1) * 2 - 1), axis >> 1


def _filled(group: Ints, groups: int) -> tuple[Ints, Ints]:
    """Return the groups that have intervals, and where their starts and ends begin."""
    size = 2 * np.bincount(group, minlength=groups)
    filled = np.flatnonzero(size)
    return filled, (np.cumsum(size) - size)[filled]


def runs(group: Ints) -> tuple[Ints, Ints]:
    """Return the first and the last index of each run of equal values; of none for no values."""
    change = np.flatnonzero(group[1:] != group[:-1])
    if not len(group):
        return change, change
    return np.append(0, change + 1), np.append(change, len(group) - 1)


class _Axis(NamedTuple):
    """Groups laid end to end. `first` are the places where a group begins."""

    rows: slice
    first: Ints
    start: Ints
    reached: Ints
    """The latest end so far."""


def _axes(group: Ints, start: Ints, end: Ints) -> Iterator[_Axis]:
    """Lay out the groups, on several axes if they are too long for one."""
    if not len(group):
        return
    first, last = runs(group)
    origin = start[first]
    length = np.maximum.reduceat(end, first) - origin
    axis = np.floor(np.cumsum(length, dtype=np.float64) / _AXIS_NS).astype(np.int64)
    for begin, final in zip(*runs(axis), strict=True):
        some = slice(begin, final + 1)
        rows = slice(first[begin], last[final] + 1)
        place = np.cumsum(length[some]) - length[some] - origin[some]
        shift = np.repeat(place, last[some] - first[some] + 1)
        reached = np.maximum.accumulate(end[rows] + shift)
        yield _Axis(rows, first[some] - first[begin], start[rows] + shift, reached)
