"""Unions and overlaps of many groups of intervals at once.

The groups are laid end to end on one axis, so that a single running maximum over all of them is
the running maximum of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.order import order_of_pairs, stable_order

_AXIS_NS = float(1 << 62)
_SAMPLED = 1024
"""Starts and ends of which slices of time are made, a slice."""


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
    origin = _origins(group, value, value, groups)
    if origin is None:
        return order_of_pairs(group, value)
    axis: Ints = value + origin[group]
    return stable_order(axis) if stable else np.argsort(axis)


def sorted_by(group: Ints, value: Ints, groups: int) -> tuple[Ints, Ints]:
    """Return values in order of (group, value), each moved by a number of its group, and those
    numbers.
    """
    if groups == 1:
        return np.sort(value), np.zeros(1, dtype=np.int64)
    origin = _origins(group, value, value, groups)
    if origin is None:
        return value[order_of_pairs(group, value)], np.zeros(groups, dtype=np.int64)
    axis: Ints = origin[group]
    axis += value
    axis.sort()
    return axis, origin


def _origins(group: Ints, start: Ints, end: Ints, groups: int) -> Ints | None:
    """Return what to add to the times of each group so that groups come one after the other on one
    axis; None where none is long enough.
    """
    lowest = np.full(groups, np.iinfo(np.int64).max)
    highest = np.full(groups, np.iinfo(np.int64).min)
    np.minimum.at(lowest, group, start)
    np.maximum.at(highest, group, end)
    filled = highest >= lowest
    length = np.where(filled, highest, 0) - np.where(filled, lowest, 0) + filled
    if np.sum(length, dtype=np.float64) >= _AXIS_NS / 2:
        return None
    origin: Ints = np.cumsum(length) - length - np.where(filled, lowest, 0)
    return origin


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


def concurrency_in_slices(
    intervals: Callable[[], Iterable[tuple[Ints, Ints]]], most: int
) -> Concurrency:
    """Return how many intervals are open at once, of one group, as `concurrency` does.

    `intervals` yields starts and ends, some at a time, again and again: what happens is gone
    through slice of time by slice of time, with about `most` starts and ends in memory.
    """
    opened, level, reached = False, 0, 0
    best, best_ns, busy_ns = 0, 0, 0
    for since, until in _slices(intervals, most):
        events = []
        for start, end in intervals():
            for times, starts in ((start, 1), (np.maximum(end, start + 1), 0)):
                inside = times[(times >= since) & (times < until)]
                events.append((inside - since) * 2 + starts)
        axis = np.concatenate(events)
        if not len(axis):
            continue
        axis.sort()
        times = np.append(reached if opened else since + (axis[0] >> 1), since + (axis >> 1))
        levels = level + np.append(0, np.cumsum((axis & 1) * 2 - 1))
        opened, level, reached = True, int(levels[-1]), int(times[-1])
        lasts, levels = np.diff(times), levels[:-1]
        busy_ns += int(lasts[levels > 0].sum())
        highest = int(levels.max())
        if highest > best:
            best, best_ns = highest, 0
        if highest == best:
            best_ns += int(lasts[levels == best].sum())
    return Concurrency(*(np.array([value]) for value in (best, best_ns, busy_ns)))


def _slices(
    intervals: Callable[[], Iterable[tuple[Ints, Ints]]], most: int
) -> Iterator[tuple[int, int]]:
    """Yield slices of time with about `most` starts and ends in each."""
    step = max(1, most // _SAMPLED)
    samples = []
    for start, end in intervals():
        for times in (start, np.maximum(end, start + 1)):
            samples.append(times[::step])
            samples.append(np.array([times.min(), times.max()] if len(times) else [], np.int64))
    times = np.unique(np.concatenate([np.zeros(0, np.int64), *samples]))
    if not len(times):
        return
    cuts = [*times[:-1:_SAMPLED].tolist(), int(times[-1]) + 1]
    yield from itertools.pairwise(cuts)


def _levels(group: Ints, start: Ints, end: Ints, groups: int) -> tuple[Ints, Ints]:
    """Return how many intervals are open after each start and end, by group and time, and when.

    Each group returns to 0 at its end; times are only good for differences inside a group.
    """
    count = len(group)
    end = np.maximum(end, start + 1)
    origin = _origins(group, start, end, groups)
    if origin is None:
        both, times = np.concatenate([group, group]), np.concatenate([start, end])
        order = np.lexsort((np.arange(2 * count) < count, times, both))
        return np.cumsum(np.where(order < count, 1, -1)), times[order]
    # Even numbers are ends and odd ones starts: at one moment ends come first.
    moved = origin[group]
    axis = np.concatenate([start, end])
    axis[:count] += moved
    axis[count:] += moved
    axis *= 2
    axis[:count] += 1
    axis.sort()
    level: Ints = axis & 1
    level *= 2
    level -= 1
    axis >>= 1
    return np.cumsum(level, out=level), axis


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
