"""Rate, errors, latency and resources in buckets of time: `series`.

Each endpoint has buckets as wide as it takes to hold enough requests; a bucket with too few of them
has no latency. The first and the last bucket, which are seldom whole, are left out.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.series.metric_stats import SERIES, measured
from perfkit.analysis.series.timeline import bucket_width_ns
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import Floats, quantiles
from perfkit.analysis.vector.summary import sums

MAX_ENDPOINTS = 30
"""Endpoints, those with most time first, that have series of their own."""
MAX_METRICS = 200
"""Series of metrics, those with most points first."""
_WANTED = 30
"""Entries in a bucket, on average, as long as there are _BUCKETS of them."""
_BUCKETS = 48
_NEEDED = {"p50_ns": 3, "p95_ns": 10}
"""Entries that a bucket's percentiles need."""
_MIN_BUCKETS = 24
_LEVELS = {"p50_ns": 0.5, "p95_ns": 0.95}
_COUNTED = ("start_ns", "duration_ns", "adjusted_count", "failed")
"""What is known of an entry beside its endpoint."""

KEY = ("series_id", "kind", "measure", "service", "endpoint", "instance", "attributes", "unit")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `series`, by series and time."""
    entries, metrics = _entries(tables), _metrics(tables)
    first = int(entries["series_id"].max() or 0) + 1 if entries.height else 0  # type: ignore[arg-type]
    metrics = metrics.with_columns(pl.col("series_id") + first)
    return pl.concat(
        part.select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
        for part in (entries, metrics)
    )


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema=_SCHEMA)


def _entries(tables: Tables) -> pl.DataFrame:
    """Return the series of all entries together, and of each endpoint."""
    entries = (
        tables["requests"]
        .filter("entry")
        .select("service", "endpoint", *_COUNTED[:-1], failed=pl.col("status") == "error")
        .collect()
    )
    if entries.is_empty():
        return _empty()
    first_ns, last_ns = int(entries["start_ns"].min()), int(entries["start_ns"].max())  # type: ignore[arg-type]
    base_ns = bucket_width_ns(first_ns, last_ns)
    groups = _grouped(entries, base_ns, last_ns - first_ns)
    if groups.is_empty():
        return _empty()
    everything = groups.filter(pl.col("endpoint").is_null())["group"].to_list()
    named = groups.drop_nulls("endpoint")
    # Each entry comes twice: of a large capture without its texts.
    rows = pl.concat(
        [
            entries.join(named, on=["service", "endpoint"], nulls_equal=True).select(
                *_COUNTED, "group"
            ),
            *(entries.select(*_COUNTED, group=pl.lit(group, pl.Int64)) for group in everything),
        ]
    )
    del entries
    return _bucketed(rows, groups, first_ns, last_ns)


def _grouped(entries: pl.DataFrame, base_ns: int, length_ns: int) -> pl.DataFrame:
    """Return which endpoints have series, the first (null) being all, and their buckets' width."""
    busiest = (
        entries.group_by("service", "endpoint")
        .agg(seen=pl.len(), time=(pl.col("duration_ns") * pl.col("adjusted_count")).sum())
        .sort("time", "endpoint", descending=[True, False])
        .head(MAX_ENDPOINTS)
    )
    everything = pl.DataFrame(
        {"service": [None], "endpoint": [None], "seen": [entries.height]},
        schema={"service": pl.String, "endpoint": pl.String, "seen": busiest.schema["seen"]},
    )
    wanted_ns = pl.min_horizontal(_WANTED * length_ns / pl.col("seen"), length_ns / _BUCKETS)
    return (
        pl.concat([everything, busiest.select(everything.columns)])
        .with_columns(width_ns=(wanted_ns / base_ns).ceil().clip(1, 10**6).cast(pl.Int64) * base_ns)
        .filter(pl.col("seen") >= _BUCKETS, length_ns / pl.col("width_ns") >= _MIN_BUCKETS)
        .with_row_index("group")
        .with_columns(pl.col("group").cast(pl.Int64))
    )


def _bucketed(
    rows: pl.DataFrame, groups: pl.DataFrame, first_ns: int, last_ns: int
) -> pl.DataFrame:
    """Return the buckets of all groups, each with four measures."""
    width = groups["width_ns"].to_numpy()
    begin = first_ns // width + 1
    count = last_ns // width - begin
    base = np.append(0, np.cumsum(count))
    group = rows["group"].to_numpy()
    place = rows["start_ns"].to_numpy() // width[group] - begin[group]
    inside = (place >= 0) & (place < count[group])
    code = (base[group] + place)[inside]
    found = _Buckets(rows.filter(pl.Series(inside)), code, int(base[-1]))
    owner = np.repeat(np.arange(groups.height), count)
    start = (begin[owner] + np.arange(len(owner)) - base[owner]) * width[owner]
    common = groups.select("service", "endpoint")[owner].with_columns(
        bucket_ns=pl.Series(start), bucket_width_ns=pl.Series(width[owner])
    )
    seconds = width[owner] / 1e9
    none = np.full(len(owner), np.nan)
    parts = [
        common.with_columns(
            pl.lit(kind).alias("kind"),
            pl.lit(measure).alias("measure"),
            pl.lit(unit).alias("unit"),
            pl.Series("value", value).fill_nan(None),
            pl.Series("observations", found.effective),
            pl.Series("log_mean", found.log_mean if measure == "p50_ns" else none).fill_nan(None),
        )
        for kind, measure, unit, value in (
            ("rate", "requests_per_s", "{request}/s", found.weight / seconds),
            ("errors", "error_ratio", "1", found.error_ratio),
            *(("latency", name, "ns", found.percentiles[:, at]) for at, name in enumerate(_LEVELS)),
        )
    ]
    number = np.tile(owner, len(parts)) * len(parts) + np.repeat(np.arange(len(parts)), len(owner))
    return (
        pl.concat(parts)
        .with_columns(
            pl.lit(None, pl.String).alias("instance"),
            pl.lit(None, pl.String).alias("attributes"),
            series_id=pl.Series(number),
        )
        .sort("series_id", "bucket_ns")
    )


class _Buckets:
    """What fell into each bucket."""

    weight: Floats
    effective: Floats
    """As how many unweighted observations the weighted ones vary (Kish 1965)."""

    def __init__(self, rows: pl.DataFrame, code: Ints, buckets: int) -> None:
        weights = rows["adjusted_count"].to_numpy()
        failed = rows["failed"].to_numpy()
        self.weight = sums(code, weights, buckets)
        squares = sums(code, weights * weights, buckets)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.effective = np.where(squares > 0, self.weight**2 / squares, 0.0)
            self.error_ratio = np.where(
                self.weight > 0, sums(code, weights * failed, buckets) / self.weight, np.nan
            )
        logs = np.log(np.maximum(rows["duration_ns"].to_numpy(), 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            self.log_mean = sums(code, weights * logs, buckets) / self.weight
        self.percentiles = quantiles(
            code, rows["duration_ns"].to_numpy(), weights, buckets, list(_LEVELS.values())
        )
        seen = np.bincount(code, minlength=buckets)
        for at, name in enumerate(_LEVELS):
            self.percentiles[seen < _NEEDED[name], at] = np.nan
        self.log_mean[seen < _NEEDED["p50_ns"]] = np.nan


def _metrics(tables: Tables) -> pl.DataFrame:
    """Return the series of metrics: the mean of each bucket."""
    points = measured(tables["metrics"]).select(*SERIES, "ts_ns", "measured").collect()
    if points.is_empty():
        return _empty()
    first_ns, last_ns = int(points["ts_ns"].min()), int(points["ts_ns"].max())  # type: ignore[arg-type]
    width = bucket_width_ns(first_ns, last_ns)
    chosen = (
        points.group_by(SERIES)
        .agg(seen=pl.len(), moves=pl.col("measured").max() > pl.col("measured").min())
        .filter(pl.col("seen") >= _MIN_BUCKETS, "moves")
        .sort("seen", *SERIES, descending=[True, *[False] * len(SERIES)], nulls_last=True)
        .head(MAX_METRICS)
        .with_row_index("group")
        .drop("seen", "moves")
    )
    return (
        points.join(chosen, on=SERIES, nulls_equal=True)
        .group_by("group", *SERIES, bucket_ns=pl.col("ts_ns") // width * width)
        .agg(value=pl.col("measured").mean(), observations=pl.len().cast(pl.Float64))
        .sort("group", "bucket_ns")
        .with_columns(
            kind=pl.lit("resource"),
            measure="name",
            endpoint=pl.lit(None, pl.String),
            bucket_width_ns=pl.lit(width),
            log_mean=pl.lit(None, pl.Float64),
            series_id=pl.col("group").cast(pl.Int64),
        )
    )


_SCHEMA: dict[str, pl.DataType] = {
    "series_id": pl.Int64(),
    **dict.fromkeys(KEY[1:], pl.String()),
    **dict.fromkeys(("bucket_ns", "bucket_width_ns"), pl.Int64()),
    **dict.fromkeys(("value", "observations", "log_mean"), pl.Float64()),
}

KEY_DOCS = {
    "series_id": "number of the series",
    "kind": "`rate`, `errors`, `latency` or `resource`",
    "measure": "`requests_per_s`, `error_ratio`, `p50_ns`, `p95_ns`; of a resource the metric: "
    "its value, a counter's rate per second, or a histogram's mean",
    "service": "service; null for all entries together, and for the host",
    "endpoint": "endpoint of entries; null for all of them, and for resources",
    "instance": "which replica or process; of resources only",
    "attributes": "what else tells a metric's series apart",
    "unit": "unit of the values",
}

COLUMNS = {
    **KEY_DOCS,
    "bucket_ns": "start of the bucket",
    "bucket_width_ns": f"its width: whole seconds, at most 600 buckets, {_WANTED} entries in one",
    "value": f"the value; null for medians of fewer than {_NEEDED['p50_ns']} entries and "
    f"95th percentiles of fewer than {_NEEDED['p95_ns']}",
    "observations": "how many observations it rests on; of weighted ones, to how many unweighted "
    "ones they are worth",
    "log_mean": "beside a median, the mean of the logarithms of the durations: the surer one of "
    "few entries",
}

DERIVED = Derived(
    "series",
    "one measure of one endpoint or resource in one bucket of time",
    ("requests", "metrics"),
    compute,
    COLUMNS,
)
