"""The slowest requests, each with its waterfall, critical path, attributes, queries and code."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from perfkit.analysis.comparison.trait_words import sentences
from perfkit.analysis.spans import requests
from perfkit.ids import trace_hex
from perfkit.report import request_details
from perfkit.report.columns import Column
from perfkit.report.context import Context

TITLE = "Slow requests"
NEEDS = ("requests", "tree")
EMPTY = {
    "what": "There are no requests in this capture.",
    "how": "Record what the service's OpenTelemetry SDK sends, or import traces:",
    "command": "perfkit import traces.json -o slow.perfkit",
}

SLOWEST = 200
SLOWEST_PER_ENDPOINT = 5
_ENDPOINTS = 200
_LISTED = 20
_TRAITS = 8
_TOLD = 5
"""Endpoints of which it is told what their slow, or failed, requests have in common."""
_COLUMNS = (
    Column("duration_ns", "Duration"),
    Column("endpoint", "Endpoint", "text"),
    Column("tool", "Tool", "text"),
    Column("status", "Status", "text"),
    Column("at_ns", "After start"),
    Column("worst_name", "Most time in", "text"),
    Column("worst_self_ns", "of which"),
    Column("db_count", "Queries"),
    Column("span_count", "Spans"),
)


def build(context: Context) -> dict[str, Any]:
    """Return all requests as columns, and the details of the slowest."""
    population = context.population
    chosen = (
        choose(population.entries, population.endpoints)
        .join(population.page_rows, on="request_row", how="left", maintain_order="left")
        .pipe(_with_all_columns, context)
    )
    listed = chosen.head(_LISTED).with_columns(at_ns="rel_ns")
    return {
        "columns": _COLUMNS,
        "listed": listed.to_dicts(),
        "entries": population.entries.height,
        "detailed": chosen.height,
        "common": sentences(
            context.tables.frame("slow_traits"), context.tables.frame("failure_traits"), _TOLD
        ),
        "data": {
            "requests": population.columns(),
            "coarse": population.coarse,
            "details": {
                "request": chosen["page_row"].to_numpy(),
                "trace": [
                    trace_hex(high or 0, low or 0)
                    for high, low in chosen.select("trace_hi", "trace_lo").iter_rows()
                ],
                "cpu_ratio": _numbers(chosen["cpu_ratio"]),
                "rss_bytes": _numbers(chosen["rss_bytes"]),
                "hidden_error": chosen["hidden_error"].fill_null(False).to_numpy(),
                **request_details.build(context, chosen),
            },
            "traits": _traits(context),
        },
    }


def choose(entries: pl.DataFrame, endpoints: list[str]) -> pl.DataFrame:
    """Return the slowest entries, and the slowest few of each endpoint, the slowest first."""
    ranked = (
        entries.select("duration_ns", "index", "endpoint", place=pl.int_range(pl.len()))
        .sort(["duration_ns", "index"], descending=[True, False])
        .with_columns(
            overall=pl.int_range(pl.len()), of_endpoint=pl.int_range(pl.len()).over("endpoint")
        )
    )
    shown = ranked.filter(
        (pl.col("overall") < SLOWEST)
        | (
            (pl.col("of_endpoint") < SLOWEST_PER_ENDPOINT)
            & pl.col("endpoint").is_in(endpoints[:_ENDPOINTS])
        )
    )
    chosen: pl.DataFrame = entries[shown["place"]]
    return chosen


def _with_all_columns(chosen: pl.DataFrame, context: Context) -> pl.DataFrame:
    """Look up the columns of `requests` that the population does not keep."""
    lacking = [name for name in requests.COLUMNS if name not in chosen.columns]
    mine = pl.col("request_row").is_in(chosen["request_row"].to_list())
    found = context.tables.where("requests", mine, "request_row", *lacking)
    return chosen.join(found, on="request_row", how="left", maintain_order="left")


def _traits(context: Context) -> list[dict[str, Any]]:
    """Return what slow requests of each endpoint share, the most telling first."""
    traits = context.tables.frame("slow_traits")
    kept = traits.group_by("service", "endpoint", maintain_order=True).head(_TRAITS)
    columns = ("service", "endpoint", "slow", "slow_ratio", "typical_ratio", "lift")
    return [
        {
            **{name: row[name] for name in columns},
            "what": " and ".join(
                f"{row[key]} {row[value]}" if row["kind"] == "did" else f"{row[key]} = {row[value]}"
                for key, value in (("key", "value"), ("key_2", "value_2"))
                if row[key] is not None
            ),
        }
        for row in kept.to_dicts()
    ]


def _numbers(column: pl.Series) -> Any:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)
