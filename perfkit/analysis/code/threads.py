"""What each thread did: `threads`."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.code import frame_roles
from perfkit.analysis.code.code_tree import population_samples
from perfkit.analysis.code.samples import unseen_ns
from perfkit.analysis.session import Derived, Tables

_THREAD = ("pid", "tid")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `threads`, busiest first."""
    samples = population_samples(tables)
    stacks = _by_stack(samples, tables["call_paths"])
    timed = stacks["timed"].sum() > 0
    weight, active = ("duration_ns", "active_ns") if timed else ("samples", "active_samples")
    # A thread is described by where it worked; one that only waits, by where it waits.
    functions = (
        stacks.group_by(*_THREAD, "function")
        .agg(pl.col(weight, active).sum())
        .sort(active, weight, "function", descending=[True, True, False])
        .group_by(*_THREAD)
        .agg(top_function=pl.col("function").first())
    )
    times = ("running_ns", "unseen_ns", "idle_ns", "unknown_ns")
    if not timed:
        stacks = stacks.with_columns(pl.lit(None, dtype=pl.Int64).alias(name) for name in times)
    total = pl.col(times).sum() if timed else pl.col(times).first()
    return (
        stacks.group_by(*_THREAD)
        .agg(total, pl.col("samples").sum())
        .join(_latest_names(samples), on=_THREAD, how="left", nulls_equal=True)
        .join(functions, on=_THREAD, how="left", nulls_equal=True)
        .sort(
            *("running_ns", "unknown_ns", "samples", *_THREAD),
            descending=[True, True, True, False, False],
            nulls_last=True,
        )
        .select(list(COLUMNS))
    )


def _by_stack(samples: pl.LazyFrame, paths: pl.LazyFrame) -> pl.DataFrame:
    """Return the sums of each thread's stacks, with the stack's innermost function."""
    duration, state = pl.col("duration_ns"), pl.col("state")
    sums = (
        samples.select(
            *(*_THREAD, "stack_id", "duration_ns"),
            running_ns=pl.when(state == "running").then(duration),
            idle_ns=pl.when(state == "idle").then(duration),
            unseen_ns=unseen_ns(samples),
            samples=pl.col("count").fill_null(1),
        )
        .group_by(*_THREAD, "stack_id")
        .agg(
            pl.col("duration_ns", "running_ns", "idle_ns", "unseen_ns", "samples").sum(),
            timed=duration.count(),
        )
        .collect(engine="streaming")
    )
    innermost = paths.select(
        "stack_id", "function", waits=pl.col("role").is_in(frame_roles.IDLE_LEAVES)
    ).collect()
    waits = pl.col("waits").fill_null(False)
    unknown = duration - pl.col("running_ns") - pl.col("idle_ns")
    return (
        sums.join(innermost, on="stack_id", how="left")
        # Where no state was recorded, an innermost frame that cannot but wait was waiting.
        .with_columns(
            idle_ns=pl.col("idle_ns") + pl.when(waits).then(unknown).otherwise(0),
            unknown_ns=pl.when(waits).then(0).otherwise(unknown),
            active_samples=pl.when(waits).then(0).otherwise("samples"),
        )
        .with_columns(active_ns=duration - pl.col("idle_ns"))
    )


def _latest_names(samples: pl.LazyFrame) -> pl.DataFrame:
    return (
        samples.drop_nulls("thread_name")
        .group_by(*_THREAD, "thread_name")
        .agg(pl.col("ts_ns").max())
        .collect(engine="streaming")
        .sort("ts_ns", "thread_name", nulls_last=False)
        .group_by(*_THREAD)
        .agg(pl.col("thread_name").last())
    )


COLUMNS = {
    "pid": "process",
    "tid": "thread",
    "thread_name": "its latest name",
    "running_ns": "time in which it ran; null when samples are only counts",
    "unseen_ns": "CPU time that it used besides in code that no look saw, part of `idle_ns`",
    "idle_ns": "time in which it waited",
    "unknown_ns": "time of which nobody knows whether it ran",
    "samples": "observations",
    "top_function": "function in which it spent most time, waiting left out where it also worked",
}

DERIVED = Derived("threads", "one thread that was sampled", ("samples",), compute, COLUMNS)
