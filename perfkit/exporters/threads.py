"""What each sampled thread did, one stretch of one stack after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Thread:
    """One thread, in the order of time; times are ns since the first sample of the capture."""

    name: str
    pid: int | None
    tid: int | None
    origin_ns: int
    """Unix time of the first sample of the capture."""
    stacks: list[int]
    starts_ns: list[int]
    lengths_ns: list[int]


def threads(tables: Mapping[str, pl.LazyFrame]) -> list[Thread]:
    """Return the threads that have samples with times, the longest seen first.

    Samples of one stack that follow one another are one stretch. A sample that overlaps the one
    before it is cut where that one ends.
    """
    timed = pl.col("ts_ns").is_not_null() & (pl.col("duration_ns") > 0)
    samples = tables["ordered_samples"].filter(timed).collect()
    if samples.is_empty():
        return []
    end = pl.col("ts_ns") + pl.col("duration_ns")
    reached = end.cum_max().shift(1, fill_value=0).over("thread")
    rows = (
        samples.sort("thread", "ts_ns", maintain_order=True)
        .with_columns(start_ns=pl.max_horizontal("ts_ns", reached), end_ns=end)
        .filter(pl.col("end_ns") > pl.col("start_ns"))
    )
    same = (
        (pl.col("thread") == pl.col("thread").shift(1))
        & (pl.col("stack_id") == pl.col("stack_id").shift(1))
        & (pl.col("start_ns") == pl.col("end_ns").shift(1))
    )
    origin_ns = int(rows["start_ns"].min())  # type: ignore[arg-type]
    stretches = (
        rows.with_columns(run=(~same.fill_null(False)).cum_sum())
        .group_by("run", maintain_order=True)
        .agg(
            pl.col("thread", "pid", "tid", "thread_name", "stack_id", "start_ns").first(),
            pl.col("end_ns").last(),
        )
        .with_columns(
            start_ns=pl.col("start_ns") - origin_ns,
            length_ns=pl.col("end_ns") - pl.col("start_ns"),
        )
    )
    found = [
        _thread(one, origin_ns) for one in stretches.partition_by("thread", maintain_order=True)
    ]
    return sorted(found, key=lambda thread: -sum(thread.lengths_ns))


def _thread(rows: pl.DataFrame, origin_ns: int) -> Thread:
    pid, tid = rows["pid"][0], rows["tid"][0]
    name = rows["thread_name"].drop_nulls().head(1).to_list()
    return Thread(
        name=name[0] if name else "thread",
        pid=pid,
        tid=tid,
        origin_ns=origin_ns,
        stacks=rows["stack_id"].to_list(),
        starts_ns=rows["start_ns"].to_list(),
        lengths_ns=rows["length_ns"].to_list(),
    )
