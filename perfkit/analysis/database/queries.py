"""The tables `queries` and `query_calls`: database calls by what they ask, not by their values."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.database.indexes import with_proposals
from perfkit.analysis.database.loops import loop_rows
from perfkit.analysis.database.statements import normalise_all
from perfkit.analysis.session import Derived, Frames, Tables
from perfkit.analysis.spans.requests import top_database_calls
from perfkit.analysis.vector.percentiles import codes
from perfkit.analysis.vector.rows import rows_or_null
from perfkit.analysis.vector.summary import (
    DOCS,
    ratio_of,
    request_time,
    summarise_groups,
    sums,
    whole,
)
from perfkit.model import STATUSES

_NAMES = 20
"""Callers and endpoints that are listed for a query."""
_STATUS = pl.Enum(STATUSES)
_OF_CALL = ("row", "query_id", "statement", "entry_row", "loop_row")
_NUMBERS = ("duration_ns", "status", "adjusted_count", "critical_ns")
_OF_SPAN = (
    *("db_system", "db_statement", "db_rows", "service", "name", "status"),
    *("duration_ns", "adjusted_count", "entry_endpoint"),
)


def compute_calls(tables: Tables) -> pl.DataFrame:
    """Return one row a database call; a call inside another (of a lower driver) is part of it."""
    tree = tables.frame("tree")
    calls = tree.filter(pl.Series(top_database_calls(tree)), pl.col("entry_row").is_not_null())
    text = ["db_system", "db_statement", "name"]
    asked = calls.with_columns(
        # The span's name matters only where no statement was recorded.
        name=pl.when(pl.col("db_statement").is_null()).then("name"),
    )
    code, distinct = codes(asked, text)
    frequency = np.bincount(code, minlength=distinct.height)
    order = np.argsort(-frequency, kind="stable")
    statement = np.empty(distinct.height, dtype=object)
    statement[order] = normalise_all(distinct[order]).to_numpy()
    known = distinct.with_columns(statement=pl.Series(statement.tolist(), dtype=pl.String))
    ids = [_query_id(*pair) for pair in known.select("db_system", "statement").iter_rows()]
    known = known.with_columns(query_id=pl.Series(ids, dtype=pl.String))[code]
    query = known["query_id"].rank("dense").cast(pl.Int64).to_numpy()
    loop = loop_rows(tree, calls["row"].to_numpy(), query)
    return calls.select(
        "row",
        query_id=known["query_id"],
        entry_row="entry_row",
        parent_row="parent_row",
        loop_row=rows_or_null(loop),
        statement_hash=pl.col("db_statement").hash(seed=0).reinterpret(signed=True),
        statement=known["statement"],
    )


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a query.

    Texts are looked at piece by piece; of all calls at once only numbers are in memory, for exact
    percentiles.
    """
    columns = {"query_calls": _OF_CALL, "tree": _OF_SPAN, "span_times": ("critical_ns",)}
    parts = tables.each_piece(columns, _described, [None] * (len(tables.cuts()) - 1))
    code, distinct = codes(pl.concat(part.queries for part in parts), ["query_id"])
    calls = pl.concat(part.calls for part in parts)
    began = np.cumsum([0, *(part.queries.height for part in parts)])
    first = np.repeat(began[:-1], [part.calls.height for part in parts])
    code = code[first + calls["query"].to_numpy()]
    weight = calls["adjusted_count"].to_numpy()
    critical = sums(code, weight * calls["critical_ns"].to_numpy(), distinct.height)
    counts = summarise_groups(calls, code, distinct.height)
    queries = (
        distinct.hstack(counts.rename({"count": "calls", "duration_sum_ns": "total_ns"}))
        .with_columns(critical_ns=whole(critical), variance_to_mean=_dispersion(code, calls))
        .join(_merged(parts), on="query_id", maintain_order="left")
        .with_columns(share_ratio=ratio_of(pl.col("total_ns"), request_time(tables["tree"])))
        .sort("total_ns", descending=True, maintain_order=True)
    )
    return with_proposals(queries).select(*_COLUMNS)


class _Piece(NamedTuple):
    """What some whole traces say about queries."""

    calls: pl.DataFrame
    """One row a call, with the row of its query in `queries`."""
    queries: pl.DataFrame
    services: pl.DataFrame
    """One row a query and service, with the sum of durations; likewise those that follow."""
    callers: pl.DataFrame
    endpoints: pl.DataFrame


def _described(frames: Frames, _: None) -> _Piece:
    """Return what the calls of a piece say; its rows are numbered from 0."""
    calls, tree = frames["query_calls"], frames["tree"]
    row = calls["row"]
    spans = tree[row].with_columns(
        calls.select("query_id", "statement", "entry_row", "loop_row"),
        critical_ns=frames["span_times"]["critical_ns"][row],
        caller=tree["name"].gather(calls["loop_row"]),
        status=pl.col("status").cast(_STATUS, strict=False),
    )
    code, distinct = codes(spans, ["query_id"])
    repeats = spans.drop_nulls("loop_row").group_by("query_id", "loop_row").len()
    most = repeats.group_by("query_id").agg(max_repeats=pl.col("len").max().cast(pl.Int64))
    about = spans.group_by("query_id").agg(
        pl.col("db_system", "statement").first(),
        longest_ns=pl.col("duration_ns").max(),
        example=pl.coalesce("db_statement", "name")
        .filter(pl.col("duration_ns") == pl.col("duration_ns").max())
        .min(),
        # Null where no call says it.
        rows=pl.when(pl.col("db_rows").is_not_null().any()).then(
            (pl.col("db_rows") * pl.col("adjusted_count")).sum()
        ),
        requests=pl.col("entry_row").n_unique().cast(pl.Int64),
    )
    by_service = spans.group_by("query_id", "service").agg(pl.col("duration_ns").sum())
    return _Piece(
        spans.select(*_NUMBERS, query=pl.Series(code)),
        distinct.join(about, on="query_id", how="left", maintain_order="left").join(
            most, on="query_id", how="left"
        ),
        by_service,
        _counted(spans, "caller"),
        _counted(spans, "entry_endpoint"),
    )


def _counted(spans: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return how often each query has each name, but null."""
    return spans.drop_nulls(column).group_by("query_id", name=column).len("count")


def _merged(parts: Sequence[_Piece]) -> pl.DataFrame:
    """Return what is said about a query beside its times."""
    services = pl.concat(part.services for part in parts)
    service = (
        services.group_by("query_id", "service")
        .agg(pl.col("duration_ns").sum())
        .sort("duration_ns", "service", descending=[True, False])
        .unique("query_id", keep="first")
        .drop("duration_ns")
    )
    callers = _most_frequent([part.callers for part in parts], "callers")
    endpoints = _most_frequent([part.endpoints for part in parts], "endpoints")
    return (
        pl.concat(part.queries for part in parts)
        .group_by("query_id")
        .agg(
            pl.col("db_system", "statement").first(),
            example=pl.col("example")
            .filter(pl.col("longest_ns") == pl.col("longest_ns").max())
            .min(),
            rows=pl.when(pl.col("rows").is_not_null().any()).then(
                pl.col("rows").sum().round().cast(pl.Int64)
            ),
            # A request is in one piece.
            requests=pl.col("requests").sum(),
            max_repeats=pl.col("max_repeats").max().fill_null(1),
        )
        .join(service, on="query_id")
        .join(callers, on="query_id", how="left")
        .join(endpoints, on="query_id", how="left")
        .with_columns(pl.col("callers", "endpoints").fill_null([]))
    )


def _most_frequent(parts: Sequence[pl.DataFrame], column: str) -> pl.DataFrame:
    """Return the most frequent names of each query as a list; equally frequent ones by name."""
    return (
        pl.concat(parts)
        .group_by("query_id", "name")
        .agg(pl.col("count").sum())
        .sort("count", "name", descending=[True, False])
        .group_by("query_id", maintain_order=True)
        .agg(pl.col("name").head(_NAMES).alias(column))
    )


def _dispersion(code: np.ndarray[tuple[int], np.dtype[np.int64]], spans: pl.DataFrame) -> pl.Series:
    """Return variance by mean of the durations, in seconds as pt-query-digest gives it."""
    weight = spans["adjusted_count"].to_numpy()
    seconds = spans["duration_ns"].to_numpy() / 1e9
    groups = int(code.max()) + 1 if len(code) else 0
    count = np.maximum(sums(code, weight, groups), 1.0)
    mean = sums(code, weight * seconds, groups) / count
    variance = sums(code, weight * (seconds - mean[code]) ** 2, groups) / count
    return pl.Series(np.divide(variance, mean, out=np.zeros(groups), where=mean > 0))


def _query_id(system: str | None, statement: str) -> str:
    text = f"{system or ''}\n{statement}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=8).hexdigest()


_COLUMNS = {
    "query_id": "hash of product and normalised statement, equal in every capture",
    "db_system": "database product",
    "service": "service that spends most time with it",
    "statement": "statement without its values, or the command of a store without SQL",
    "example": "the statement of its longest call, as recorded",
    "calls": "how often it ran",
    "total_ns": "sum of its durations",
    **{name: DOCS[name] for name in ("mean_ns", "p50_ns", "p95_ns", "p99_ns", "max_ns")},
    "variance_to_mean": "variance by mean of its duration in seconds: high when it varies",
    "rows": "rows returned in all; null where instrumentation does not say",
    "error_ratio": "share of calls that failed",
    "requests": "entries that run it",
    "index_on": "index that could serve it by its text, as `table (column, …)`, of the 30 queries "
    "that take most time; null where none can be said",
    "index_also": "likewise of another of its tables",
    "index_doubt": "why an index could not serve it, or none can be said",
    "index_per_outer": "whether `index_on` is what a subquery looks up for each row around it",
    "callers": "names of the spans that run it (`loop_row` of `query_calls`), most frequent first, "
    f"{_NAMES} at most",
    "endpoints": f"endpoints of the entries that run it, likewise {_NAMES} at most",
    "max_repeats": "most calls under one span, likewise",
    "critical_ns": "time on the critical path of entries",
    "share_ratio": "its time by request time",
}

CALLS = Derived(
    "query_calls",
    "one database call of an entry",
    ("tree",),
    compute_calls,
    {
        "row": "the span, as in `tree`",
        "query_id": "which query, see `queries`",
        "entry_row": "the entry that it belongs to",
        "parent_row": "the span that runs it",
        "loop_row": "the span under which it repeats: the nearest with five such calls under it, "
        "or under spans of equal names around each, as of an ORM or a function; else the nearest "
        "with three; else the parent",
        "statement_hash": "hash of the text as recorded; null when none was",
        "statement": "normalised statement",
    },
)
QUERIES = Derived("queries", "one query", ("query_calls", "tree", "span_times"), compute, _COLUMNS)
