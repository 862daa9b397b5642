"""One request, or one query, reported by two instrumentations of one service.

Of a request one report is kept and the other flagged. Of a query that an ORM and the driver below
it report side by side, the driver's report moves into the ORM's, where it is part of it.

Two shapes occur. Nested: a server span directly under a server span of the same service instance.
Side by side: server spans of two instrumentation scopes that cover the same time, under one parent
or, when the instrumentations do not know of each other, as roots of two traces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.spans.recorded import Recorded
from perfkit.analysis.vector.forest import Bools, Ints, subtree_sizes

_START_TOLERANCE_NS = 250_000_000
_MIN_OVERLAP_RATIO = 0.3
_MIN_MATCHED_RATIO = 0.8
"""Our own figures. Two reports of one request start within microseconds of each other, but on a
busy event loop tens of milliseconds apart. What tells them from coincidence is that nearly every
report of an endpoint by either scope has its twin."""

_ROUNDS = 16
_MAX_SCOPES = 20
_MAX_ENDPOINTS = 300
_PARAMETER = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True)
class Reports:
    """What was found: parents after moving and cutting, who was cut off, who is a duplicate."""

    parent: Ints
    cut: Bools
    duplicate: Bools


def find(spans: Recorded, parent: Ints, start: Ints, end: Ints) -> Reports:
    """Find the server spans that report a request a second time.

    Of two reports beside each other the one with fewer spans below it is the duplicate. It moves
    under the other if both have spans below them and it lies inside; otherwise it is cut off.
    """
    parent, cut = parent.copy(), np.zeros(len(parent), dtype=np.bool_)
    duplicate = _nested(spans, parent)
    served = _served(spans, parent, start, end, ~duplicate)
    if served is not None:
        doubled, kept = _side_by_side(served, subtree_sizes(parent))
        inside = (start[doubled] >= start[kept]) & (end[doubled] <= end[kept])
        moves = inside & np.isin(doubled, parent)
        parent[doubled] = np.where(moves, kept, -1)
        cut[doubled[~moves]] = True
        duplicate[doubled] = True
    return Reports(parent, cut, duplicate)


def drivers(spans: Recorded, parent: Ints, start: Ints, end: Ints) -> Ints:
    """Return the parents, with a driver's report of a query below the report of what calls it.

    That is a query of another scope with the same statement under the same parent, which lasts from
    before it to after it.
    """
    if spans.scopes < 2:
        return parent
    known = spans.select("db_statement", "scope", "service").with_columns(
        index=pl.Series(np.arange(len(parent))), parent=pl.Series(parent)
    )
    queries = known.filter(
        pl.Series(spans.is_kind("client"))
        & pl.col("db_statement").is_not_null()
        & pl.col("scope").is_not_null()
        & (pl.col("parent") >= 0)
    )
    scopes = queries["scope"].unique().sort().to_list()
    if not 1 < len(scopes) <= _MAX_SCOPES:
        return parent
    index = queries["index"].to_numpy()
    queries = queries.with_columns(start=pl.Series(start[index]), end=pl.Series(end[index])).sort(
        "parent", "service", "db_statement", "start", "end", "index",
        descending=[False] * 4 + [True, False],
    )  # fmt: skip
    result = parent.copy()
    for scope in scopes:
        before = pl.when(pl.col("scope") == scope).then("index").forward_fill()
        below = queries.with_columns(above=before.over("parent", "service", "db_statement")).filter(
            (pl.col("scope") != scope) & pl.col("above").is_not_null()
        )
        inner, outer = below["index"].to_numpy(), below["above"].to_numpy()
        # Only what comes before it in that order may be above: so no circle can arise.
        inside = (start[outer] <= start[inner]) & (end[inner] <= end[outer])
        free = result[inner] == parent[inner]
        result[inner[inside & free]] = outer[inside & free]
    return result


def _nested(spans: Recorded, parent: Ints) -> Bools:
    """Return the server spans that repeat the server span right above them."""
    result = np.zeros(len(parent), dtype=np.bool_)
    served = spans.is_kind("server")
    inner = np.flatnonzero(served & (parent >= 0))
    above = parent[inner]
    twice = served[above] & (spans.host[inner] == spans.host[above])
    inner, above = inner[twice], above[twice]
    if inner.size:
        columns = spans.select("endpoint", "http_method")
        below = columns[inner]
        equal = {
            name: below[name].eq_missing(columns[name].gather(above)).to_numpy()
            for name in columns.columns
        }
        methods_known = below["http_method"].is_not_null().to_numpy()
        result[inner] = equal["endpoint"] | (equal["http_method"] & methods_known)
    return result


def _served(
    spans: Recorded, parent: Ints, start: Ints, end: Ints, eligible: Bools
) -> pl.DataFrame | None:
    """Return the server spans of services where several scopes make them; mostly there are none."""
    if spans.scopes < 2:
        return None
    rows = np.flatnonzero(eligible & spans.is_kind("server"))
    if spans["scope"].gather(rows).n_unique() < 2:
        return None
    served = (
        spans.select("service", "instance", "scope", "endpoint", "http_status")[rows]
        .with_columns(index=pl.Series(rows))
        .filter(pl.col("endpoint").is_not_null())
    )
    served = _doubled(served)
    if served.is_empty():
        return None
    index = served["index"].to_numpy()
    return served.select(
        "index",
        pl.col("service", "scope", "instance").fill_null(""),
        "endpoint",
        # What must be equal, beside service and endpoint.
        http_status=pl.col("http_status").fill_null(-1),
        parent=pl.Series(parent[index]),
        start_ns=pl.Series(start[index]),
        end_ns=pl.Series(end[index]),
    )


def _side_by_side(served: pl.DataFrame, sizes: Ints) -> tuple[Ints, Ints]:
    """Return pairs of spans (duplicate, kept); every span is in one pair at most."""
    endpoints = _matching_endpoints(served)
    key = ["service", "scope", "endpoint"]
    one = served.join(endpoints, on=key)
    other = served.join(
        endpoints.drop("scope", "endpoint"),
        left_on=key,
        right_on=["service", "scope_other", "endpoint_other"],
    )
    found: list[pl.DataFrame] = []
    # Equal endpoints first: a template may fit the paths of several.
    for exact in (True, False):
        left, right = one.filter(exact=exact), other.filter(exact=exact)
        for _ in range(_ROUNDS):
            if found:
                used = pl.concat(found)
                left = left.join(used, on="index", how="anti")
                right = right.join(used, left_on="index", right_on="index_other", how="anti")
            pairs = _nearest(left, right)
            if pairs.is_empty():
                break
            found.append(pairs)
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    pairs = _systematic(pl.concat(found), one, other)
    first, second = pairs["index"].to_numpy(), pairs["index_other"].to_numpy()
    smaller = sizes[first] < sizes[second]
    return np.where(smaller, first, second), np.where(smaller, second, first)


def _matching_endpoints(served: pl.DataFrame) -> pl.DataFrame:
    """Return which endpoints of one scope may be which of another, numbered by `pair`.

    Equal ones, and a template beside a path that fits it (`/mcp/{path}` and `/mcp/`).
    """
    known = served.select("service", "scope", "endpoint").unique(maintain_order=True)
    known = known.head(_MAX_ENDPOINTS)
    both = known.join(known, on="service", suffix="_other", maintain_order="left")
    both = both.filter(pl.col("scope") < pl.col("scope_other"))
    pairs = both.select("endpoint", "endpoint_other").iter_rows()
    fits = pl.Series([_fits(*pair) for pair in pairs], dtype=pl.Boolean)
    return (
        both.filter(fits)
        .with_columns(exact=pl.col("endpoint") == pl.col("endpoint_other"))
        .with_row_index("pair")
    )


def may_report_twice(known: pl.DataFrame) -> bool:
    """Whether spans of one scope may be twins of another's, by `service`, `scope`, `endpoint`.

    Told for sure only of no more endpoints than are looked at.
    """
    doubled = _doubled(known)
    if doubled.height > _MAX_ENDPOINTS:
        return True
    filled = doubled.with_columns(pl.col("service", "scope").fill_null(""))
    return not _matching_endpoints(filled).is_empty()


def _doubled(served: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of services in which several scopes make server spans."""
    scopes = served.group_by("service").agg(pl.col("scope").n_unique())
    doubled = scopes.filter(pl.col("scope") > 1).select("service")
    return served.join(doubled, on="service", how="semi", nulls_equal=True)


def _fits(one: str, other: str) -> bool:
    return (
        one == other
        or _as_pattern(one).fullmatch(other) is not None
        or _as_pattern(other).fullmatch(one) is not None
    )


def _as_pattern(endpoint: str) -> re.Pattern[str]:
    return re.compile("[^/ ]*".join(re.escape(part) for part in _PARAMETER.split(endpoint)))


def _nearest(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Pair each span with that of the other scope that starts nearest, if it may be its twin."""
    others = other.select(
        *("pair", "instance", "http_status", "start_ns"),
        index_other="index",
        start_other="start_ns",
        end_other="end_ns",
        parent_other="parent",
    )
    pairs = one.sort("start_ns").join_asof(
        others.sort("start_ns"),
        on="start_ns",
        by=["pair", "instance", "http_status"],
        strategy="nearest",
        tolerance=_START_TOLERANCE_NS,
        check_sortedness=False,
    )
    shared = pl.min_horizontal("end_ns", "end_other") - pl.max_horizontal("start_ns", "start_other")
    whole = pl.max_horizontal("end_ns", "end_other") - pl.min_horizontal("start_ns", "start_other")
    return (
        pairs.filter(
            pl.col("index_other").is_not_null(),
            pl.col("parent") == pl.col("parent_other"),
            shared >= _MIN_OVERLAP_RATIO * whole,
        )
        .sort((pl.col("start_ns") - pl.col("start_other")).abs(), "index")
        .unique("index_other", keep="first", maintain_order=True)
        .unique("index", keep="first", maintain_order=True)
        .select("index", "index_other", "pair")
    )


def _systematic(pairs: pl.DataFrame, one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Keep the pairs of endpoints of which nearly all reports have a twin."""
    counts = [frame.group_by("pair").len() for frame in (one, other)]
    both = counts[0].join(counts[1], on="pair", suffix="_other")
    matched = pairs.group_by("pair").len("matched").join(both, on="pair")
    most = pl.max_horizontal("len", "len_other")
    doubled = matched.filter(pl.col("matched") >= _MIN_MATCHED_RATIO * most)
    return pairs.join(doubled, on="pair", how="semi", maintain_order="left")
