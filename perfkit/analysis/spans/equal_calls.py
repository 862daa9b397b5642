"""The table `equal_calls`: how often the very same thing is asked for, by any request."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.overlaps import order_by, overlapping_earlier
from perfkit.analysis.vector.percentiles import codes
from perfkit.analysis.vector.summary import summarise_groups, sums, whole, window_ns

_KEY = ("kind", "service", "component", "target")
_NUMBERS = (
    *("start_ns", "end_ns", "duration_ns", "status", "adjusted_count"),
    *("entry_row", "text_hash"),
)
_SAFE = ("GET", "HEAD")
_NAMES = 5
_NAMES_A_REQUEST = 1.2
"""Addresses that differ in their last part are of one kind where there are so many, and a request
asks for so few of them (house): as a query's values are, one is chosen by what was asked."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a query or address that was asked at least twice with equal text."""
    of_span = ["service", "component", "start_ns", "end_ns", "duration_ns"]
    of_span += ["status", "adjusted_count", "entry_row"]
    asked = _asked(tables)
    calls = _by_kind(asked.hstack(tables.picked("tree", asked["row"].to_numpy(), *of_span)))
    code, distinct = codes(calls, _KEY)
    # Both follow from the key. From here on texts would only be copied with every call.
    texts = calls.select("example", "family")[np.unique(code, return_index=True)[1]]
    calls = calls.select(*_NUMBERS, code=pl.Series(code))
    exact, distinct_texts = codes(calls, ["code", "text_hash"])
    # Of those that begin at one moment the longest is the first, in whatever order spans come.
    order = np.argsort(-calls["duration_ns"].to_numpy(), kind="stable")
    starts = calls["start_ns"].to_numpy()[order]
    order = order[order_by(exact[order], starts, distinct_texts.height)]
    calls, exact, code = calls[order], exact[order], code[order]
    repeated = np.append(False, exact[1:] == exact[:-1])[: len(exact)]
    overlapped = overlapping_earlier(
        exact, calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy()
    )
    weight = calls["adjusted_count"].to_numpy()
    duration = calls["duration_ns"].to_numpy()
    hours = window_ns(tables["tree"]) / 3.6e12
    groups = distinct.height
    different = (
        calls.group_by("code")
        .agg(
            distinct_texts=pl.col("text_hash").n_unique().cast(pl.Int64),
            requests=pl.col("entry_row").n_unique().cast(pl.Int64),
        )
        .sort("code")
        .drop("code")
    )
    return (
        pl.concat(
            [distinct, texts, different, summarise_groups(calls, code, groups)], how="horizontal"
        )
        .rename({"count": "calls", "duration_sum_ns": "total_ns"})
        .with_columns(
            repeated_calls=whole(sums(code, weight * repeated, groups)),
            repeat_ns=whole(sums(code, weight * repeated * duration, groups)),
            overlapped_calls=whole(sums(code, weight * overlapped, groups)),
            overlap_ns=whole(sums(code, weight * overlapped * duration, groups)),
            rate_per_h=pl.col("calls") / hours if hours > 0 else pl.lit(None, dtype=pl.Float64),
        )
        .filter(pl.col("repeated_calls") > 0)
        .select(*COLUMNS)
        .sort("repeat_ns", "target", descending=[True, False])
    )


def _asked(tables: Tables) -> pl.DataFrame:
    """Return queries and safe HTTP requests: what they ask, and a hash of the full text."""
    queries = (
        tables["query_calls"]
        .filter(pl.col("statement_hash").is_not_null())
        .select(
            "row",
            kind=pl.lit("query"),
            target="query_id",
            example="statement",
            family=pl.lit(None, dtype=pl.String),
            text_hash="statement_hash",
        )
    )
    fetched = (
        tables["http_calls"]
        .filter(
            pl.col("kind") == "client",
            pl.col("method").is_in(_SAFE),
            pl.col("url_hash").is_not_null(),
        )
        .select(
            "row",
            kind=pl.lit("http"),
            target=pl.concat_str("method", pl.lit(" "), "address"),
            example="address",
            family="family",
            text_hash="url_hash",
        )
    )
    return pl.concat([queries, fetched], how="vertical").collect()


def _by_kind(calls: pl.DataFrame) -> pl.DataFrame:
    """Let the family stand for addresses of one kind, in `target` and `example`."""
    key = ["service", "component", "family"]
    asked = calls.lazy().filter(
        pl.col("family").is_not_null(), pl.col("family") != pl.col("example")
    )
    by_request = asked.group_by(*key, "entry_row").agg(pl.col("example").n_unique())
    kinds = (
        asked.group_by(key)
        .agg(pl.col("example").n_unique().alias("names"))
        .join(by_request.group_by(key).agg(pl.col("example").mean()), on=key, nulls_equal=True)
        .filter(pl.col("names") >= _NAMES, pl.col("example") <= _NAMES_A_REQUEST)
        .select(*key, kind_of="family")
    )
    method = pl.col("target").str.extract(r"^(\S+ )")
    return (
        calls.lazy()
        .join(kinds, on=key, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            target=pl.coalesce(pl.concat_str(method, "kind_of"), "target"),
            example=pl.coalesce("kind_of", "example"),
        )
        .drop("kind_of")
        .collect()
    )


COLUMNS = {
    "kind": "`query`, or `http` for a GET or HEAD request",
    "service": "service that asks",
    "component": "whom it asks",
    "target": "the query's id as in `queries`, or method and address as in `http_calls`; its "
    "`family` instead where a service asks for at least five of it, a request for one of them",
    "example": "the normalised statement, or the address or family",
    "family": "the family of the address, as in `http_calls`; null for queries",
    "calls": "how often, with equal values or others",
    "distinct_texts": "how many different texts",
    "repeated_calls": "calls whose very text was asked before, by any request",
    "repeat_ns": "sum of their durations",
    "overlapped_calls": "calls that began while one with the same text was still running",
    "overlap_ns": "sum of their durations",
    "requests": "entries that ask",
    "errors": "how many calls failed",
    "mean_ns": "mean duration",
    "p95_ns": "95% last no longer",
    "total_ns": "sum of durations",
    "rate_per_h": "calls an hour over the time of the capture",
}

DERIVED = Derived(
    "equal_calls",
    "one query or address that was asked several times with the same text",
    ("query_calls", "http_calls", "tree"),
    compute,
    COLUMNS,
)
