"""What would be, if things were changed: every entry replayed with a set of edits.

A replay keeps the order of things in `span_waits`: a child begins when what it waited for is done,
the busy period before its own or a sibling in it, and the parent has done the same own work in
between; the parent ends after all of its children and the same own work after them. Durations are
never subtracted from each other, so what is hidden behind something parallel saves nothing, and
what two edits save counts once.

Idea: Lighthouse's simulated savings, and CRISP's what-if, over happens-before order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from perfkit.analysis.replay import piece
from perfkit.analysis.replay.edits import Edits, Queue, scaled
from perfkit.analysis.replay.queue_replay import waits
from perfkit.analysis.session import Frames, R, Tables
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.intervals import distinct
from perfkit.analysis.vector.parting import parted
from perfkit.analysis.vector.percentiles import Floats, codes, quantiles

LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Change:
    """A change whose effect is not known exactly: the edits at worst and at best."""

    worst: Edits
    best: Edits

    def __add__(self, other: Change) -> Change:
        """Return both changes, made together."""
        return Change(self.worst + other.worst, self.best + other.best)


def saved_range(tables: Tables, change: Change) -> tuple[float, float]:
    """Return the share of request time that a change takes away, at least and at most."""
    sums = np.sum(_in_pieces(tables, [change.worst, change.best], piece.saved), axis=0)
    ratios = [float(saved) / float(total) if total > 0 else 0.0 for total, saved in sums]
    return min(ratios), max(ratios)


def forecast(tables: Tables, change: Change, by: Sequence[str] = ()) -> pl.DataFrame:
    """Return latencies now and after a change: in all, or one row each of the columns `by`.

    `by` names columns of `tree`, as they are at the entries. The columns are `requests`, and for
    `mean`, `p50`, `p95` and `p99` each `X_now_ns`, `X_low_ns` (at best) and `X_high_ns`; a row
    each, the most request time first. Requests count as what they stand for.
    """
    best, worst = replay_all(tables, [change.best, change.worst])
    tree = tables.picked("tree", best["entry_row"].to_numpy(), "adjusted_count", *by)
    # Without keys all entries, if there are any, are one group.
    group, keys = codes(tree.with_columns(all=pl.lit(0)), by or ["all"])
    count = keys.height
    weight = tree["adjusted_count"].to_numpy()
    both = [one["after_ns"].to_numpy() for one in (best, worst)]
    columns: dict[str, Ints] = {"now": best["before_ns"].to_numpy()}
    columns |= {"low": np.minimum(*both), "high": np.maximum(*both)}
    requests = np.asarray(np.bincount(group, weight, count), dtype=np.float64)
    result: dict[str, Floats] = {"requests": requests}
    for when, values in columns.items():
        result[f"mean_{when}_ns"] = np.bincount(group, values * weight, count) / requests
    for when, values in columns.items():
        marks = quantiles(group, values, weight, count, list(LEVELS.values()))
        result |= {f"{name}_{when}_ns": marks[:, at] for at, name in enumerate(LEVELS)}
    total = pl.col("mean_now_ns") * pl.col("requests")
    order = [True, *[False] * len(by)]
    found = keys.select(by).hstack(pl.DataFrame(result)) if by else pl.DataFrame(result)
    return found.sort(total, *by, descending=order)


def replay_all(tables: Tables, several: Sequence[Edits]) -> list[pl.DataFrame]:
    """Return `entry_row`, `before_ns` and `after_ns` of every entry, in the order of `tree`, for
    each of several edits; the tables are read once for all.
    """
    cuts = tables.cuts()
    pieces = _in_pieces(tables, several, piece.replays)
    return [
        pl.DataFrame(
            {
                "entry_row": np.concatenate(
                    [entries + first for (entries, *_), first in zip(pieces, cuts, strict=False)]
                ),
                "before_ns": np.concatenate([before for _, before, _ in pieces]),
                "after_ns": np.concatenate([after[number] for *_, after in pieces]),
            }
        )
        for number in range(len(several))
    ]


def _in_pieces(
    tables: Tables, several: Sequence[Edits], work: Callable[[Frames, Sequence[Edits]], R]
) -> list[R]:
    """Work on each piece of the capture with what several edits change there."""
    cuts = tables.cuts()
    parts = [_with_limits(tables, _without_queues(tables, edits)).parted(cuts) for edits in several]
    return tables.each_piece(piece.COLUMNS, work, list(zip(*parts, strict=True)))


def _without_queues(tables: Tables, edits: Edits) -> Edits:
    """Return the same edits, but for queues what the spans in them would then wait for.

    Requests of all pieces are in one queue, so it is known when they come and go before any of them
    is replayed with it.
    """
    if not edits.queues:
        return edits
    plain = replace(edits, queues=())
    rows = distinct(np.concatenate([one for q in edits.queues for one in (q.rows, q.holders)]))
    begin, length = _times(tables, plain, rows)
    recorded = tables.picked("span_waits", rows, "start_ns", "end_ns").with_columns(
        tables.picked("span_times", rows, "self_ns")
    )
    return plain + _emptied(edits.queues, _Places(rows, recorded, begin, begin + length))


def _times(tables: Tables, edits: Edits, rows: Ints) -> tuple[Floats, Floats]:
    """Return when rows, in their order, would start, as Unix ns, and how long they would last."""
    cuts = tables.cuts()
    mine = [rows[places] - first for places, first in zip(parted(rows, cuts), cuts, strict=False)]
    items = list(zip(edits.parted(cuts), mine, strict=True))
    found = tables.each_piece(piece.COLUMNS, piece.times, items)
    begin, length = zip(*found, strict=True)
    return np.concatenate(begin), np.concatenate(length)


def _with_limits(tables: Tables, edits: Edits) -> Edits:
    """Return the same edits, and with them that calls which get shorter are waited for less.

    Where only so many run at once (`limited_calls`), the next one begins when one is done. What
    replays of the calls as they are and as they would be differ by comes off the recorded waiting.
    """
    calls = tables.frame("limited_calls")
    if calls.is_empty() or edits == Edits():
        return edits
    rows, parents, now = (calls[name].to_numpy() for name in ("row", "parent_row", "wait_ns"))
    begin, length = _times(tables, edits, rows)
    recorded = tables.picked("span_waits", rows, "start_ns", "end_ns")
    start, end = (recorded[name].to_numpy() for name in recorded.columns)
    spared = np.zeros(len(rows))
    for _, one in calls.with_row_index("at").group_by("limit"):
        at, most = one["at"].to_numpy(), int(one["most_at_once"][0])
        came = (start[at] - now[at] - start.min()).astype(np.float64)
        explained = waits(came, (end - start)[at].astype(np.float64), most)
        left = waits(begin[at] - now[at] - start.min(), length[at], most)
        spared[at] = np.clip(explained - left, 0.0, now[at])
    shorter = distinct(parents[spared > 0])
    own = tables.picked("span_times", shorter, "self_ns")["self_ns"].to_numpy().astype(np.float64)
    off = np.bincount(
        np.searchsorted(shorter, parents[spared > 0]), spared[spared > 0], len(shorter)
    )
    return edits + scaled(shorter, np.clip(1 - off / np.maximum(own, 1.0), 0.0, 1.0))


@dataclass(frozen=True)
class _Places:
    """The spans in queues and around them, in order of their row."""

    row: Ints
    recorded: pl.DataFrame
    """`start_ns`, `end_ns` and `self_ns` as they were recorded."""
    begin: Floats
    end: Floats
    """When they would begin and end if nobody waited for less long than was recorded."""

    def of(self, rows: Ints) -> _Places:
        """Return some of them."""
        at = np.searchsorted(self.row, rows)
        return _Places(rows, self.recorded[at], self.begin[at], self.end[at])


def _emptied(queues: Sequence[Queue], places: _Places) -> Edits:
    """Return the edits that let the spans of queues wait for as long as they then would."""
    edits = Edits()
    for queue in queues:
        taking, holding = places.of(queue.rows), places.of(queue.holders)
        own = taking.recorded["self_ns"].to_numpy().astype(np.float64)
        now = np.maximum(0.0, own - queue.idle_ns)
        # From when a place was got to when it was given back, now and then.
        given_back = (holding.recorded["end_ns"] - taking.recorded["end_ns"]).to_numpy()
        held_now = np.maximum(0, given_back).astype(np.float64)
        held = np.maximum(0.0, holding.end - taking.end)
        waiting = waits(taking.begin - taking.begin.min(initial=0), held, queue.places_then)
        if queue.relative:
            came = taking.recorded["start_ns"].to_numpy()
            explained = waits((came - came.min()).astype(np.float64), held_now, queue.places_now)
            waiting = now - np.maximum(0.0, explained - waiting)
        left = np.clip(waiting, 0.0, now) + (own - now)
        edits += scaled(queue.rows, np.divide(left, own, out=np.ones(len(own)), where=own > 0))
    return edits
