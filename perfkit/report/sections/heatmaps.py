"""Load over time on one time axis: cores, processes, memory, connection pools, and latency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from perfkit import units
from perfkit.analysis.waits.pool_metrics import pool_readings
from perfkit.report import series
from perfkit.report.context import Context

TITLE = "Heatmaps"
NEEDS: tuple[str, ...] = ()
EMPTY: dict[str, str] = {}

_MAX_ROWS = 64


def build(context: Context) -> dict[str, Any]:
    """Return one panel for each metric that the capture has, and what to say of those it lacks."""
    panels = [panel for make in (_cores, _processes, _memory, _pools) for panel in make(context)]
    found = {panel["id"] for panel in panels}
    latency = not context.population.entries.is_empty()
    return {
        "panels": [(panel["title"], panel["unit"]) for panel in panels],
        "latency": latency,
        "lacking": [text for name, text in _LACKING.items() if name not in found],
        **({"data": {"panels": panels}} if panels or latency else {}),
    }


_LACKING = {
    "cores": "CPU of each core: recorded by `perfkit record` from the host.",
    "memory": "Memory of the process: recorded by `perfkit record --pid PID`.",
    "pools": "Connection pools: sent by the OpenTelemetry instrumentation of the database driver "
    "(metric db.client.connection.count) with `perfkit record --otlp`.",
}


def _panel(context: Context, readings: pl.DataFrame, **shown: Any) -> Iterator[dict[str, Any]]:
    population = context.population
    if readings.is_empty():
        return
    rows = readings["row"].unique(maintain_order=True)
    if len(rows) > _MAX_ROWS:
        shown["note"] = f"the first {_MAX_ROWS} of {len(rows)}"
        readings = readings.filter(pl.col("row").is_in(rows.head(_MAX_ROWS)))
    yield series.panel(
        readings, origin_ns=population.origin_ns, duration_ns=population.duration_ns, **shown
    )


def _metric(context: Context, name: str) -> pl.LazyFrame:
    return context.tables["metrics"].filter(
        (pl.col("name") == name) & pl.col("value").is_finite() & pl.col("ts_ns").is_not_null()
    )


def _attribute(name: str) -> pl.Expr:
    return pl.col("attributes").str.json_path_match(f'$["{name}"]')


def _cores(context: Context) -> Iterator[dict[str, Any]]:
    core = pl.coalesce(_attribute("cpu.logical_number"), _attribute("system.cpu.logical_number"))
    readings = (
        _metric(context, "system.cpu.utilization")
        .with_columns(core=core.cast(pl.Int64, strict=False))
        .drop_nulls("core")
        .sort("core", "ts_ns")
        .select("ts_ns", "value", row=pl.format("core {}", "core"))
        .collect()
    )
    return _panel(context, readings, id="cores", title="CPU of each core", unit="ratio", max=1.0)


def _by_instance(context: Context, name: str) -> pl.DataFrame:
    row = pl.coalesce("instance", "service", pl.lit("process"))
    return _metric(context, name).select("ts_ns", "value", row=row).sort("row", "ts_ns").collect()


def _processes(context: Context) -> Iterator[dict[str, Any]]:
    readings = _by_instance(context, "process.cpu.utilization")
    return _panel(
        context,
        readings,
        id="processes",
        title="CPU of each process (100 % is one core)",
        unit="ratio",
    )


def _memory(context: Context) -> Iterator[dict[str, Any]]:
    readings = _by_instance(context, "process.memory.usage")
    return _panel(
        context, readings, id="memory", title="Memory (RSS) of each process", unit="bytes"
    )


def _pools(context: Context) -> Iterator[dict[str, Any]]:
    """Return connections in use and callers that wait, of each pool of each process."""
    readings = pool_readings(context.tables["metrics"])
    several = (
        readings.select("pool", "service", "instance").n_unique() > readings["pool"].n_unique()
    )
    name = pl.when(pl.col("pool") == "").then(pl.lit("pool")).otherwise("pool")
    if several:
        whose = pl.coalesce("instance", "service", pl.lit("?"))
        name = pl.format("{} ({})", name, whose)
    parts = [
        readings.select("ts_ns", value=pl.col(column), row=pl.format("{}: {}", name, pl.lit(said)))
        for column, said in (("used", "in use"), ("pending", "waiting"))
    ]
    rows = pl.concat(parts).drop_nulls("value").sort("row", "ts_ns")
    limit = readings["max_connections"].max()
    note = f"The largest pool has {units.number(limit)} connections." if limit else None  # type: ignore[arg-type]
    return _panel(
        context,
        rows,
        id="pools",
        title="Connections of each pool: in use, and callers waiting",
        unit="count",
        of="connections or callers",
        **({"note": note} if note else {}),
    )
