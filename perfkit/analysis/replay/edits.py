"""What a replay changes: edits, which combine by `+`.

An edit names spans by their row in `tree`. Two edits of one span add up as two mends do: factors
multiply, and time that one of them takes away is not there for the other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.intervals import Intervals, distinct, union
from perfkit.analysis.vector.parting import parted
from perfkit.analysis.vector.percentiles import Floats


@dataclass(frozen=True)
class Scaled:
    """Spans whose own time becomes `stays` times as long: 0 takes it away, 1 leaves it."""

    rows: Ints
    stays: Floats


@dataclass(frozen=True)
class Spared:
    """Times on lines (threads, or event loops) that fall out of the own time of spans there.

    `rows` are the spans, `line` the number of the line of each of them. `times` has the line as its
    group, and Unix ns on the clock of the spans' hosts; times that overlap count once. Of the
    spared time `stays` is left; where it is above 1, time is given back that another `Spared` takes
    too often.
    """

    rows: Ints
    line: Ints
    times: Intervals
    stays: float = 0.0


@dataclass(frozen=True)
class Queue:
    """Places (connections of a pool, a lock) that are taken in turn, first come first served.

    Each of `rows` is a span that takes a place: its own time, all but `idle_ns`, is waiting for
    one. The place is given back when the span of the same position in `holders` ends.
    """

    rows: Ints
    holders: Ints
    places_now: int
    places_then: int
    idle_ns: int
    """How long taking a free place lasts."""
    relative: bool
    """Whether only the difference of two replays, with the places now and then, is taken off the
    recorded waiting: that saves less where the replay explains less waiting than was recorded."""


@dataclass(frozen=True)
class Edits:
    """Any number of changes that are made together."""

    scaled: tuple[Scaled, ...] = ()
    parallel: tuple[Ints, ...] = ()
    """Groups of calls that begin together instead of one after the other, where they are under one
    span."""
    spared: tuple[Spared, ...] = ()
    queues: tuple[Queue, ...] = ()

    def __add__(self, other: Edits) -> Edits:
        """Return both."""
        return Edits(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def parted(self, cuts: Ints) -> list[Edits]:
        """Return what is edited in each piece of `tree`, with rows numbered in it; no queues."""
        pieces = len(cuts) - 1
        scaled: list[list[Scaled]] = [[] for _ in range(pieces)]
        parallel: list[list[Ints]] = [[] for _ in range(pieces)]
        spared: list[list[Spared]] = [[] for _ in range(pieces)]
        for one in self.scaled:
            for at, mine in _present(one.rows, cuts):
                scaled[at].append(Scaled(one.rows[mine] - cuts[at], one.stays[mine]))
        for group in self.parallel:
            for at, mine in _present(group, cuts):
                parallel[at].append(group[mine] - cuts[at])
        for each in self.spared:
            for at, mine in _present(each.rows, cuts):
                part = replace(each, rows=each.rows[mine] - cuts[at], line=each.line[mine])
                spared[at].append(part)
        parts = zip(scaled, parallel, spared, strict=True)
        return [Edits(tuple(one), tuple(other), tuple(more)) for one, other, more in parts]

    def factors(self, size: int) -> Floats:
        """Return what stays of the own time of each of `size` rows."""
        stays = np.ones(size)
        for one in self.scaled:
            np.multiply.at(stays, one.rows, one.stays)
        return stays

    def groups(self) -> list[Ints]:
        """Return the parallel calls; a call that several changes name is in the first of them."""
        rows = np.concatenate([*self.parallel, np.zeros(0, dtype=np.int64)])
        _, first = np.unique(rows, return_index=True)
        once = np.zeros(len(rows), dtype=np.bool_)
        once[first] = True
        cuts = np.cumsum([len(group) for group in self.parallel])
        parts = zip(np.split(rows, cuts), np.split(once, cuts), strict=True)
        return [part[kept] for part, kept in parts if kept.any()]


def _present(rows: Ints, cuts: Ints) -> list[tuple[int, Ints]]:
    """Return the pieces that have any of the rows, and the places of those."""
    return [(at, mine) for at, mine in enumerate(parted(rows, cuts)) if mine.size]


def scaled(rows: Ints, stays: float | Floats) -> Edits:
    """Return the edit that makes spans faster."""
    return Edits(scaled=(Scaled(rows, np.broadcast_to(np.asarray(stays, float), rows.shape)),))


class SparedTime:
    """How much of a piece of a span's own time falls into spared times, whatever stays of them."""

    def __init__(self, spared: Spared, size: int) -> None:
        self._line = np.full(size, -1, dtype=np.int64)
        self._line[spared.rows] = spared.line
        times = spared.times
        lowest = np.iinfo(np.int64).min
        self._moments = distinct(np.concatenate([[lowest], times.start, times.end]))
        count = len(self._moments)
        ranks = (np.searchsorted(self._moments, one) for one in (times.start, times.end))
        merged = union(Intervals(times.group, *ranks), count)
        self._of = np.append(merged.group, -1)
        self._key = merged.group * count + merged.start
        self._start = np.append(self._moments[merged.start], 0)
        self._end = np.append(self._moments[merged.end], 0)
        length = self._end - self._start
        self._before = np.cumsum(length) - length

    def within(self, rows: Ints, start: Ints, end: Ints) -> Floats:
        """Return the spared time of pieces of own time, each of one row."""
        line = self._line[rows]
        known = line >= 0
        result = np.zeros(len(rows))
        if len(self._key) and known.any():
            line, start, end = line[known], start[known], end[known]
            result[known] = self._until(line, end) - self._until(line, start)
        return result

    def _until(self, line: Ints, moment: Ints) -> Ints:
        """Return the spared time of a line up to a moment, counted from some common origin."""
        rank = np.searchsorted(self._moments, moment, side="right") - 1
        place = np.searchsorted(self._key, line * len(self._moments) + rank, side="right") - 1
        # Before the first time of a line, what counts is all time of the lines before it.
        inside = np.minimum(moment, self._end[place]) - self._start[place]
        whole = self._end[place] - self._start[place]
        done = self._before[place] + np.where(self._of[place] == line, inside, whole)
        return np.where(place >= 0, done, 0)
