"""Which spans pass the filters: those of the entries that are in the population."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.filters import Filters
from perfkit.analysis.predicate import holding
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.forest import Bools


def passing(tables: Tables, filters: Filters) -> Bools:
    """Return which rows of the unfiltered `tree` belong to an entry that passes.

    Time, length and status are those of the entry. Service, endpoint and tool may be those of any
    request in it, so that one service behind a gateway can be looked at.
    """
    tree = tables.frame("tree")
    entries = tree.filter(pl.col("row") == pl.col("entry_row"), *_of_entry(filters)).select("row")
    inside = tree.lazy().filter(pl.col("entry_row").is_not_null())
    for condition in _of_any_span(filters):
        involved = inside.filter(condition).select(row="entry_row").unique().collect()
        entries = entries.join(involved, on="row", how="semi")
    if filters.where is not None:
        chosen = holding(tables.frame("requests").filter("entry"), filters.where)
        entries = entries.join(chosen, left_on="row", right_on="request_row", how="semi")
    keep = np.zeros(tree.height + 1, dtype=np.bool_)
    keep[entries["row"].to_numpy()] = True
    # Spans of no entry point at the last place, which is never kept.
    passing: Bools = keep[tree["entry_row"].fill_null(tree.height).to_numpy()]
    return passing


def _of_entry(filters: Filters) -> list[pl.Expr]:
    conditions = []
    if filters.since_ns is not None:
        conditions.append(pl.col("start_ns") >= filters.since_ns)
    if filters.until_ns is not None:
        conditions.append(pl.col("start_ns") < filters.until_ns)
    if filters.min_duration_ns is not None:
        conditions.append(pl.col("duration_ns") >= filters.min_duration_ns)
    if filters.status is not None:
        failed = (pl.col("status") == "error").fill_null(False)
        conditions.append(failed if filters.status == "error" else ~failed)
    return conditions


def _of_any_span(filters: Filters) -> list[pl.Expr]:
    is_request = pl.col("row") == pl.col("request_row")
    conditions = []
    if filters.service is not None or filters.endpoint is not None:
        condition = is_request
        if filters.service is not None:
            condition &= pl.col("service") == filters.service
        if filters.endpoint is not None:
            endpoint = pl.coalesce("endpoint", "name")
            path = endpoint.str.splitn(" ", 2).struct.field("field_1")
            condition &= (endpoint == filters.endpoint) | (path == filters.endpoint)
        conditions.append(condition)
    if filters.tool is not None:
        conditions.append(pl.col("tool") == filters.tool)
    return conditions
