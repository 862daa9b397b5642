"""The tables `queries` and `query_calls`: database calls by what they ask, not by their values."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import polars as pl

from perfkit.analysis.database.loops import loop_rows
from perfkit.analysis.database.statements import normalise_all
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.requests import top_database_calls
from perfkit.analysis.vector.percentiles import codes
from perfkit.analysis.vector.rows import rows_or_null
from perfkit.analysis.vector.summary import DOCS, ratio_of, request_time, summarise, sums, whole

_NAMES = 20
"""Callers and endpoints that are listed for a query."""


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
    """Return one row a query."""
    calls = tables.frame("query_calls")
    row = calls["row"].to_numpy()
    of_span = ["db_system", "db_statement", "db_rows", "service", "name", "status"]
    of_span += ["duration_ns", "adjusted_count", "entry_endpoint"]
    spans = tables.picked("tree", row, *of_span).with_columns(
        calls.select("query_id", "statement", "entry_row", "loop_row"),
        critical_ns=tables.picked("span_times", row, "critical_ns")["critical_ns"],
        caller=tables.looked_up("tree", calls["loop_row"], "name"),
    )
    code, distinct = codes(spans, ["query_id"])
    counts = summarise(spans, ["query_id"]).rename(
        {"count": "calls", "duration_sum_ns": "total_ns"}
    )
    weight = spans["adjusted_count"].to_numpy()
    critical = sums(code, weight * spans["critical_ns"].to_numpy(), distinct.height)
    repeats = spans.drop_nulls("loop_row").group_by("query_id", "loop_row").len()
    most = repeats.group_by("query_id").agg(max_repeats=pl.col("len").max().cast(pl.Int64))
    return (
        counts.with_columns(critical_ns=whole(critical), variance_to_mean=_dispersion(code, spans))
        .join(_described(spans), on="query_id", maintain_order="left")
        .join(most, on="query_id", how="left", maintain_order="left")
        .with_columns(
            max_repeats=pl.col("max_repeats").fill_null(1),
            share_ratio=ratio_of(pl.col("total_ns"), request_time(tables["tree"])),
        )
        .select(*_COLUMNS)
        .sort("total_ns", descending=True, maintain_order=True)
    )


def _described(spans: pl.DataFrame) -> pl.DataFrame:
    """Return what is said about a query beside its times."""
    service = spans.group_by("query_id", "service").agg(pl.col("duration_ns").sum())
    return (
        spans.lazy()
        .group_by("query_id")
        .agg(
            pl.col("db_system", "statement").first(),
            example=pl.coalesce("db_statement", "name")
            .filter(pl.col("duration_ns") == pl.col("duration_ns").max())
            .min(),
            rows=pl.when(pl.col("db_rows").is_not_null().any()).then(
                (pl.col("db_rows") * pl.col("adjusted_count")).sum().round().cast(pl.Int64)
            ),
            requests=pl.col("entry_row").n_unique().cast(pl.Int64),
            callers=pl.col("caller").drop_nulls().value_counts(),
            endpoints=pl.col("entry_endpoint").drop_nulls().value_counts(),
        )
        .with_columns(_most_frequent("callers"), _most_frequent("endpoints"))
        .join(
            service.lazy()
            .sort("duration_ns", "service", descending=[True, False])
            .unique("query_id", keep="first")
            .drop("duration_ns"),
            on="query_id",
        )
        .collect()
    )


def _most_frequent(column: str) -> pl.Expr:
    """Return the names in lists of names and counts; equally frequent ones by name."""
    name, count = (pl.element().struct[place] for place in (0, 1))
    frequent = name.sort_by(count, name, descending=[True, False]).head(_NAMES)
    return pl.col(column).list.eval(frequent)


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
        "or under spans of equal names around each, as of an ORM or a function; else the parent",
        "statement_hash": "hash of the text as recorded; null when none was",
        "statement": "normalised statement",
    },
)
QUERIES = Derived("queries", "one query", ("query_calls", "tree", "span_times"), compute, _COLUMNS)
