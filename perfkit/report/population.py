"""The requests that the page can choose from: one column each, shared by all sections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.report.pack import Delta

EXACT_ENTRIES = 500_000
"""Up to so many requests each has its own row; above, they are binned."""

BINNED_BUCKETS = 600
OF_REQUEST = (
    *("request_row", "entry", "service", "endpoint", "tool", "status", "hidden_error"),
    *("start_ns", "duration_ns", "adjusted_count"),
)
"""Columns of `requests` that are kept of all entries: the others take several GiB of a large
capture, and are looked up for the few that are shown by themselves."""
_GROUP = ("endpoint_id", "tool_id", "service_id", "status_id")


@dataclass(frozen=True)
class Population:
    """All entries in order of their start, and the lists that the ids in the page index.

    `entries` has the columns of `OF_REQUEST` and: `index` (its place), `endpoint_id`, `tool_id`,
    `service_id` (-1 for none), `status_id`, `rel_ns` (start since `origin_ns`).
    """

    origin_ns: int
    end_ns: int
    endpoints: list[str]
    tools: list[str]
    services: list[str]
    entries: pl.DataFrame

    @property
    def coarse(self) -> bool:
        """Whether the page gets bins of requests instead of requests."""
        return self.entries.height > EXACT_ENTRIES

    @cached_property
    def page_rows(self) -> pl.DataFrame:
        """For each entry its `request_row` and its `page_row` in the page's columns."""
        if not self.coarse:
            return self.entries.select("request_row", page_row="index")
        of_entry = self.bins(BINNED_BUCKETS)[1]
        return self.entries.join(of_entry, on="index").select("request_row", page_row="bin")

    def columns(self) -> dict[str, Any]:
        """Return the requests, or the bins of them, as the page's columns."""
        if not self.coarse:
            return self.group_columns(self.entries.with_columns(weight="adjusted_count"))
        return self.group_columns(self.bins(BINNED_BUCKETS)[0])

    def bins(self, buckets: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Merge entries of one group, one of `buckets` of time, and one octave of duration.

        Returns the bins, with their place `bin` and how many requests each stands for in `weight`,
        and for each entry its `index` and `bin`.
        """
        bucket_ns = self.duration_ns // buckets + 1
        weight = pl.col("adjusted_count")
        keyed = self.entries.with_columns(
            bucket=pl.col("rel_ns") // bucket_ns,
            octave=pl.col("duration_ns").clip(1).log(2).floor().cast(pl.Int32),
        )
        keys = (*_GROUP, "bucket", "octave")
        total = (pl.col("duration_ns") * weight).sum()
        bins = (
            keyed.group_by(keys)
            .agg(
                (pl.col("bucket").first() * bucket_ns + bucket_ns // 2).alias("rel_ns"),
                (total / weight.sum()).round().cast(pl.Int64).alias("duration_ns"),
                weight.sum().alias("weight"),
            )
            .sort("rel_ns", *_GROUP, "octave")
            .with_row_index("bin")
        )
        of_entry = keyed.join(bins.select(*keys, "bin"), on=keys).select("index", "bin")
        return bins, of_entry

    def group_columns(self, frame: pl.DataFrame) -> dict[str, Any]:
        """Return requests or bins, in order of `rel_ns`, as the page's columns.

        The names of endpoints, tools and services share one list `strings`.
        """
        first_tool = len(self.endpoints)
        first_service = first_tool + len(self.tools)
        columns: dict[str, Any] = {
            "strings": [*self.endpoints, *self.tools, *self.services],
            "start_ns": Delta(frame["rel_ns"].to_numpy()),
            "duration_ns": frame["duration_ns"].to_numpy(),
            "endpoint": frame["endpoint_id"].to_numpy(),
            "tool": _shifted(frame["tool_id"], first_tool),
            "service": _shifted(frame["service_id"], first_service),
            "status": frame["status_id"].to_numpy(),
        }
        weight = frame["weight"].to_numpy().astype(np.float64)
        if (weight != 1).any():
            columns["weight"] = weight
        return columns

    @property
    def duration_ns(self) -> int:
        """Length of the capture."""
        return max(self.end_ns - self.origin_ns, 1)


def read(requests: pl.DataFrame, facts: dict[str, Any]) -> Population:
    """Number the entries of the table `requests` and what the filter bar can choose."""
    entries = requests.filter("entry").sort("start_ns", "request_row")
    first_ns, last_ns = entries.select(
        first=pl.col("start_ns").min(), last=(pl.col("start_ns") + pl.col("duration_ns")).max()
    ).row(0)
    begins = [value for value in (facts["start_ns"], first_ns) if value is not None]
    ends = [value for value in (facts["end_ns"], last_ns) if value is not None]
    origin_ns, end_ns = min(begins, default=0), max(ends, default=0)
    lists = {name: _by_time(entries, name) for name in ("endpoint", "tool", "service")}
    numbered = entries.with_row_index("index").with_columns(
        _ids("endpoint", lists["endpoint"]),
        _ids("tool", lists["tool"]),
        _ids("service", lists["service"]),
        (pl.col("status") == "error").cast(pl.Int32).alias("status_id"),
        rel_ns=pl.col("start_ns") - origin_ns,
    )
    return Population(
        origin_ns, end_ns, lists["endpoint"], lists["tool"], lists["service"], numbered
    )


def _by_time(entries: pl.DataFrame, name: str) -> list[str]:
    """Return the values of a column, those with the most request time first."""
    return (
        entries.filter(pl.col(name).is_not_null())
        .group_by(name)
        .agg((pl.col("duration_ns") * pl.col("adjusted_count")).sum().alias("total"))
        .sort(["total", name], descending=[True, False])[name]
        .to_list()
    )


def _ids(name: str, values: list[str]) -> pl.Expr:
    return ids(pl.col(name), values).alias(f"{name}_id")


def ids(column: pl.Expr, values: list[str]) -> pl.Expr:
    """Return a text column as places in `values`; -1 for null."""
    if not values:
        return pl.lit(-1, dtype=pl.Int32)
    return column.replace_strict(
        values, list(range(len(values))), default=-1, return_dtype=pl.Int32
    )


def _shifted(ids: pl.Series, first: int) -> npt.NDArray[np.int32]:
    values = ids.to_numpy()
    return np.where(values < 0, -1, values + first).astype(np.int32)
