"""When metrics say that somebody waited: for a core, a quota, a disk, memory, a connection."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from perfkit.analysis.facts import cores
from perfkit.analysis.series.metric_stats import SERIES, attribute, measured
from perfkit.analysis.session import Tables
from perfkit.analysis.waits.pool_metrics import KEY, pool_readings

_LONGEST_GAPS = 3
"""A reading stands for the time since the one before, unless that is so many times as long as
usual: then it stands for the usual time."""


_WAITING = 0.1
"""So many requests waiting for a connection, on average, are contention (our own choice)."""


class _Watched(NamedTuple):
    """A metric that shows contention, and from which value on."""

    kind: str
    from_level: float
    unit: str
    is_wait: bool = False
    """Whether the value is waiting time by time: how many waited on average."""


_WATCHED = {
    # Our own choice: a fifth of a core's time spent waiting for it.
    "process.linux.run_queue.time": _Watched("run queue", 0.2, "threads waiting", True),
    # node-mixin, systemSaturationPerCoreThreshold.
    "system.linux.tasks.running": _Watched("run queue", 2.0, "tasks per core"),
    # kubernetes-mixin, CPUThrottlingHigh, has a quarter of the periods; this is the time lost.
    "container.cpu.throttled.time": _Watched("cpu throttling", 0.05, "threads waiting", True),
    # awesome-prometheus-alerts, "Host CPU steal noisy neighbor".
    "system.cpu.steal": _Watched("cpu steal", 0.1, "share of time"),
    # Our own choices: shares of time in which at least one task waited.
    "system.linux.psi": _Watched("pressure", 0.25, "share of time"),
    "system.linux.psi.time": _Watched("pressure", 0.25, "share of time"),
    "container.linux.psi": _Watched("pressure", 0.25, "share of time"),
    "container.linux.psi.time": _Watched("pressure", 0.25, "share of time"),
    "process.linux.listen.backlog": _Watched("accept queue", 1.0, "connections waiting", True),
    # node-mixin calls a disk saturated by its queue; being busy is our own, earlier sign.
    "system.linux.disk.utilization": _Watched("disk", 0.9, "share of time"),
}


def contended_metrics(tables: Tables) -> pl.DataFrame:
    """Return the readings that show contention, as `contention.SCHEMA` has them."""
    watched = pl.DataFrame(
        [{"name": name, **one._asdict()} for name, one in _WATCHED.items()], orient="row"
    )
    metrics = tables["metrics"].filter(pl.col("name").is_in(list(_WATCHED)))
    readings = timed(measured(metrics).collect(), SERIES).join(watched, on="name")
    name, pressed = pl.col("name"), attribute("resource")
    machine_cores = cores(tables)
    per_core = name == "system.linux.tasks.running"
    level = (
        pl.when(per_core)
        .then(pl.col("measured") / pl.lit(machine_cores, dtype=pl.Float64))
        .otherwise("measured")
    )
    pressure = pl.col("kind_right") == "pressure"
    length = pl.col("end_ns") - pl.col("start_ns")
    found = (
        readings.with_columns(
            level=level,
            resource=pl.coalesce(
                pl.when(pressure).then(pressed),
                attribute("system.device"),
                pl.format("port {}", attribute("network.local.port")),
                pl.when(name.str.starts_with("container.")).then(pl.lit("quota")),
                pl.lit("processor"),
            ),
            some=~pressure | (attribute("kind") == "some"),
            exact=name.str.ends_with(".time"),
        )
        .filter("some", pl.col("level") >= pl.col("from_level"))
        .with_columns(
            pl.when(pressure)
            .then(pl.concat_str(pl.col("resource"), pl.lit(" pressure")))
            .otherwise("kind_right")
            .alias("kind"),
            wait_ns=pl.when("is_wait").then(pl.col("level") * length),
        )
    )
    # The share of the last ten seconds says the same as the time, less exactly.
    same = ["kind", "instance"]
    averages = found.filter(pressure & ~pl.col("exact"))
    exact = found.filter(pressure & pl.col("exact"))
    return pl.concat(
        [found.filter(~pressure), exact, averages.join(exact, on=same, how="anti")]
    ).select(
        *("kind", "resource", "service", "instance", "start_ns", "end_ns", "level", "unit"),
        *("wait_ns",),
        pid=_pid(),
        threshold="from_level",
        evidence=pl.lit("metrics"),
        confidence=pl.lit(0.9),
    )


def contended_pools(tables: Tables) -> pl.DataFrame:
    """Return the readings in which a pool had no connection left and somebody waited for one."""
    readings = timed(pool_readings(tables["metrics"]), KEY)
    length = pl.col("end_ns") - pl.col("start_ns")
    waited = pl.coalesce("waited_ns", pl.col("pending") * length)
    level = pl.coalesce("pending", pl.when(length > 0).then(waited / length))
    full = pl.col("used") >= pl.col("max_connections")
    known = readings.select(level=level).to_series().is_not_null().any()
    # A full pool for which nobody is known to wait may be just well used.
    contended = level >= _WAITING if known else full
    return readings.filter(contended.fill_null(False)).select(
        *("service", "instance", "start_ns", "end_ns"),
        kind=pl.lit("pool"),
        resource="pool",
        level=level,
        unit=pl.lit("requests waiting"),
        wait_ns=waited,
        pid=_pid(),
        threshold=pl.col("max_connections").cast(pl.Float64),
        evidence=pl.lit("metrics"),
        confidence=pl.lit(0.95 if known else 0.5),
    )


def knows_pools(tables: Tables) -> bool:
    """Whether metrics tell how many wait for connections, or how many there are."""
    return not pool_readings(tables["metrics"]).is_empty()


def timed(readings: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Add `start_ns` and `end_ns`: the time that each reading of a series stands for."""
    before = pl.col("ts_ns").shift(1).over(key)
    gap = pl.col("ts_ns") - before
    usual = gap.median().over(key)
    length = pl.when(gap <= _LONGEST_GAPS * usual).then(gap).otherwise(usual)
    return (
        readings.sort("ts_ns", maintain_order=True)
        .with_columns(length=length.fill_null(0).round().cast(pl.Int64), end_ns=pl.col("ts_ns"))
        .with_columns(start_ns=pl.col("end_ns") - pl.col("length"))
    )


def _pid() -> pl.Expr:
    return pl.col("instance").str.extract(r"^pid (\d+)$").cast(pl.Int64)
