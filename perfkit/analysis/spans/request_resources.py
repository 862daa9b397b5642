"""CPU and memory of a request's process when the request began."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.session import Tables

_NEAREST_NS = 5 * 10**9
"""An observation further away than this says nothing about the request."""

PID = r"^(?:.* \()?pid (\d+)\)?$"
"""How recording calls a process: `gunicorn (pid 7)`, or `pid 7`."""

_METRICS = {"process.cpu.utilization": "cpu_ratio", "process.memory.usage": "rss_bytes"}


def with_resources(requests: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Add `cpu_ratio` and `rss_bytes`. `requests` has pid, service and start_ns."""
    observed = (
        tables["metrics"]
        .filter(pl.col("name").is_in(list(_METRICS)), pl.col("value") >= 0)
        .select(
            "ts_ns", "name", "value", process=pl.col("instance").fill_null(""), service="service"
        )
        .collect()
    )
    if observed.is_empty():
        nothing = {"process": pl.String, "cpu_ratio": pl.Float64, "rss_bytes": pl.Int64}
        return requests.with_columns(
            pl.lit(None, dtype=dtype).alias(name) for name, dtype in nothing.items()
        )
    keyed = requests.with_columns(process=_process(observed))
    for metric, column in _METRICS.items():
        series = observed.filter(pl.col("name") == metric).sort("ts_ns")
        keyed = (
            keyed.with_row_index("place")
            .sort("start_ns")
            .join_asof(
                series.select("ts_ns", "process", pl.col("value").alias(column)),
                left_on="start_ns",
                right_on="ts_ns",
                by="process",
                strategy="nearest",
                tolerance=_NEAREST_NS,
                check_sortedness=False,
            )
            .sort("place")
            .drop("place", "ts_ns", strict=False)
        )
    cores = tables.capture.info.cores or None  # imported data may not say
    return keyed.with_columns(
        # The metric counts in cores; a request looks at the whole machine.
        cpu_ratio=(pl.col("cpu_ratio") / pl.lit(cores, dtype=pl.Float64)).clip(0.0, 1.0),
        rss_bytes=pl.col("rss_bytes").round().cast(pl.Int64),
    )


def _process(observed: pl.DataFrame) -> pl.Expr:
    """Return which process's metrics are those of a request; null when that is not known.

    By pid; else the only process of its service; else the only process at all.
    """
    processes = observed.select("process", "service").unique()
    known = processes["process"].unique()
    by_service = (
        processes.drop_nulls("service")
        .group_by("service")
        .agg(pl.col("process").first(), number=pl.col("process").n_unique())
        .filter(pl.col("number") == 1)
    )
    of_pid = (
        known.to_frame("process")
        .with_columns(pid=pl.col("process").str.extract(PID).cast(pl.Int64, strict=False))
        .drop_nulls("pid")
        .unique("pid", maintain_order=True)
    )
    pids = dict(zip(of_pid["pid"], of_pid["process"], strict=True))
    services = dict(zip(by_service["service"], by_service["process"], strict=True))
    only = known[0] if len(known) == 1 else None
    return pl.coalesce(
        pl.col("pid").replace_strict(pids, default=None, return_dtype=pl.String),
        pl.col("service").replace_strict(services, default=None, return_dtype=pl.String),
        pl.lit(only, dtype=pl.String),
    )
