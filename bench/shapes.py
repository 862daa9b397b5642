"""Captures of spans of any size and shape, made from columns: ordinary requests, hostile traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perfkit.capture import CaptureWriter

Ints = NDArray[np.int64]

START_NS = 1_700_000_000_000_000_000
_BATCH = 1 << 20

_REQUEST = pl.DataFrame(
    [
        # parent, start and length in µs, service, name, kind, endpoint, peer, statement
        (None, 0, 20_000, "gateway", "POST /tools/invoke", "server", "POST /tools/invoke", None, 0),
        (0, 100, 900, "gateway", "auth.check", "internal", None, None, 0),
        (0, 1_100, 1_500, "gateway", "plugins.before", "internal", None, None, 0),
        (0, 2_800, 15_000, "gateway", "GET", "client", None, "stock:80", 0),
        (3, 2_900, 14_800, "stock", "GET /stock/{id}", "server", "GET /stock/{id}", None, 0),
        (4, 3_000, 4_000, "stock", "SELECT orders", "client", None, None, "orders"),
        (4, 7_200, 5_000, "stock", "SELECT items", "client", None, None, "items"),
        (4, 7_300, 10_000, "stock", "SELECT prices", "client", None, None, "prices"),
    ],
    schema=["parent", "begin", "length", "service", "name", "kind", "endpoint", "peer", "table"],
    orient="row",
    strict=False,
).with_columns(
    pl.col("parent").cast(pl.Int64),
    db_system=pl.when(pl.col("table") != "0").then(pl.lit("postgresql")),
    db_statement=pl.when(pl.col("table") != "0").then(
        pl.format("SELECT id, total FROM {} WHERE user_id = %s", "table")
    ),
)


def requests(first: int, count: int) -> pl.DataFrame:
    """Return spans `first` to `first + count` of an endless series of requests of eight spans.

    A gateway calls a stock service, which runs three queries, two of them at once.
    """
    number = np.arange(first, first + count)
    place, trace = number % len(_REQUEST), number // len(_REQUEST)
    # A length that depends on the trace alone, so that batches fit together.
    factor = np.exp((_mixed(trace) >> 40).astype(np.float64) / (1 << 24))
    spans: pl.DataFrame = _REQUEST[place]
    begin, length = (spans[name].to_numpy() * 1_000 for name in ("begin", "length"))
    start = START_NS + trace * 1_000_000 + (begin * factor).astype(np.int64)
    end = START_NS + trace * 1_000_000 + ((begin + length) * factor).astype(np.int64)
    parent = spans["parent"].fill_null(-1).to_numpy()
    root = pl.Series(parent < 0)
    return spans.drop("parent", "begin", "length", "table").with_columns(
        trace_hi=pl.Series(_mixed(trace)),
        trace_lo=pl.Series(_mixed(trace + (1 << 40))),
        span_id=pl.Series(_mixed(number)),
        parent_id=pl.Series(_mixed(number - place + parent)).set(root, None),
        start_ns=pl.Series(start),
        duration_ns=pl.Series(end - start),
        status=pl.when(pl.Series(_mixed(number) % 997 == 0)).then(pl.lit("error")),
        thread_id=pl.Series(1000 + trace % 8),
        adjusted_count=pl.lit(1.0),
    )


def one_trace(parent: Ints, start: Ints, end: Ints) -> pl.DataFrame:
    """Return the spans of one trace; parents are places in it, -1 at the root."""
    count = len(parent)
    ids = _mixed(np.arange(count))
    kinds = pl.Series(["internal", "client", "server", "client"])
    return pl.DataFrame(
        {
            "trace_hi": np.full(count, 7),
            "trace_lo": np.full(count, 9),
            "span_id": ids,
            "parent_id": pl.Series(ids[parent]).set(pl.Series(parent < 0), None),
            "service": pl.Series([f"service-{n}" for n in range(7)]).gather(_digits(count, 7)),
            "name": pl.Series([f"work {n}" for n in range(50)]).gather(_digits(count, 50)),
            "kind": kinds.gather(_digits(count, 4)),
            "start_ns": START_NS + start,
            "duration_ns": end - start,
            "adjusted_count": np.ones(count),
        }
    )


def bushy(count: int) -> pl.DataFrame:
    """Return a trace of fan-out eight, whose children run partly one after the other."""
    parent = np.maximum((np.arange(count) - 1) // 8, 0)
    parent[:1] = -1
    return one_trace(parent, *_nested(parent))


def star(count: int) -> pl.DataFrame:
    """Return a trace of one parent and `count` - 1 children, which overlap in many ways."""
    number = np.arange(count)
    start = number * 1_000
    end = start + 500 + (_mixed(number) >> 52)
    start[0], end[0] = 0, count * 1_000
    return one_trace(np.where(number > 0, 0, -1), start, end)


def chain(count: int) -> pl.DataFrame:
    """Return a trace as deep as it has spans."""
    number = np.arange(count)
    return one_trace(number - 1, number, 4 * count - number)


def equal(count: int) -> pl.DataFrame:
    """Return a trace of spans that all begin and end together."""
    parent = np.maximum((np.arange(count) - 1) // 8, 0)
    parent[:1] = -1
    return one_trace(parent, np.zeros(count, dtype=np.int64), np.full(count, 1_000_000))


SHAPES: Mapping[str, Callable[[int], pl.DataFrame]] = {
    "fan-out 8": bushy,
    "a million children of one parent": star,
    "a million deep": chain,
    "all at the same time": equal,
}


def write_requests(capture: str, spans: int) -> int:
    """Write a capture of requests; returns its spans."""
    with CaptureWriter(Path(capture)) as writer:
        for first in range(0, spans, _BATCH):
            writer.append("spans", requests(first, min(_BATCH, spans - first)))
    return spans


def write_shape(capture: str, shape: str, spans: int) -> int:
    """Write a capture of one trace of a shape; returns its spans."""
    with CaptureWriter(Path(capture)) as writer:
        writer.append("spans", SHAPES[shape](spans))
    return spans


def _nested(parent: Ints) -> tuple[Ints, Ints]:
    """Lay children into their parents: the k-th of eight begins at k tenths of its parent."""
    count = len(parent)
    start, end = np.zeros(count, dtype=np.int64), np.full(count, 10**15)
    first, width = 1, 8
    while first < count:
        level = np.arange(first, min(first + width, count))
        above = parent[level]
        tenth = (end[above] - start[above]) // 10
        start[level] = start[above] + (level - 1) % 8 * tenth
        end[level] = start[level] + tenth * (1 + level % 3)
        first, width = first + width, width * 8
    return start, end


def _digits(count: int, base: int) -> pl.Series:
    return pl.Series((_mixed(np.arange(count)) >> 33) % base)


def _mixed(number: Ints) -> Ints:
    """Return numbers that look like random ids (splitmix64), all positive."""
    mixed = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).view(np.int64)
