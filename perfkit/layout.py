"""How a compacted part of `spans` is laid out, so that a filter reads only what it needs.

A part holds all spans of the traces of one bucket, a hash of the trace id. Its rows are runs of
whole traces that began about the same time and whose first span is of one endpoint; the part says
of each run when its spans started and ended and what they are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

INDEX_KEY = "perfkit.index"

_TRACE = ("trace_hi", "trace_lo")
_SLICES = 16
"""Runs of a part begin in so many slices of time."""
_RUN_ROWS = 4096
"""Shorter runs are joined with the next; one that is longer is cut between traces."""
_MOST_NAMES = 200
_BITS = 1 << 44


class Run(msgspec.Struct, frozen=True):
    """Rows of a part, one after the other, that hold whole traces."""

    first: int
    rows: int
    start_ns: int
    """The first start in it."""
    end_ns: int
    """The last end in it."""
    names: list[str] | None
    """Endpoints, or names of spans without one; None when there are too many."""


class Index(msgspec.Struct, frozen=True):
    """What a part says of its rows."""

    bucket: int
    buckets: int
    runs: list[Run]

    def encoded(self) -> str:
        """Return it as text, for the part's metadata."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class Wanted:
    """Which entries are looked at: those that began then, with a request of that endpoint."""

    since_ns: int | None = None
    until_ns: int | None = None
    endpoint: str | None = None

    def may_be_in(self, run: Run) -> bool:
        """Whether any such entry can be in a run."""
        # Correcting clock skew moves no span out of the time of its trace.
        if self.since_ns is not None and run.end_ns < self.since_ns:
            return False
        if self.until_ns is not None and run.start_ns >= self.until_ns:
            return False
        if self.endpoint is None or run.names is None:
            return True
        return any(self.endpoint in (name, name.partition(" ")[2]) for name in run.names)

    def ranges(self, index: Index) -> list[tuple[int, int]]:
        """Return the rows to read, as (first, how many)."""
        ranges: list[tuple[int, int]] = []
        for run in index.runs:
            if not self.may_be_in(run):
                continue
            if ranges and sum(ranges[-1]) == run.first:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + run.rows)
            else:
                ranges.append((run.first, run.rows))
        return ranges


def read_index(metadata: dict[str, Any]) -> Index | None:
    """Return the index of a part from its metadata; None when it has none that can be read."""
    text = metadata.get(INDEX_KEY)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Index)
    except msgspec.DecodeError:
        return None


def trace_key() -> pl.Expr:
    """Return a number for the trace of a span, the same in every version."""
    low, high = (
        pl.col(name).fill_null(0).reinterpret(signed=False) for name in ("trace_lo", "trace_hi")
    )
    return (low ^ (high * pl.lit(0x9E3779B97F4A7C15, pl.UInt64))) * pl.lit(
        0xBF58476D1CE4E5B9, pl.UInt64
    )


def bucket(count: int) -> pl.Expr:
    """Return the number of a span's bucket: a hash of its trace id, the same in every version."""
    return (trace_key() // _BITS % count).cast(pl.Int64)


def laid_out(spans: pl.DataFrame, number: int, buckets: int) -> tuple[pl.DataFrame, Index]:
    """Return the spans of a bucket in the order of a part, and the index of the part."""
    traces = (
        spans.lazy()
        .with_row_index("place")
        .group_by(_TRACE, maintain_order=True)
        .agg(
            began=pl.col("start_ns").min().fill_null(0),
            top=pl.coalesce("endpoint", "name")
            .sort_by(pl.col("start_ns"), nulls_last=True, maintain_order=True)
            .first()
            .fill_null(""),
        )
        .with_row_index("trace")
        .with_columns(slice=_slice())
        .collect()
    )
    placed = (
        spans.lazy()
        .join(traces.lazy(), on=_TRACE, how="left", nulls_equal=True, maintain_order="left")
        .sort("slice", "top", "began", "trace", "start_ns", maintain_order=True)
        .collect()
    )
    runs = _runs(placed)
    return placed.select(spans.columns), Index(number, buckets, runs)


def _slice() -> pl.Expr:
    """Number the slices of time, each of which holds about as many traces."""
    place = pl.col("began").rank("ordinal").cast(pl.Int64) - 1
    return place * _SLICES // pl.len().cast(pl.Int64).clip(1)


def _runs(placed: pl.DataFrame) -> list[Run]:
    """Divide rows in order into runs: at changes of slice and endpoint, unless too short."""
    traces = (
        placed.lazy()
        .with_row_index("row")
        .group_by("trace", maintain_order=True)
        .agg(
            pl.col("row", "slice", "top").first(),
            rows=pl.len(),
        )
        .collect()
    )
    first: list[int] = []
    reached = -_RUN_ROWS
    before: tuple[int, str] | None = None
    for row, slice_number, top in traces.select("row", "slice", "top").iter_rows():
        long_enough = row - reached >= _RUN_ROWS
        if long_enough and ((slice_number, top) != before or row - reached >= 4 * _RUN_ROWS):
            first.append(row)
            reached = row
        before = (slice_number, top)
    return _described(placed, first)


def _described(placed: pl.DataFrame, first: Sequence[int]) -> list[Run]:
    ends = [*first[1:], placed.height]
    runs = []
    for begin, end in zip(first, ends, strict=True):
        part = placed[begin:end]
        start = part["start_ns"].fill_null(0)
        length = part["duration_ns"].fill_null(0).clip(0)
        names = part.select(pl.coalesce("endpoint", "name").drop_nulls().unique()).to_series()
        # An open span gets the latest end of its trace, which is among these.
        last = max(int((start.cast(pl.Int128) + length).max()), int(start.max()))  # type: ignore[arg-type]
        runs.append(
            Run(
                begin,
                end - begin,
                int(start.min()),  # type: ignore[arg-type]
                min(last, (1 << 62) - 1),
                sorted(names.to_list()) if len(names) <= _MOST_NAMES else None,
            )
        )
    return runs
