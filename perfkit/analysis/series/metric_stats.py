"""One line per metric series: range, mean, and whether it rises: `metric_stats`."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.statistics import drift, trend

SERIES = ("name", "service", "instance", "attributes", "unit", "kind")
"""What tells one series from another."""
_GROWN = ("increase", "total")
"""What a gauge does not have."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `metric_stats`, by name."""
    points = measured(tables["metrics"])
    value, ts = pl.col("measured"), pl.col("ts_ns")
    stats = (
        points.group_by(*SERIES, "measure")
        .agg(
            points=pl.len().cast(pl.Int64),
            first_ns=ts.first(),
            last_ns=ts.last(),
            min=value.min(),
            mean=value.mean(),
            max=value.max(),
            p95=value.quantile(0.95, interpolation="linear"),
            last=value.last(),
            increase=pl.col("increase").sum(),
            total=pl.when(pl.col("measure").first() == "mean")
            .then((value * pl.col("increase")).sum())
            .otherwise(pl.col("increase").sum()),
            ts_ns=ts,
            values=value,
            late_growth=_growth_late(value),
        )
        .collect()
        .sort(SERIES, nulls_last=True)
    )
    series = [
        (times.to_numpy(), values.to_numpy())
        for times, values in zip(stats["ts_ns"], stats["values"], strict=True)
    ]
    slopes = [trend.slope_per_s(times, values) for times, values in series]
    chances = [drift.drift_p(values, (times - times[0]) / 1e9) for times, values in series]
    return stats.with_columns(
        *(pl.when(pl.col("measure") != "value").then(name).alias(name) for name in _GROWN),
        pl.Series("slope_per_s", slopes, dtype=pl.Float64),
        pl.Series("trend_p", chances, dtype=pl.Float64),
    ).select(list(COLUMNS))


def attribute(name: str) -> pl.Expr:
    """Return an attribute of points, as text; null for one that a point has not."""
    return pl.col("attributes").str.json_path_match(f'$["{name}"]')


def measured(metrics: pl.LazyFrame) -> pl.LazyFrame:
    """Return the points of all series in the order of time with what is worth looking at.

    New columns: `measured`, the value of a gauge, the rate of a counter per second, the mean of
    what a histogram observed since its point before; `increase`, by how much a counter grew or how
    many observations a histogram got; `measure`, which of the three it is. A series that only grows
    has its first point cut, because nobody knows since when it grew; so has a counter that began
    anew.
    """
    previous = [pl.col(name).shift(1).over(SERIES) for name in ("ts_ns", "value", "count")]
    seconds = (pl.col("ts_ns") - previous[0]) / 1e9
    delta = pl.col("kind") == "delta"
    histogram = pl.col("count").is_not_null()
    gauge = ~pl.col("kind").is_in(["counter", "delta", "histogram"])
    grown = pl.when(delta).then("value").otherwise(pl.col("value") - previous[1])
    observed = pl.when(delta).then("count").otherwise(pl.col("count") - previous[2])
    return (
        metrics.filter(pl.col("value").is_finite() & pl.col("ts_ns").is_not_null())
        .sort("ts_ns", maintain_order=True)
        .with_columns(
            measure=pl.when(gauge)
            .then(pl.lit("value"))
            .when(histogram)
            .then(pl.lit("mean"))
            .otherwise(pl.lit("rate")),
            seconds=seconds,
            grown=grown,
            observed=observed,
        )
        .with_columns(
            measured=pl.when(gauge)
            .then("value")
            .when(histogram & (pl.col("observed") > 0))
            .then(pl.col("grown") / pl.col("observed"))
            .when(~histogram & (pl.col("seconds") > 0) & (delta | (pl.col("grown") >= 0)))
            .then(pl.col("grown") / pl.col("seconds")),
            increase=pl.when(gauge)
            .then(None)
            .when(histogram)
            .then(pl.col("observed").cast(pl.Float64))
            .otherwise("grown"),
        )
        .filter(pl.col("measured").is_not_null())
    )


def _growth_late(value: pl.Expr) -> pl.Expr:
    """Return the median of a series' last quarter less that of the quarter before."""
    quarter = (pl.len() // 4).cast(pl.Int64)
    before = value.slice(pl.len().cast(pl.Int64) - 2 * quarter, quarter)
    return value.tail(quarter).median() - before.median()


COLUMNS = {
    "name": "metric",
    "service": "service.name, or null for the host",
    "instance": "which replica or process",
    "attributes": "attributes as a JSON object; null when none",
    "unit": "unit of the metric as its source names it; a rate is this per second",
    "kind": "`gauge`, `counter`, `histogram` or `delta`",
    "measure": "what the numbers here are: `value` of a gauge; `rate` of a counter, per second; "
    "`mean` of what a histogram observed between two points",
    "points": "how many numbers there are; a counter or histogram has one less than its points",
    "first_ns": "time of the first",
    "last_ns": "time of the last",
    "min": "smallest",
    "mean": "mean over the points",
    "max": "largest",
    "p95": "95th percentile over the points",
    "last": "the last",
    "increase": "by how much a counter grew, how many observations a histogram got; else null",
    "total": "what a histogram observed in these, added up; of a counter by how much it grew",
    "slope_per_s": f"Theil–Sen slope per second, of at most {trend.MAX_POINTS} points; null for "
    "fewer than two",
    "late_growth": "median of the last quarter of the points less that of the quarter before; near "
    "zero where growth has levelled off; null for fewer than four points",
    "trend_p": "two-sided p of no drift, under whatever noise the series may have, a random walk "
    f"included; null for fewer than {drift.MIN_POINTS} points",
}

DERIVED = Derived("metric_stats", "one metric series", ("metrics",), compute, COLUMNS)
