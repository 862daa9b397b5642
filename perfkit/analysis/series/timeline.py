"""Load, latency and resources over time: `timeline`."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.facts import cores
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.percentiles import quantiles

MAX_BUCKETS = 600
_SECOND_NS = 1_000_000_000
_LEVELS = {"p50_ns": 0.5, "p95_ns": 0.95}


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `timeline`: every bucket from the first moment to the last."""
    start_ns, end_ns = _range(tables)
    if start_ns is None or end_ns is None:
        return pl.DataFrame(schema={name: _TYPES.get(name, pl.Int64()) for name in COLUMNS})
    width_ns = bucket_width_ns(start_ns, end_ns)
    first = start_ns // width_ns
    count = end_ns // width_ns - first + 1
    bucket = (pl.col("ts_ns") // width_ns - first).alias("bucket")
    buckets = pl.DataFrame({"bucket": np.arange(count)})
    return (
        buckets.join(_requests(tables, bucket, count), on="bucket", how="left")
        .join(_resources(tables, bucket), on="bucket", how="left")
        .with_columns(
            pl.col("requests", "errors").fill_null(0),
            bucket_ns=(pl.col("bucket") + first) * width_ns,
            bucket_width_ns=pl.lit(width_ns),
        )
        .sort("bucket")
        .select(pl.col(name).cast(_TYPES.get(name, pl.Int64())) for name in COLUMNS)
    )


def _range(tables: Tables) -> tuple[int | None, int | None]:
    """Return the first and the last moment of entries and metrics, which is what is shown."""
    entries = tables["requests"].filter("entry").select("start_ns", "end_ns")
    metrics = tables["metrics"].select(start_ns="ts_ns", end_ns="ts_ns")
    both = pl.concat([entries, metrics]).select(pl.col("start_ns").min(), pl.col("end_ns").max())
    start_ns, end_ns = both.collect().row(0)
    return start_ns, end_ns


def bucket_width_ns(start_ns: int, end_ns: int) -> int:
    """Return the smallest whole number of seconds that makes at most MAX_BUCKETS buckets."""
    seconds = max(1, -(-(end_ns - start_ns) // (MAX_BUCKETS * _SECOND_NS)))
    while end_ns // (seconds * _SECOND_NS) - start_ns // (seconds * _SECOND_NS) >= MAX_BUCKETS:
        seconds += 1
    return seconds * _SECOND_NS


def _requests(tables: Tables, bucket: pl.Expr, count: int) -> pl.DataFrame:
    entries = (
        tables["requests"]
        .filter("entry")
        .select("duration_ns", "adjusted_count", "status", ts_ns="start_ns")
        .with_columns(bucket)
        .collect()
    )
    marks = quantiles(
        entries["bucket"].to_numpy(),
        entries["duration_ns"].to_numpy(),
        entries["adjusted_count"].to_numpy(),
        count,
        list(_LEVELS.values()),
    )
    weight = pl.col("adjusted_count")
    sums = entries.group_by("bucket").agg(
        requests=weight.sum().round(),
        errors=weight.filter(pl.col("status") == "error").sum().round(),
        max_ns=pl.col("duration_ns").max(),
    )
    levels = [
        pl.Series(name, marks[:, number]).fill_nan(None).round()
        for number, name in enumerate(_LEVELS)
    ]
    return pl.DataFrame([pl.Series("bucket", np.arange(count)), *levels]).join(
        sums, on="bucket", how="left"
    )


def _resources(tables: Tables, bucket: pl.Expr) -> pl.DataFrame:
    """Return the mean of each series in each bucket, added up over processes."""
    names = {
        "process.cpu.utilization": "process_cores",
        "process.memory.usage": "rss_bytes",
        "system.cpu.utilization": "host",
    }
    means = (
        tables["metrics"]
        .filter(pl.col("name").is_in(list(names)) & (pl.col("value") >= 0))
        .with_columns(bucket)
        .group_by("bucket", "name", "service", "instance", "attributes")
        .agg(pl.col("value").mean())
        .collect()
    )
    value, name = pl.col("value"), pl.col("name")
    of_host = name == "system.cpu.utilization"
    # A host may give the mean of its cores, each core, or both.
    whole, single = of_host & pl.col("attributes").is_null(), pl.col("attributes").is_not_null()
    machine_cores = cores(tables)
    return means.group_by("bucket").agg(
        cpu_ratio=_total(value.filter(name == "process.cpu.utilization")) / machine_cores
        if machine_cores
        else pl.lit(None, dtype=pl.Float64),
        host_cpu_ratio=pl.coalesce(
            value.filter(whole).mean(), value.filter(of_host & single).mean()
        ),
        rss_bytes=_total(value.filter(name == "process.memory.usage")).round(),
    )


def _total(values: pl.Expr) -> pl.Expr:
    return pl.when(values.len() > 0).then(values.sum())


_TYPES: dict[str, pl.DataType] = {"cpu_ratio": pl.Float64(), "host_cpu_ratio": pl.Float64()}

COLUMNS = {
    "bucket_ns": "start of the bucket, a whole second",
    "bucket_width_ns": f"its width: 1 s, or more so that there are at most {MAX_BUCKETS}",
    "requests": "entries that began in it",
    "errors": "those of them that failed",
    "p50_ns": "median duration of them; null when there are none",
    "p95_ns": "95th percentile",
    "max_ns": "the longest",
    "cpu_ratio": "CPU of the recorded processes, as a share of all cores; null when not recorded",
    "host_cpu_ratio": "CPU of the whole host",
    "rss_bytes": "resident memory of the recorded processes",
}

DERIVED = Derived(
    "timeline",
    "one time bucket of the capture",
    ("requests", "metrics"),
    compute,
    COLUMNS,
)
