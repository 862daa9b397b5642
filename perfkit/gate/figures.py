"""What is kept of a run: a few figures of its requests, endpoints, tools and resources.

One row is one figure of one thing: `kind` (`all`, `endpoint` or `tool`), `service` and `name` of
it, `measure`, `value` (its unit is in the measure's name) and `requests`, over how many it was
seen. Everything is weighted by `adjusted_count`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit import units
from perfkit.analysis.comparison.differences import FEWEST
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.percentiles import codes
from perfkit.analysis.vector.summary import summarise_groups, sums, window_ns

SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "service": pl.String(),
    "name": pl.String(),
    "measure": pl.String(),
    "value": pl.Float64(),
    "requests": pl.Int64(),
}


class Measure(NamedTuple):
    """One figure: what people call it, and how its values are written."""

    label: str
    write: Callable[[float], str]
    fewest: int = 1
    """A run with fewer requests to a thing says nothing about this figure of it."""
    share: bool = False
    """Whether it is a share: changes of it are differences, not factors."""


def _cores(value: float) -> str:
    return f"{units.number(value)} cores"


MEASURES: dict[str, Measure] = {
    "p50_ns": Measure("p50", units.duration, FEWEST["p50_ns"]),
    "p95_ns": Measure("p95", units.duration, FEWEST["p95_ns"]),
    "p99_ns": Measure("p99", units.duration, 100),
    "mean_ns": Measure("mean", units.duration, FEWEST["mean_ns"]),
    "error_ratio": Measure("error_ratio", units.percent, FEWEST["error_ratio"], share=True),
    "rate_per_s": Measure("rate", units.rate),
    "queries": Measure("queries", units.number),
    "cpu_cores": Measure("cpu", _cores),
    "memory_bytes": Measure("memory", units.size),
}
"""Measure -> what there is to know of it. `queries` are database calls per request."""

BY_LABEL = {measure.label: name for name, measure in MEASURES.items()}

_OF_REQUESTS = ("p50_ns", "p95_ns", "p99_ns", "mean_ns", "error_ratio", "rate_per_s", "queries")
_SECOND = 10**9
_READ = (
    *("entry", "service", "endpoint", "tool", "duration_ns", "status", "db_count"),
    "adjusted_count",
)


def figures(tables: Tables) -> pl.DataFrame:
    """Return the figures (`SCHEMA`) of a run."""
    requests = tables.columns("requests", *_READ)
    entries = requests.filter("entry")
    with_tool = entries.filter(pl.col("tool").is_not_null())
    seconds = window_ns(tables["tree"]) / 1e9
    nobody = pl.lit(None, dtype=pl.String)
    frames = [
        _figures(entries.with_columns(service=nobody, name=pl.lit("")), "all", seconds),
        _figures(requests.with_columns(name="endpoint"), "endpoint", seconds),
        _figures(with_tool.with_columns(service=nobody, name="tool"), "tool", seconds),
        _resources(tables, entries.height),
    ]
    return pl.concat(frames).filter(pl.col("value").is_finite())


def _figures(requests: pl.DataFrame, kind: str, seconds: float) -> pl.DataFrame:
    if requests.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    keys = ["service", "name"]
    code, things = codes(requests, keys)
    weight = requests["adjusted_count"].to_numpy()
    calls = sums(code, weight * requests["db_count"].to_numpy(), things.height)
    total = np.maximum(sums(code, weight, things.height), 1.0)
    wide = things.hstack(summarise_groups(requests, code, things.height)).with_columns(
        requests=pl.Series(np.bincount(code, minlength=things.height)),
        queries=pl.Series(calls / total),
        rate_per_s=pl.col("count") / seconds if seconds > 0 else pl.lit(None, dtype=pl.Float64),
        kind=pl.lit(kind),
    )
    return _long(wide, _OF_REQUESTS)


def _long(wide: pl.DataFrame, measures: Sequence[str]) -> pl.DataFrame:
    return (
        wide.with_columns(pl.col(list(measures)).cast(pl.Float64))
        .unpivot(
            measures,
            index=["kind", "service", "name", "requests"],
            variable_name="measure",
            value_name="value",
        )
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
    )


def _resources(tables: Tables, requests: int) -> pl.DataFrame:
    """Return CPU and memory of all recorded processes together.

    Processes come and go, so each second's values are added up over them first: `cpu_cores` is the
    mean of these sums and `memory_bytes` the largest.
    """
    wanted = {"process.cpu.utilization": "cpu_cores", "process.memory.usage": "memory_bytes"}
    mean = pl.col("measure") == "cpu_cores"
    return (
        tables["metrics"]
        .filter(pl.col("name").is_in(list(wanted)), pl.col("value").is_finite())
        .group_by(
            pl.col("name").replace_strict(wanted, default=None).alias("measure"),
            "service",
            "instance",
            pl.col("ts_ns") // _SECOND,
        )
        .agg(pl.col("value").mean())
        .group_by("measure", "ts_ns")
        .agg(pl.col("value").sum())
        .group_by("measure")
        .agg(pl.when(mean.first()).then(pl.col("value").mean()).otherwise(pl.col("value").max()))
        .select(
            kind=pl.lit("all"),
            service=pl.lit(None, dtype=pl.String),
            name=pl.lit(""),
            measure="measure",
            value="value",
            requests=pl.lit(requests, dtype=pl.Int64),
        )
        .sort("measure")
        .collect()
    )
