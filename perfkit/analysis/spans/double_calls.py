"""One call, to a service or a database, that two instrumentations of one service report.

Nested, as when `requests` and the `urllib3` below it are both instrumented: the inner report is the
duplicate. Side by side under one parent, where the inner instrumentation does not know of the
outer's span: the inner report first moves below the outer. (What a database driver reports beside
its ORM has been moved already, see `duplicates.drivers`.)

A call with several such reports inside, as of attempts or redirects, has none that repeats it.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.spans.recorded import Recorded
from perfkit.analysis.vector.forest import Bools, Ints

_MIN_LENGTH_RATIO = 0.3
"""Part of the outer call that one beside it lasts at least (our own choice)."""
_SAME = ("host", "http_method", "db_system", "db_statement")


def find(spans: Recorded, parent: Ints, start: Ints, end: Ints) -> tuple[Ints, Bools]:
    """Return the parents, with what is reported side by side moved, and which calls are double."""
    double = np.zeros(len(parent), dtype=np.bool_)
    if spans.scopes < 2:
        return parent, double
    index = np.flatnonzero(spans.is_kind("client") & (parent >= 0))
    if spans["scope"].gather(index).n_unique() < 2:
        return parent, double
    columns = ("scope", "http_method", "http_status", "peer", "db_system", "db_statement")
    calls = (
        spans.select(*columns)[index]
        .with_columns(
            index=pl.Series(index),
            parent=pl.Series(parent[index]),
            start=pl.Series(start[index]),
            end=pl.Series(end[index]),
            host=pl.Series(spans.host[index]),
        )
        .filter(
            pl.col("scope").is_not_null(),
            pl.col("db_statement").is_not_null()
            | (pl.col("http_method").is_not_null() & pl.col("db_system").is_null()),
        )
    )
    inner, outer = _beside(calls)
    if len(inner):
        parent = parent.copy()
        parent[inner] = outer
        calls = calls.with_columns(parent=pl.Series(parent[calls["index"].to_numpy()]))
    double[_nested(calls)] = True
    return parent, double


def _beside(calls: pl.DataFrame) -> tuple[Ints, Ints]:
    """Return the HTTP calls that lie in one of another scope beside them, and that one."""
    http = calls.filter(pl.col("db_system").is_null(), pl.col("peer").is_not_null())
    key = ["parent", "host", "http_method", "peer", "http_status"]
    # Few parents have calls of two scopes: only those are joined with themselves.
    mixed = http.filter(pl.col("scope").n_unique().over(key) > 1)
    pairs = mixed.join(mixed, on=key, suffix="_outer", nulls_equal=True).filter(
        pl.col("scope") != pl.col("scope_outer"),
        _inside(),
        (pl.col("end") - pl.col("start"))
        >= _MIN_LENGTH_RATIO * (pl.col("end_outer") - pl.col("start_outer")),
    )
    pairs = pairs.filter(
        pl.len().over("index", "scope_outer") == 1, pl.len().over("index_outer", "scope") == 1
    )
    # Of several around it the nearest, that is the shortest.
    length = pl.col("end_outer") - pl.col("start_outer")
    chosen = pairs.sort("index", length, "index_outer").unique("index", keep="first")
    return chosen["index"].to_numpy(), chosen["index_outer"].to_numpy()


def _inside() -> pl.Expr:
    """Whether a call lies within the other; of two that are equal, the earlier row is the outer."""
    within = (pl.col("start_outer") <= pl.col("start")) & (pl.col("end") <= pl.col("end_outer"))
    equal = (pl.col("start_outer") == pl.col("start")) & (pl.col("end") == pl.col("end_outer"))
    return within & (~equal | (pl.col("index_outer") < pl.col("index")))


def _nested(calls: pl.DataFrame) -> Ints:
    """Return the calls that repeat the call right above them."""
    above = calls.select(
        "scope", "http_status", "peer", *_SAME, parent=pl.col("index").cast(pl.Int64)
    )
    pairs = (
        calls.join(above, on="parent", suffix="_above")
        .filter(
            pl.col("scope") != pl.col("scope_above"),
            *(pl.col(name).eq_missing(pl.col(f"{name}_above")) for name in _SAME),
        )
        .filter(pl.len().over("parent", "scope") == 1)
        .filter(*(_agree(name) for name in ("http_status", "peer")))
    )
    return pairs["index"].to_numpy()


def _agree(name: str) -> pl.Expr:
    """Whether both say the same, or one says nothing."""
    return (pl.col(name) == pl.col(f"{name}_above")).fill_null(True)
