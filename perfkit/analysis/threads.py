"""What each thread did: `threads`."""

from __future__ import annotations

import polars as pl

from perfkit.analysis import frame_roles
from perfkit.analysis.code_tree import population_samples
from perfkit.analysis.session import Derived, Tables

_THREAD = ("pid", "tid")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `threads`, busiest first."""
    paths = tables["call_paths"].select("stack_id", "function", "role")
    by_stack = (
        population_samples(tables)
        .group_by(*_THREAD, "stack_id", "state")
        .agg(
            pl.col("duration_ns").sum(),
            timed=pl.col("duration_ns").count(),
            samples=pl.col("count").fill_null(1).sum(),
            thread_name=pl.col("thread_name").drop_nulls().last(),
            last_ns=pl.col("ts_ns").max(),
        )
        .join(paths, on="stack_id", how="left")
        .with_columns(
            # Where no state was recorded, an innermost frame that cannot but wait was waiting.
            activity=pl.when(
                pl.col("state").is_null() & pl.col("role").is_in(frame_roles.IDLE_LEAVES)
            )
            .then(pl.lit("idle"))
            .otherwise(pl.col("state").fill_null("unknown"))
        )
        .collect(engine="streaming")
    )
    timed = by_stack["timed"].sum() > 0
    duration, activity = pl.col("duration_ns"), pl.col("activity")
    weight = duration if timed else pl.col("samples")
    # A thread is described by where it worked; one that only waits, by where it waits.
    functions = (
        by_stack.group_by(*_THREAD, "function")
        .agg(active=weight.filter(activity != "idle").sum(), weight=weight.sum())
        .sort("active", "weight", "function", descending=[True, True, False])
        .group_by(*_THREAD)
        .agg(top_function=pl.col("function").first())
    )
    sums = {
        f"{state}_ns": duration.filter(activity == state).sum() if timed else None
        for state in ("running", "idle", "unknown")
    }
    return (
        by_stack.group_by(*_THREAD)
        .agg(
            pl.col("thread_name").sort_by("last_ns", nulls_last=False).drop_nulls().last(),
            *(
                pl.lit(None, dtype=pl.Int64).alias(name) if total is None else total.alias(name)
                for name, total in sums.items()
            ),
            pl.col("samples").sum(),
        )
        .join(functions, on=_THREAD, how="left", nulls_equal=True)
        .sort(
            "running_ns",
            "unknown_ns",
            "samples",
            *_THREAD,
            descending=[True, True, True, False, False],
            nulls_last=True,
        )
        .select(list(COLUMNS))
    )


COLUMNS = {
    "pid": "process",
    "tid": "thread",
    "thread_name": "its latest name",
    "running_ns": "time in which it ran; null when samples are only counts",
    "idle_ns": "time in which it waited",
    "unknown_ns": "time of which nobody knows whether it ran",
    "samples": "observations",
    "top_function": "function in which it spent most time, waiting left out where it also worked",
}

DERIVED = Derived("threads", "one thread that was sampled", ("samples",), compute, COLUMNS)
