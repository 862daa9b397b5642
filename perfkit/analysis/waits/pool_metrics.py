"""What metrics of OpenTelemetry, present and past, say of each connection pool."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.series.metric_stats import attribute, measured

_NAMES = {
    "db.client.connection.count": "connections",
    "db.client.connections.usage": "connections",
    "db.client.connection.max": "max",
    "db.client.connections.max": "max",
    "db.client.connection.pending_requests": "pending",
    "db.client.connections.pending_requests": "pending",
    "db.client.connection.wait_time": "wait",
    "db.client.connections.wait_time": "wait",
    "db.client.connection.timeouts": "timeouts",
    "db.client.connections.timeouts": "timeouts",
}
"""https://opentelemetry.io/docs/specs/semconv/db/database-metrics/ and its version 1.24."""

_POOL = ("db.client.connection.pool.name", "pool.name")
_STATE = ("db.client.connection.state", "state")
_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}

KEY = ("pool", "service", "instance")


def _points(metrics: pl.LazyFrame) -> pl.LazyFrame:
    """Return the observations of all pools: whose, `what`, and how much."""
    return measured(metrics.filter(pl.col("name").is_in(list(_NAMES)))).select(
        pl.coalesce(attribute(name) for name in _POOL).fill_null("").alias("pool"),
        pl.coalesce(attribute(name) for name in _STATE).alias("state"),
        pl.col("name").replace_strict(_NAMES).alias("what"),
        "name",
        pl.col("unit").replace_strict(_NS, default=1e9, return_dtype=pl.Float64).alias("to_ns"),
        *("service", "instance", "ts_ns", "measured", "increase"),
    )


def _limits(points: pl.LazyFrame) -> pl.LazyFrame:
    value = pl.col("measured")
    return points.filter(pl.col("what") == "max").group_by(KEY).agg(max_connections=value.max())


def _at_once(points: pl.LazyFrame, value: pl.Expr) -> pl.LazyFrame:
    """Return one value a pool and moment."""
    # One reading of a pool may come in several series, such as one for each user.
    by_name = points.group_by(*KEY, "ts_ns", "name").agg(value.sum().alias("value"))
    # A pool may be reported under its present and its former name at once: that is one pool.
    return by_name.group_by(*KEY, "ts_ns").agg(pl.col("value").max())


def pool_readings(metrics: pl.LazyFrame) -> pl.DataFrame:
    """Return one row a pool and moment: `used`, `pending`, `waited_ns` since the last, the limit.

    What was not observed at that moment is null.
    """
    points = _points(metrics)
    what, value = pl.col("what"), pl.col("measured")
    waited = value * pl.col("increase") * pl.col("to_ns")
    in_use = points.filter(what == "connections", pl.col("state") == "used")
    parts = (
        _at_once(in_use, value).rename({"value": "used"}),
        _at_once(points.filter(what == "pending"), value).rename({"value": "pending"}),
        _at_once(points.filter(what == "wait"), waited).rename({"value": "waited_ns"}),
    )
    readings = parts[0]
    for part in parts[1:]:
        readings = readings.join(
            part, on=[*KEY, "ts_ns"], how="full", coalesce=True, nulls_equal=True
        )
    return readings.join(_limits(points), on=KEY, how="left", nulls_equal=True).collect()


def pool_metrics(metrics: pl.LazyFrame) -> pl.DataFrame:
    """Return one row a pool: `KEY`, `max_connections`, `max_used`, `mean_used`,
    `saturated_ratio`, `pending_max`, `wait_ns`, `waits` and `timeouts`; null is not known.
    """
    points = _points(metrics)
    what, value = pl.col("what"), pl.col("measured")
    limits = _limits(points).collect()
    used = (
        _at_once(points.filter(what == "connections", pl.col("state") == "used"), value)
        .collect()
        .join(limits, on=KEY, how="left", nulls_equal=True)
        .group_by(KEY)
        .agg(
            max_used=pl.col("value").max(),
            mean_used=pl.col("value").mean(),
            saturated_ratio=(pl.col("value") >= pl.col("max_connections")).mean(),
        )
    )
    waits = (
        points.filter(what.is_in(["pending", "wait", "timeouts"]))
        .group_by(KEY)
        .agg(
            pending_max=value.filter(what == "pending").max(),
            wait_ns=_sum((value * pl.col("increase") * pl.col("to_ns")).filter(what == "wait")),
            waits=_sum(pl.col("increase").filter(what == "wait")),
            timeouts=_sum(pl.col("increase").filter(what == "timeouts")),
        )
        .collect()
    )
    pools = pl.concat([frame.select(KEY) for frame in (limits, used, waits)]).unique()
    for frame in (limits, used, waits):
        pools = pools.join(frame, on=KEY, how="left", nulls_equal=True)
    whole = ("max_connections", "max_used", "pending_max", "wait_ns", "waits", "timeouts")
    return pools.with_columns(pl.col(whole).round().cast(pl.Int64))


def _sum(values: pl.Expr) -> pl.Expr:
    return pl.when(values.len() > 0).then(values.sum())
