"""Requests that look into a store, compute what they did not find and put it there: `cache_fills`.

What is bound in a command is not recorded, so two requests cannot be seen to miss the same answer.
But where it is one answer, who looks while another computes misses too, and who looks else mostly
finds it; where each has its own, it does not matter when one looks.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.percentiles import codes

_STORES = r"^(redis|valkey|memcached|keydb|dragonfly)"
_READS = ("GET", "GETS", "GETEX", "MGET", "HGET", "HMGET", "HGETALL")
_WRITES = ("SET", "SETEX", "PSETEX", "MSET", "HSET", "HMSET", "ADD")
_COMPUTES_NS = 5_000_000
"""Ours: what takes less between the look and the write is a lock or a counter, or no matter."""

_KIND = ("service", "component", "entry_endpoint", "entry_tool")


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a kind of entry and store in which any of them computes an answer."""
    looks = _looks(tables)
    if looks.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    kind, _ = codes(looks, _KIND)
    looks = looks.with_columns(kind=pl.Series(kind)).sort("kind", "look_ns", "entry_row")
    fills = looks["written_ns"].is_not_null().to_numpy()
    joins = _joins(
        looks["kind"].to_numpy(),
        looks["look_ns"].to_numpy(),
        looks["written_ns"].fill_null(0).to_numpy(),
        fills,
    )
    count = pl.col("adjusted_count")

    def total(which: pl.Expr, what: pl.Expr = count) -> pl.Expr:
        return what.filter(which).sum().round().cast(pl.Int64)

    fill, join = pl.col("fill"), pl.col("join")
    return (
        looks.with_columns(fill=pl.Series(fills), join=pl.Series(joins))
        .group_by("kind", *_KIND)
        .agg(
            looks=total(pl.lit(True)),
            fills=total(fill),
            joins=total(join),
            joined_fills=total(fill & join),
            fill_ns=total(fill, count * pl.col("computing_ns")),
            joined_fill_ns=total(fill & join, count * pl.col("computing_ns")),
        )
        .filter(pl.col("fills") > 0)
        .sort("joined_fill_ns", "kind", descending=[True, False])
        .select(*COLUMNS)
    )


def _looks(tables: Tables) -> pl.DataFrame:
    """Return one row an entry that reads a store first: when it looked, and when it wrote what it
    computed in between, if so."""
    command = pl.coalesce("db_statement", "name").str.extract(r"^\s*(\w+)").str.to_uppercase()
    columns = ("entry_row", "start_ns", "end_ns", "adjusted_count", *_KIND)
    spans = tables.where(
        "tree",
        pl.col("db_system").str.contains(_STORES) & pl.col("entry_row").is_not_null(),
        *("db_statement", "name", *columns),
    )
    spans = spans.select(*columns, command=command).filter(
        pl.col("command").is_in([*_READS, *_WRITES])
    )
    entry = ("entry_row", "service", "component")
    spans = spans.sort("start_ns", "end_ns").with_columns(
        before_ns=pl.col("end_ns").cum_max().shift(1).over(entry)
    )
    writes = pl.col("command").is_in(_WRITES)
    gap = pl.when(writes).then(pl.col("start_ns") - pl.col("before_ns"))
    longest = pl.col("gap_ns").arg_max()
    return (
        spans.with_columns(gap_ns=gap)
        .group_by(*entry, maintain_order=True)
        .agg(
            pl.col("entry_endpoint", "entry_tool", "adjusted_count").first(),
            first=pl.col("command").first(),
            look_ns=pl.col("start_ns").first(),
            computing_ns=pl.col("gap_ns").max(),
            written_ns=pl.col("start_ns").get(longest),
        )
        .filter(pl.col("first").is_in(_READS))
        .with_columns(
            pl.when(pl.col("computing_ns") >= _COMPUTES_NS).then(
                pl.col("computing_ns", "written_ns")
            )
        )
    )


def _joins(kind: Ints, look: Ints, written: Ints, fills: Bools) -> Bools:
    """Return which entries looked while an earlier one of their kind computed.

    Rows are sorted by kind and look.
    """
    begins = np.flatnonzero(np.diff(kind, prepend=-1))
    until = np.where(fills, written, np.iinfo(np.int64).min)
    joins = np.zeros(len(kind), dtype=np.bool_)
    for first, after in zip(begins, np.append(begins[1:], len(kind)), strict=True):
        reached = np.maximum.accumulate(until[first:after])
        joins[first + 1 : after] = look[first + 1 : after] < reached[:-1]
    return joins


COLUMNS = {
    "service": "service that looks",
    "component": "the store",
    "entry_endpoint": "endpoint of the entries",
    "entry_tool": "their tool",
    "looks": "entries that read the store before they write to it",
    "fills": "those that then computed for at least 5 ms and wrote to it: they found nothing",
    "joins": "entries that looked while an earlier one computed",
    "joined_fills": "those of them that computed, too",
    "fill_ns": "time from the look to the write of those that found nothing",
    "joined_fill_ns": "the part of it of those that joined",
}

_SCHEMA: dict[str, pl.DataType] = {
    name: pl.String() if name in _KIND else pl.Int64() for name in COLUMNS
}

DERIVED = Derived(
    "cache_fills",
    "one kind of entry that fills a store with what it did not find there",
    ("tree",),
    compute,
    COLUMNS,
)
