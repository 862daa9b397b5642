"""What can be said about a request: where it ran, what it carried, whom it called, which code ran.

Traits come as long frames of `request`, `key`, `value`; a number becomes a trait by being larger
than usual. Looked at are the spans of the request itself (not of requests that it calls).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.forest import nearest_marked
from perfkit.analysis.vector.percentiles import codes, quantiles
from perfkit.semconv import CALLER_PORT

MOST_KEYS = 60
"""Attributes that are looked at; the most frequent ones."""

_KEYS_FROM = 3000
"""So many different sets of attributes are searched for their names."""

_AT_ONCE = 8
"""So many attributes are read at once, by several threads: each stays in memory meanwhile."""

LARGE_LEVEL = 0.9
"""A number is large beyond the 90th percentile of typical requests to the same endpoint."""

_SPAN_ID = ("trace_hi", "trace_lo", "span_id")
_CALLED_KINDS = ("server", "consumer")
_CALLING = ("client", "database", "messaging", "tool")
TIME, CALLS, CODE, SPAN, CALLED = "ms in", "calls to", "code", "span", "calls"
"""Keys that say what a request did; all others say what it was."""

_NO_TRAITS: dict[str, pl.DataType] = {
    "request": pl.Int64(),
    "key": pl.String(),
    "value": pl.String(),
}


def texts_and_numbers(tables: Tables, chosen: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return `request`, `key`, `value` of texts, and `request`, `key`, `number` of numbers.

    `chosen` are rows of `requests`, numbered by `request`.
    """
    spans = _spans(tables, chosen)
    attribute_texts, attribute_numbers = _attributes(tables, spans)
    called = spans.filter(pl.col("category").is_in(_CALLING))
    texts = [
        _columns(chosen, ("tool", "instance", "status", "http_status")),
        _columns(spans, ("peer", "db_system", "tool", "pid")),
        _as_trait(called, CALLED, "component"),
        _as_trait(spans, SPAN, "name"),
        attribute_texts,
        _events(tables, spans),
        _code(tables, chosen),
    ]
    by_component = called.group_by("request", "component").agg(
        pl.len().cast(pl.Float64).alias(CALLS),
        (pl.col("duration_ns").sum() / 1e6).alias(TIME),
    )
    numbers = [
        attribute_numbers,
        *(
            by_component.select(
                "request", key=pl.format("{} {}", pl.lit(name), "component"), number=name
            )
            for name in (CALLS, TIME)
        ),
    ]
    return (
        pl.concat(texts).drop_nulls().unique(maintain_order=True),
        pl.concat(numbers).group_by("request", "key", maintain_order=True).agg(pl.max("number")),
    )


def did() -> pl.Expr:
    """Return whether a trait says what the request did, and not what it was.

    An attribute in which a program reports how long something took is no reason why it took long.
    """
    key = pl.col("key")
    return (
        key.is_in([CODE, SPAN, CALLED])
        | key.str.starts_with(f"{TIME} ")
        | key.str.starts_with(f"{CALLS} ")
        | key.str.contains("(?i)duration|elapsed|latency|response_?time|took")
    )


def how_failed() -> pl.Expr:
    """Return whether a trait of a failed request may say how it failed, and not why."""
    key = pl.col("key")
    return (
        key.is_in(["status", "http_status", "success", "exception"])
        | (key == "event")
        | key.str.contains(r"(?i)error|exception|response|status_?(code|description)|grpc.*status")
    )


def large(numbers: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """Return as traits the numbers that are larger than in typical requests to the endpoint."""
    placed = numbers.join(chosen.select("request", "endpoint_id", "slow"), on="request")
    code, things = codes(placed, ["endpoint_id", "key"])
    if not things.height:
        return pl.DataFrame(schema=_NO_TRAITS)
    typical = ~placed["slow"].to_numpy()
    scaled = placed["number"].to_numpy()
    # Quantiles are of whole numbers: ranks keep the order of any.
    order = np.argsort(scaled, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    ones = np.ones(int(typical.sum()))
    mark = quantiles(code[typical], rank[typical], ones, things.height, [LARGE_LEVEL])[:, 0]
    # Where no typical request has the number, any is large.
    limit = np.where(
        np.isfinite(mark), scaled[order][np.nan_to_num(mark).astype(np.int64)], -np.inf
    )
    beyond = scaled > limit[code]
    shown = pl.Series(limit[code]).round_sig_figs(3)
    return placed.select(
        "request",
        "key",
        value=pl.when(shown.is_finite()).then(pl.format("> {}", shown)).otherwise(pl.lit("any")),
    ).filter(pl.Series(beyond))


def _spans(tables: Tables, chosen: pl.DataFrame) -> pl.DataFrame:
    columns = ("category", "component", "peer", "db_system", "tool", "pid", "name", "duration_ns")
    mine = pl.col("request_row").is_in(chosen["request_row"].to_list())
    return tables.where("tree", mine, "row", "request_row", *columns, *_SPAN_ID).join(
        chosen.select("request_row", "request"), on="request_row"
    )


def _as_trait(frame: pl.DataFrame, key: str, column: str) -> pl.DataFrame:
    return frame.select("request", key=pl.lit(key), value=pl.col(column).cast(pl.String))


def _columns(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    return pl.concat(_as_trait(frame, name, name) for name in names).drop_nulls()


def _attributes(tables: Tables, spans: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the JSON attributes of spans and of their resources."""
    traces = spans["trace_lo"].drop_nulls().unique().to_list()
    recorded = (
        tables["spans"]
        .select(*_SPAN_ID, "attributes", "resource", called=pl.col("kind").is_in(_CALLED_KINDS))
        # What a filter leaves out while files are read is never in memory.
        .filter(pl.col("trace_lo").is_in(traces))
        .join(spans.lazy().select(*_SPAN_ID, "request"), on=_SPAN_ID)
        .collect()
    )
    long = []
    for column in ("attributes", "resource"):
        found = recorded.select("request", "called", json=column).drop_nulls("json")
        place, distinct = codes(found, ["json"])
        pairs = found.select("request", "called", place=pl.Series(place)).unique()
        keys = _keys(distinct["json"].head(_KEYS_FROM))
        for first in range(0, len(keys), _AT_ONCE):
            values = distinct.select(_value(key) for key in keys[first : first + _AT_ONCE])
            long += [_of_key(pairs, one) for one in values.get_columns()]
    if not long:
        nothing = pl.DataFrame(schema=_NO_TRAITS)
        return nothing, nothing.select("request", "key", number=pl.lit(0.0)).clear()
    texts = pl.concat(long)
    number = pl.col("value").cast(pl.Float64, strict=False)
    numbers = texts.select("request", "key", number=number).filter(pl.col("number").is_finite())
    return texts, numbers


def _of_key(pairs: pl.DataFrame, values: pl.Series) -> pl.DataFrame:
    """Return the traits of one attribute, where it says anything of a request."""
    key = values.name
    said = pairs.with_columns(value=values.gather(pairs["place"]))
    if key in CALLER_PORT:
        said = said.filter(~pl.col("called").fill_null(False))
    return said.select("request", key=pl.lit(key), value="value").drop_nulls().unique()


def _value(key: str) -> pl.Expr:
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    return pl.col("json").str.json_path_match(f'$["{quoted}"]').alias(key)


def _keys(texts: pl.Series) -> list[str]:
    """Return the most frequent names in some JSON objects; what is no object has none."""
    names: dict[str, int] = {}
    for text in texts:
        try:
            found = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeEncodeError):
            continue
        for name in found:
            names[name] = names.get(name, 0) + 1
    return sorted(names, key=lambda name: (-names[name], name))[:MOST_KEYS]


def _events(tables: Tables, spans: pl.DataFrame) -> pl.DataFrame:
    found = (
        tables["span_events"]
        .select(*_SPAN_ID, "name")
        .join(spans.lazy().select(*_SPAN_ID, "request"), on=_SPAN_ID)
        .collect()
    )
    return _as_trait(found, "event", "name")


def _code(tables: Tables, chosen: pl.DataFrame) -> pl.DataFrame:
    """Return the function of the program itself in which most of a request's samples were."""
    pieces = tables.frame("sample_spans").filter(pl.col("entry_row").is_not_null())
    if pieces.is_empty():
        return pl.DataFrame(schema=_NO_TRAITS)
    paths = tables.frame("call_paths")
    own = nearest_marked(CallPaths.of(paths).parent, paths["own"].to_numpy())
    function = paths.select(pl.format("{} ({})", "function", pl.coalesce("module", "file")))
    named = paths.select(
        "stack_id", value=function.to_series().gather(pl.Series(own).set(pl.Series(own < 0), None))
    )
    stack = tables.frame("ordered_samples")["stack_id"].gather(pieces["sample_row"])
    entries = chosen.filter("entry").select("request", entry_row="request_row")
    return (
        pieces.select("entry_row", pl.col("duration_ns").fill_null(1), stack_id=stack)
        .join(entries, on="entry_row")
        .join(named.drop_nulls(), on="stack_id")
        .group_by("request", "value")
        .agg(pl.col("duration_ns").sum())
        .sort("duration_ns", "value", descending=[True, False])
        .unique("request", keep="first")
        .select("request", key=pl.lit(CODE), value="value")
    )
