"""Calls that wait because only so many of their kind run at once: `limited_calls`.

A semaphore, a limit of threads or of an HTTP client's connections, a lock that is held during a
call: none of them leaves a span. Who waits makes the call late, and its caller's own time grows.
But while it waits, exactly as many such calls run as ever do:

    request 1  [call-------------]
    request 2   [call------]
    request 3     [........[call-----]
    request 4       [............[call----]

What is late because it computes, or waits for anything else, sees any number of calls at work.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Frames, Tables
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.intervals import Changes
from perfkit.analysis.vector.overlaps import most_at_once
from perfkit.analysis.vector.rows import indices
from perfkit.analysis.waits.turns import HANDOVER_NS, MIN_WAIT_NS

_MIN_WAITS = 10
"""Calls that waited: of fewer it may be chance that the most ran meanwhile."""
_MIN_AT_LIMIT = 0.6
"""Share of the time before late calls in which the most of them ran. In some 60 recordings of
services it was 0.65 to 1.0 with a limit, and below 0.45 without one (our own number)."""

MOST_SPANS = 20_000_000
"""Of more spans the calls of a kind may not fit into memory; a filter by time makes them fewer."""

_WHOM = ("service", "instance", "pid", "component", "name")
_WHERE = ("entry_endpoint", "entry_tool")
_READ = {
    "tree": (
        *(*_WHOM, *_WHERE, "parent_row", "entry_row", "detached"),
        *("start_ns", "end_ns", "adjusted_count"),
    ),
    "span_waits": ("before_row",),
}


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `limited_calls`, in the order of `tree`.

    It is empty where requests are filtered, for those that are left out run all the same, and of
    more than MOST_SPANS spans.
    """
    if tables.filters.by_request or tables.cuts()[-1] > MOST_SPANS:
        return pl.DataFrame(schema=_SCHEMA)
    nothing = [None] * (len(tables.cuts()) - 1)
    late = pl.concat(tables.each_piece(_READ, _late_kinds, nothing))
    kinds = late.group_by(_WHOM).agg(pl.col("late").sum()).filter(pl.col("late") >= _MIN_WAITS)
    if kinds.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    kinds = kinds.select(_WHOM).sort(_WHOM).with_row_index("kind")
    parts = tables.each_piece(_READ, _calls, [kinds] * len(nothing))
    calls = pl.concat(
        part.with_columns(pl.col("row", "parent_row") + int(first))
        for part, first in zip(parts, tables.cuts(), strict=False)
    )
    found = [
        limited
        for (_,), of_kind in calls.group_by("kind", maintain_order=True)
        for limited in _limited(of_kind)
    ]
    if not found:
        return pl.DataFrame(schema=_SCHEMA)
    return (
        pl.concat(
            part.with_columns(limit=pl.lit(number, pl.Int64)) for number, part in enumerate(found)
        )
        .join(kinds, on="kind", how="left", maintain_order="left")
        .sort("row")
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )


def _late_kinds(frames: Frames, _: None) -> pl.DataFrame:
    """Return the kinds of calls of some whole traces that any were late of, and how many."""
    tree = frames["tree"]
    late = pl.Series(tree["start_ns"].to_numpy() - _ready_ns(frames) >= MIN_WAIT_NS)
    return tree.filter(late & tree.select(_CALLS).to_series()).group_by(_WHOM).agg(late=pl.len())


def _calls(frames: Frames, kinds: pl.DataFrame) -> pl.DataFrame:
    """Return the calls of these kinds, as numbers, and where they are made."""
    return (
        frames["tree"]
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.Int64), ready_ns=pl.Series(_ready_ns(frames)))
        .filter(_CALLS)
        .join(kinds, on=_WHOM, how="inner", nulls_equal=True, maintain_order="left")
        .drop("entry_row", "detached", *_WHOM)
    )


_CALLS = (
    pl.col("parent_row").is_not_null() & pl.col("entry_row").is_not_null() & ~pl.col("detached")
)


def _ready_ns(frames: Frames) -> Ints:
    """Return when each span could have begun, as what it waited for or its parent says it."""
    tree = frames["tree"]
    start, end = (np.append(tree[name].to_numpy(), 0) for name in ("start_ns", "end_ns"))
    parent, before = (
        indices(one) for one in (tree["parent_row"], frames["span_waits"]["before_row"])
    )
    return np.where(before >= 0, end[before], start[parent])


def _wait() -> pl.Expr:
    return pl.col("start_ns") - pl.col("ready_ns")


def _limited(calls: pl.DataFrame) -> list[pl.DataFrame]:
    """Return the calls of one kind if there is a limit for all of them, or for some requests'."""
    together = _at_limit(calls)
    if together is not None:
        return [together]
    parts = (part for _, part in calls.group_by(_WHERE, maintain_order=True))
    return [limited for part in parts if (limited := _at_limit(part)) is not None]


def _at_limit(calls: pl.DataFrame) -> pl.DataFrame | None:
    """Return calls that run into a limit, and how long each waited; None when they do not.

    Where one stands for several, nobody knows how many ran.
    """
    late = calls.select(_wait() >= MIN_WAIT_NS).to_series().to_numpy()
    if late.sum() < _MIN_WAITS or calls["adjusted_count"].max() != 1.0:
        return None
    ready, start, end = (calls[name].to_numpy() for name in ("ready_ns", "start_ns", "end_ns"))
    most = _Most.of(start, end)
    at_limit = np.where(late, most.until(start) - most.until(ready), 0)
    waited = at_limit >= _MIN_AT_LIMIT * np.maximum(start - ready, 1)
    enough = at_limit.sum() >= _MIN_AT_LIMIT * (start - ready)[late].sum()
    if not enough or (waited & late).sum() < _MIN_WAITS:
        return None
    return calls.with_columns(
        most_at_once=pl.lit(most.number, pl.Int64),
        wait_ns=pl.Series(np.where(waited & late, at_limit, 0)),
    )


class _Most(NamedTuple):
    """When as many calls ran as ever did, or one of them had been done for HANDOVER_NS at most: so
    long the next one may take to go on.
    """

    number: int
    changes: Changes
    """When anything begins or ends."""
    holds: Ints
    """1 where it is so from a change on, else 0."""
    before_ns: Ints
    """How long it was so before a change."""

    @classmethod
    def of(cls, start: Ints, end: Ints) -> _Most:
        """Make it of calls; one that begins as another ends does not overlap it."""
        all_one = np.zeros(len(start), dtype=np.int64)
        number = int(most_at_once(all_one, start, end, 1)[0])
        until = end + HANDOVER_NS
        changes = Changes.of(1, np.tile(all_one, 2), np.concatenate([start, until]))
        (level,) = changes.sums(all_one, changes.rank(start), changes.rank(until))
        holds = (level >= number).astype(np.int64)
        lasts = changes.length_ns() * holds
        return cls(number, changes, holds, np.cumsum(lasts) - lasts)

    def until(self, time: Ints) -> Ints:
        """Return how long that many ran before each time."""
        at = self.changes.rank(time)
        since = np.where(self.holds[at] > 0, time - self.changes.moments[at], 0)
        return self.before_ns[at] + since


_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("limit", "row", "parent_row"), pl.Int64()),
    **dict.fromkeys(("service", "instance"), pl.String()),
    "pid": pl.Int64(),
    **dict.fromkeys(("component", "name", *_WHERE), pl.String()),
    **dict.fromkeys(("most_at_once", "wait_ns"), pl.Int64()),
}

COLUMNS = {
    "limit": "number of the limit; all calls with it run into the same one",
    "row": "the call, as in `tree`",
    "parent_row": "the span that makes it, in whose own time it waits",
    "service": "service.name of the call's span",
    "instance": "service.instance.id",
    "pid": "process",
    "component": "what is called",
    "name": "name of the call's span",
    "entry_endpoint": "endpoint of its request",
    "entry_tool": "tool of its request",
    "most_at_once": "most of the calls with this limit that ran at once, which is the limit",
    "wait_ns": f"how long it waited while that many ran, or one of them had been done for "
    f"{HANDOVER_NS // 1_000_000} ms at most; 0 for one that waited for less than "
    f"{MIN_WAIT_NS // 1_000_000} ms, or mostly while fewer ran",
}

DERIVED = Derived(
    "limited_calls",
    f"one call of a kind of which only so many run at once, where {_MIN_WAITS} or more waited for "
    "others to be done",
    ("tree", "span_waits"),
    compute,
    COLUMNS,
)
