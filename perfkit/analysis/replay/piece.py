"""The replay of one piece of a capture: whole traces, with rows numbered within the piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfkit.analysis.replay.edits import Edits, Spared, SparedTime
from perfkit.analysis.session import Frames
from perfkit.analysis.vector.forest import Bools, Ints, along_path
from perfkit.analysis.vector.order import stable_order
from perfkit.analysis.vector.overlaps import runs
from perfkit.analysis.vector.percentiles import Floats
from perfkit.analysis.vector.rows import indices

COLUMNS = {
    "tree": ("entry_row", "depth", "duration_ns", "skew_ns", "adjusted_count"),
    "span_waits": ("parent_row", "before_row", "last_row", "period_row", "start_ns", "end_ns"),
}


def saved(frames: Frames, several: Sequence[Edits]) -> list[tuple[float, float]]:
    """Return for each of the edits the request time, and how much of it is taken away."""
    entries, before, after = replays(frames, several)
    weight = frames["tree"]["adjusted_count"].to_numpy()[entries]
    total = float((before * weight).sum())
    return [(total, float(((before - one) * weight).sum())) for one in after]


def replays(frames: Frames, several: Sequence[Edits]) -> tuple[Ints, Ints, list[Ints]]:
    """Return the entries' rows, their durations, and for each of the edits those after it."""
    spans = _Spans.of(frames)
    entries = np.flatnonzero(spans.entry == np.arange(len(spans.entry)))
    before = frames["tree"]["duration_ns"].to_numpy()[entries]
    touched = [_touched(edits, spans.entry) for edits in several]
    spared = _SparedOfSpans(spans, _rows(np.logical_or.reduce(touched), spans))
    found = []
    for edits, mine in zip(several, touched, strict=True):
        after = before
        if mine.any():
            length = _Replay(spans, _rows(mine, spans), edits, spared).run().length
            after = np.where(mine[entries], np.rint(length[entries]).astype(np.int64), before)
        found.append(after)
    return entries, before, found


def times(frames: Frames, item: tuple[Edits, Ints]) -> tuple[Floats, Floats]:
    """Return when each of the rows would start, as Unix ns, and how long it would last."""
    edits, wanted = item
    spans = _Spans.of(frames)
    touched = _touched(edits, spans.entry, wanted)
    rows = _rows(touched, spans)
    played = _Replay(spans, rows, edits, _SparedOfSpans(spans, rows)).run()
    length = played.length[:-1]
    offset = np.where(
        spans.parent[:-1] >= 0,
        np.rint(_since_parents(spans, played) - length).astype(np.int64),
        spans.start[:-1],
    )
    begin = along_path(spans.parent[:-1], offset, np.add, 0)
    return begin[wanted].astype(np.float64), length[wanted]


def _touched(edits: Edits, entry: Ints, also: Ints | None = None) -> Bools:
    """Return which entries are edited, by row, and one behind for spans of no entry.

    Those of the rows `also` count as edited.
    """
    touched = np.zeros(len(entry) + 1, dtype=np.bool_)
    touched[entry[np.flatnonzero(edits.factors(len(entry)) != 1.0)]] = True
    for rows in (*edits.groups(), *(one.rows for one in edits.spared)):
        touched[entry[rows]] = True
    if also is not None:
        touched[entry[also]] = True
    touched[-1] = False
    return touched


def _rows(touched: Bools, spans: _Spans) -> Ints:
    """Return the rows of edited entries."""
    return np.flatnonzero(touched[spans.entry])


@dataclass(frozen=True)
class _Played:
    """Where the spans are after a replay, one element a row of `tree` and one behind."""

    length: Floats
    period: Ints
    reached: Floats
    """When a span ends, counted from the start of its busy period."""
    width: Floats
    """How long a busy period takes."""


@dataclass(frozen=True)
class _Spans:
    """What a replay starts from: one element a row of a piece of `tree`, and one behind."""

    entry: Ints
    depth: Ints
    skew_ns: Ints
    """These three without the one behind."""
    parent: Ints
    before: Ints
    period: Ints
    start: Ints
    end: Ints
    waited: Bools
    """Whether the parent waits for it."""
    ready: Ints
    """When it could begin."""
    done: Ints
    """When the last span that it waits for was done."""

    @classmethod
    def of(cls, frames: Frames) -> _Spans:
        """Lay the columns of `COLUMNS` out as arrays."""
        tree, waits_of = frames["tree"], frames["span_waits"]
        parent, before, last, period = (
            np.append(indices(waits_of[name]), -1)
            for name in ("parent_row", "before_row", "last_row", "period_row")
        )
        start, end = (np.append(waits_of[name].to_numpy(), 0) for name in ("start_ns", "end_ns"))
        return cls(
            entry=indices(tree["entry_row"]),
            depth=tree["depth"].to_numpy(),
            skew_ns=tree["skew_ns"].to_numpy(),
            parent=parent,
            before=before,
            period=period,
            start=start,
            end=end,
            waited=period >= 0,
            ready=np.where(before >= 0, end[before], start[parent]),
            done=np.where(last >= 0, end[last], start),
        )


class _SparedOfSpans:
    """How much of the own time of some rows spared times take: before a span, and at its end.

    What is looked up is kept for edits that take the same times and leave more or less of them.
    """

    def __init__(self, spans: _Spans, rows: Ints) -> None:
        self._spans, self._rows = spans, rows
        self._waited = rows[spans.waited[rows]]
        self._kept: list[tuple[Spared, Floats, Floats]] = []

    def of(self, several: Sequence[Spared]) -> tuple[Floats, Floats]:
        """Return what all of them take, one element a row of `tree` and one behind."""
        before, at_end = (np.zeros(len(self._spans.parent)) for _ in range(2))
        for one in several:
            earlier, later = self._whole(one)
            before += (1.0 - one.stays) * earlier
            at_end += (1.0 - one.stays) * later
        return before, at_end

    def _whole(self, spared: Spared) -> tuple[Floats, Floats]:
        for known, *found in self._kept:
            if _same_times(known, spared):
                return found[0], found[1]
        spans, rows, waited = self._spans, self._rows, self._waited
        times = SparedTime(spared, len(spans.skew_ns))
        before, at_end = (np.zeros(len(spans.parent)) for _ in range(2))
        above = spans.parent[waited]
        before[waited] = _within(times, above, spans.ready[waited], spans.start[waited], spans)
        at_end[rows] = _within(times, rows, spans.done[rows], spans.end[rows], spans)
        self._kept.append((spared, before, at_end))
        return before, at_end


def _same_times(one: Spared, other: Spared) -> bool:
    """Whether both take the same times out of the same spans: what edits are made of is shared."""
    return (
        one.times is other.times
        and np.array_equal(one.rows, other.rows)
        and np.array_equal(one.line, other.line)
    )


def _within(times: SparedTime, rows: Ints, start: Ints, end: Ints, spans: _Spans) -> Floats:
    """Return the spared time of pieces of own time, on the clock of their spans' hosts."""
    moved = spans.skew_ns[rows]
    return times.within(rows, start - moved, end - moved)


class _Replay:
    """One replay of some rows; all arrays have one element a row of `tree`, and one behind."""

    def __init__(self, spans: _Spans, rows: Ints, edits: Edits, spared: _SparedOfSpans) -> None:
        self.depth, self.parent = spans.depth, spans.parent
        self.waited = spans.waited
        self.rows = rows
        self.above = len(spans.depth)
        start, end, ready, done = spans.start, spans.end, spans.ready, spans.done
        lag, tail = (start - ready).astype(np.float64), (end - done).astype(np.float64)
        if edits.spared:
            waited = rows[self.waited[rows]]
            before, at_end = spared.of(edits.spared)
            lag[waited] -= np.clip(before[waited], 0.0, lag[waited])
            tail[rows] -= np.clip(at_end[rows], 0.0, tail[rows])
        factor = np.append(edits.factors(self.above), 1.0)
        self.lag, self.tail = lag * factor[self.parent], tail * factor
        self.members, first, final = _members(
            edits.groups(), self.parent, start, self.waited, self.depth
        )
        self.sizes, self.leaders = final - first + 1, self.members[first]
        self.height = -self.depth[self.members], -self.depth[self.leaders]
        # Calls of a group are made in the first one's busy period, and wait for what it waited for.
        self.period = spans.period.copy()
        self.period[self.members] = np.repeat(self.period[self.leaders], self.sizes)
        same = self.period[spans.before] == self.period
        self.jump = np.where(same & (spans.before >= 0), spans.before, self.above)
        self.jump[self.members] = np.repeat(self.jump[self.leaders], self.sizes)

    def run(self) -> _Played:
        """Replay; of rows that are not replayed the result means nothing."""
        length: Floats = self.tail.copy()
        inside = np.zeros(self.above + 1)
        reached = np.zeros(self.above + 1)
        width = np.zeros(self.above + 1)
        jump = self.jump.copy()
        order = self.rows[stable_order(-self.depth[self.rows])]
        levels = np.split(order, np.flatnonzero(np.diff(self.depth[order])) + 1)
        for level in levels if len(order) else ():
            length[level] += inside[level]
            waited = level[self.waited[level]]
            reached[waited] = length[waited] + self.lag[waited]
            self._join(int(self.depth[level[0]]), length, reached)
            _along_chains(waited, jump, reached)
            np.maximum.at(width, self.period[waited], reached[waited])
            # One span of each busy period bears its width.
            np.add.at(inside, self.parent[waited], width[waited])
        return _Played(length, self.period, reached, width)

    def _join(self, depth: int, length: Floats, reached: Floats) -> None:
        """Let all calls of a group end with its longest, and own work between them come after it.

        Groups are in order of depth, the deepest first.
        """
        members, sizes = (
            values[slice(*np.searchsorted(height, [-depth, 1 - depth]))]
            for values, height in zip((self.members, self.sizes), self.height, strict=True)
        )
        if len(members):
            first = np.cumsum(sizes) - sizes
            # The sum of all lags is that before the first call and those between the others.
            own = np.add.reduceat(self.lag[members], first)
            reached[members] = np.repeat(own + np.maximum.reduceat(length[members], first), sizes)


def _since_parents(spans: _Spans, played: _Played) -> Floats:
    """Return when spans end, counted from the start of the span that waits for them."""
    bearers = np.flatnonzero(spans.waited & (spans.period == np.arange(len(spans.period))))
    order = bearers[np.lexsort((spans.end[bearers], spans.parent[bearers]))]
    width = np.rint(played.width[order]).astype(np.int64)
    earlier = np.cumsum(width) - width
    first, final = runs(spans.parent[order])
    begin = np.zeros(len(spans.period))
    begin[order] = earlier - np.repeat(earlier[first], final - first + 1)
    return (begin[played.period] + played.reached)[:-1]


def _members(
    groups: Sequence[Ints], parent: Ints, start: Ints, waited: Bools, depth: Ints
) -> tuple[Ints, Ints, Ints]:
    """Return the calls of all groups, and at which places groups begin and end.

    The deepest groups come first, and in a group the earliest call. A group is divided by parent;
    parts of one call are left out.
    """
    rows = np.concatenate([*groups, np.zeros(0, dtype=np.int64)])
    number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    rows, number = rows[waited[rows]], number[waited[rows]]
    order = np.lexsort((rows, start[rows], parent[rows], number, -depth[rows]))
    rows, number = rows[order], number[order]
    part = np.cumsum(np.append(False, (np.diff(number) != 0) | (np.diff(parent[rows]) != 0)))
    part = part[: len(rows)]
    several = np.bincount(part, minlength=1)[part] > 1
    rows = rows[several]
    return rows, *runs(part[several])


def _along_chains(nodes: Ints, jump: Ints, reached: Floats) -> None:
    """Add to each node what the siblings that it waited for took; `jump` is used up."""
    above = len(reached) - 1
    active = nodes[jump[nodes] != above]
    while active.size:
        ahead = jump[active]
        total, further = reached[active] + reached[ahead], jump[ahead]
        reached[active] = total
        jump[active] = further
        active = active[further != above]
