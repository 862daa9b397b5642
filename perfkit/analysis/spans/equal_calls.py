"""The table `equal_calls`: how often the very same thing is asked for, by any request."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Frames, Tables
from perfkit.analysis.spans.spilled import Spilled, batches, sizes_of
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.order import stable_order
from perfkit.analysis.vector.overlaps import order_by, overlapping_earlier
from perfkit.analysis.vector.percentiles import codes, sorted_codes
from perfkit.analysis.vector.summary import summarise_groups, sums, whole, window_ns
from perfkit.model import STATUSES

_KEY = ("kind", "service", "component", "target")
_UNIT = (*_KEY, "example", "family")
_FAMILY = ("service", "component", "family")
_OF_SPAN = (
    *("service", "component", "start_ns", "end_ns", "duration_ns"),
    *("status", "adjusted_count", "entry_row"),
)
_NUMBERS = (
    *("start_ns", "end_ns", "duration_ns", "status", "adjusted_count"),
    *("entry_row", "text_hash"),
)
_READ = {
    "query_calls": ("row", "query_id", "statement", "statement_hash"),
    "http_calls": ("row", "kind", "method", "address", "family", "url_hash"),
    "tree": _OF_SPAN,
}
_STATUS = pl.Enum(STATUSES)
_SAFE = ("GET", "HEAD")
_NAMES = 5
_NAMES_A_REQUEST = 1.2
"""Addresses that differ in their last part are of one kind where there are so many, and a request
asks for so few of them (house): as a query's values are, one is chosen by what was asked."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a query or address that was asked at least twice with equal text."""
    found = tables.each_spilled("equal_calls", _READ, _piece)
    every = pl.concat(piece.units for piece, _ in found)
    code, units = sorted_codes(every, _UNIT)
    units = _by_kind(units, pl.concat(piece.families for piece, _ in found))
    group, distinct = codes(units, _KEY)
    # Both follow from the key.
    texts = units.select("example", "family")[np.unique(group, return_index=True)[1]]
    cuts = np.cumsum([piece.units.height for piece, _ in found])[:-1]
    spilled = [
        Spilled(calls, mine, piece.units["spans"].to_numpy())
        for (piece, calls), mine in zip(found, np.split(code, cuts), strict=True)
    ]
    sizes = sizes_of(spilled, group, distinct.height)
    most = tables.most_at_once
    # A call takes several times the memory of a span in other tables.
    most = None if most is None else most // 4
    parts = [_counted(spilled, group, *batch) for batch in batches(sizes, most)]
    hours = window_ns(tables["tree"]) / 3.6e12
    return (
        pl.concat([distinct.hstack(texts), pl.concat(parts)], how="horizontal")
        .with_columns(
            rate_per_h=pl.col("calls") / hours if hours > 0 else pl.lit(None, dtype=pl.Float64),
        )
        .filter(pl.col("repeated_calls") > 0)
        .select(*COLUMNS)
        .sort("repeat_ns", "target", descending=[True, False])
    )


class _Piece(NamedTuple):
    """What some whole traces ask, beside the numbers of their calls."""

    units: pl.DataFrame
    """One row a query or address, in order, with how many calls (`spans`)."""
    families: pl.DataFrame
    """One row a family: how many requests ask for any of it, and for how many in all."""


def _piece(frames: Frames) -> tuple[_Piece, pl.DataFrame]:
    asked = _asked(frames)
    tree: pl.DataFrame = frames["tree"][asked["row"]]
    calls = asked.drop("row").hstack(tree)
    code, units = sorted_codes(calls, _UNIT)
    units = units.with_columns(spans=pl.Series(np.bincount(code, minlength=units.height)))
    by_request = (
        calls.lazy()
        .filter(pl.col("family") != pl.col("example"))
        .group_by(*_FAMILY, "entry_row")
        .agg(pl.col("example").n_unique())
    )
    families = by_request.group_by(_FAMILY).agg(
        requests=pl.len().cast(pl.Int64), asked=pl.col("example").sum().cast(pl.Int64)
    )
    numbers = calls.select(*_NUMBERS).with_columns(pl.col("status").cast(_STATUS, strict=False))
    ordered: pl.DataFrame = numbers[stable_order(code)]
    return _Piece(units, families.collect()), ordered


def _counted(spilled: list[Spilled], group: Ints, first: int, last: int) -> pl.DataFrame:
    """Return what is counted of the calls of some groups, one row a group."""
    groups = last - first
    read = [piece.read(group, first, last) for piece in spilled]
    # A request is in one piece.
    requests = sum(
        (_distinct(code, calls["entry_row"], groups) for code, calls in read),
        np.zeros(groups, dtype=np.int64),
    )
    code = np.concatenate([code for code, _ in read])
    calls = pl.concat(calls.drop("entry_row") for _, calls in read)
    read.clear()
    calls = calls.with_columns(code=pl.Series(code))
    exact, texts = codes(calls, ["code", "text_hash"])
    # Of those that begin at one moment the longest is the first, in whatever order spans come.
    order = stable_order(-calls["duration_ns"].to_numpy())
    starts = calls["start_ns"].to_numpy()[order]
    order = order[order_by(exact[order], starts, texts.height)]
    calls, exact, code = calls[order], exact[order], code[order]
    repeated = np.append(False, exact[1:] == exact[:-1])[: len(exact)]
    overlapped = overlapping_earlier(
        exact, calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy()
    )
    weight = calls["adjusted_count"].to_numpy()
    duration = calls["duration_ns"].to_numpy()
    return (
        summarise_groups(calls, code, groups)
        .rename({"count": "calls", "duration_sum_ns": "total_ns"})
        .with_columns(
            distinct_texts=pl.Series(np.bincount(texts["code"], minlength=groups)),
            requests=pl.Series(requests),
            repeated_calls=whole(sums(code, weight * repeated, groups)),
            repeat_ns=whole(sums(code, weight * repeated * duration, groups)),
            overlapped_calls=whole(sums(code, weight * overlapped, groups)),
            overlap_ns=whole(sums(code, weight * overlapped * duration, groups)),
        )
    )


def _distinct(code: Ints, values: pl.Series, groups: int) -> Ints:
    """Return how many different values each group has."""
    pairs = pl.DataFrame({"code": code, "value": values}).unique()
    return np.bincount(pairs["code"].to_numpy(), minlength=groups)


def _asked(frames: Frames) -> pl.DataFrame:
    """Return queries and safe HTTP requests: what they ask, and a hash of the full text."""
    queries = (
        frames["query_calls"]
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
        frames["http_calls"]
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
    return pl.concat([queries, fetched], how="vertical")


def _by_kind(units: pl.DataFrame, families: pl.DataFrame) -> pl.DataFrame:
    """Let the family stand for addresses of one kind, in `target` and `example`."""
    merged = families.lazy().group_by(_FAMILY).agg(pl.col("requests", "asked").sum())
    kinds = (
        units.lazy()
        .filter(pl.col("family") != pl.col("example"))
        .group_by(_FAMILY)
        .agg(pl.col("example").n_unique().alias("names"))
        .join(merged, on=_FAMILY, nulls_equal=True)
        .filter(
            pl.col("names") >= _NAMES,
            pl.col("asked") / pl.col("requests") <= _NAMES_A_REQUEST,
        )
        .select(*_FAMILY, kind_of="family")
    )
    method = pl.col("target").str.extract(r"^(\S+ )")
    return (
        units.lazy()
        .join(kinds, on=_FAMILY, how="left", nulls_equal=True, maintain_order="left")
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
