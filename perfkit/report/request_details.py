"""What the page shows of one request: its spans, its critical path, and the code that ran in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths
from perfkit.report.context import Context
from perfkit.report.text import clean_json

MAX_SPANS = 500
"""Spans of one request that the page carries: the longest, and what is above them."""

_MAX_DEPTH = 100
_FUNCTIONS = 25
_EVENTS = 40
"""Events of one request that the page carries."""
_PROMOTED = (
    "status_message",
    "http_method",
    "http_status",
    "tool",
    "tool_arguments",
    "peer",
    "db_system",
    "db_rows",
    "kind",
    "scope",
    "instance",
    "pid",
    "thread_id",
)
"""Columns of `spans` that are shown among a span's attributes."""


_OF_SPAN = (
    *("row", "parent_row", "entry_row", "depth", "trace_hi", "trace_lo", "span_id", "service"),
    *("name", "category", "status", "db_statement", "start_ns", "duration_ns", "skew_ns"),
)


class _Strings:
    """Numbers texts in the order in which they come."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._known: dict[str, int] = {}

    def ids(self, column: pl.Series) -> npt.NDArray[np.int32]:
        """Return the numbers of a column's texts; -1 for null."""
        distinct = column.drop_nulls().unique(maintain_order=True).to_list()
        for text in distinct:
            if text not in self._known:
                self._known[text] = len(self.texts)
                self.texts.append(text)
        numbers = [self._known[text] for text in distinct]
        if not distinct:
            return np.full(len(column), -1, dtype=np.int32)
        return column.replace_strict(
            distinct, numbers, default=-1, return_dtype=pl.Int32
        ).to_numpy()


def build(context: Context, chosen: pl.DataFrame) -> dict[str, Any]:
    """Return spans, critical path and code of the entries `chosen`, one detail each, in order.

    Columns of all details lie one after the other; detail `i` has the rows `first[i]` up to
    `first[i + 1]`. Times are relative to the request's start.
    """
    strings = _Strings()
    details = chosen.select(
        entry_row="request_row", detail=pl.int_range(pl.len()), entry_start_ns="start_ns"
    )
    tree = _of_entries(context, details, "tree", *_OF_SPAN)
    spans = _longest(tree)
    first = _first(spans["detail"], details.height)
    spans = spans.with_columns(place=pl.int_range(pl.len()) - pl.Series(first)[spans["detail"]])
    places = spans.select("row", "place")
    own = ("self_ns", "critical_ns")
    spans = (
        spans.with_columns(context.tables.picked("span_times", spans["row"].to_numpy(), *own))
        .join(
            places.rename({"row": "parent_row", "place": "parent_place"}),
            on="parent_row",
            how="left",
        )
        .sort("detail", "place")
    )
    attributes = _attributes(context, spans)
    categories = spans["category"].unique().sort()
    dropped = details.height and (
        np.bincount(tree["detail"], minlength=details.height) - np.diff(first)
    )
    return {
        "first": first,
        "dropped": np.asarray(dropped),
        "categories": categories.to_list(),
        "spans": {
            "strings": strings.texts,
            "name": strings.ids(spans["name"]),
            "service": strings.ids(spans["service"]),
            "category": spans["category"]
            .replace_strict(categories, pl.int_range(len(categories), eager=True))
            .to_numpy(),
            "parent": spans["parent_place"].fill_null(-1).to_numpy(),
            "start_ns": (spans["start_ns"] - spans["entry_start_ns"]).to_numpy(),
            "duration_ns": spans["duration_ns"].to_numpy(),
            "self_ns": spans["self_ns"].fill_null(0).to_numpy(),
            "critical": (spans["critical_ns"].fill_null(0) > 0).to_numpy(),
            "error": (spans["status"] == "error").fill_null(False).to_numpy(),
            "text": strings.ids(spans["db_statement"]),
            "attributes": strings.ids(attributes),
        },
        "critical": _critical(context, details, places),
        "code": _code(context, details, places, strings),
        "events": _events(context, details, spans, strings),
    }


def _of_entries(context: Context, details: pl.DataFrame, table: str, *columns: str) -> pl.DataFrame:
    """Return the rows of a table that belong to the entries, with their detail."""
    mine = pl.col("entry_row").is_in(details["entry_row"].to_list())
    return context.tables.where(table, mine, *columns).join(details, on="entry_row")


def _first(detail: pl.Series, details: int) -> npt.NDArray[np.int64]:
    """Return where each detail's rows begin, and at last where they end."""
    counts = np.bincount(detail.to_numpy(), minlength=details)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _longest(tree: pl.DataFrame) -> pl.DataFrame:
    """Keep of each detail the longest spans and all that is above these, parents first."""
    order = ["detail", "row"]
    sizes = tree.group_by("detail").len()
    if (sizes["len"].max() or 0) <= MAX_SPANS:  # type: ignore[operator]
        return tree.sort(order)
    base = pl.col("depth").min().over("detail")
    reachable = tree.filter(pl.col("depth") - base < _MAX_DEPTH)
    rank = pl.col("duration_ns").rank("ordinal", descending=True).over("detail")
    kept = reachable.filter(rank <= MAX_SPANS)
    frontier = kept
    while frontier.height:
        frontier = reachable.join(
            frontier.select(row="parent_row").unique(), on="row", how="semi"
        ).join(kept, on="row", how="anti")
        kept = pl.concat([kept, frontier])
    return kept.sort(order)


def _attributes(context: Context, spans: pl.DataFrame) -> pl.Series:
    """Return for each span its attributes, promoted ones first, as the text of a JSON object."""
    ids = ["trace_hi", "trace_lo", "span_id"]
    traces = spans["trace_lo"].drop_nulls().unique().to_list()
    recorded = (
        context.tables["spans"]
        .select(*ids, "start_ns", *_PROMOTED, "attributes")
        # What a filter leaves out while files are read is never in memory.
        .filter(pl.col("trace_lo").is_null() | pl.col("trace_lo").is_in(traces))
        .join(spans.lazy().select(ids).unique(), on=ids, how="semi", nulls_equal=True)
        .unique([*ids, "start_ns"], keep="first", maintain_order=True)
        .collect()
    )
    pieces = [_member(name) for name in _PROMOTED]
    rest = without_steps(pl.col("attributes")).str.strip_chars(" \n\t").str.replace(r"^\{\s*", "")
    rest = rest.str.replace(r"\s*\}$", "")
    pieces.append(pl.when(rest != "").then(rest))
    members = pl.concat_str(pieces, separator=",", ignore_nulls=True)
    whole = pl.concat_str(pl.lit("{"), members, pl.lit("}"))
    texts = recorded.select(*ids, "start_ns", whole.alias("text"))
    distinct = texts["text"].unique()
    cleaned = pl.Series([clean_json(text) for text in distinct], dtype=pl.String)
    return (
        spans.with_columns(recorded_ns=pl.col("start_ns") - pl.col("skew_ns"))
        .join(
            texts,
            left_on=[*ids, "recorded_ns"],
            right_on=[*ids, "start_ns"],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )["text"]
        .replace_strict(distinct, cleaned, default=None, return_dtype=pl.String)
    )


def without_steps(attributes: pl.Expr) -> pl.Expr:
    """Leave out what `perfkit.otel` says of a span's steps: long, and of use to no reader."""
    without = attributes.str.replace(r'"perfkit\.steps":\s*"[^"]*"(?:,\s*)?', "")
    return without.str.replace(r",\s*\}\s*$", "}")


def _member(name: str) -> pl.Expr:
    """Return a column as a member of a JSON object, `"name":value`; null where it is null."""
    encoded = pl.struct(name).struct.json_encode()
    return pl.when(pl.col(name).is_not_null()).then(encoded.str.slice(1).str.head(-1))


def _critical(context: Context, details: pl.DataFrame, places: pl.DataFrame) -> dict[str, Any]:
    """Return the segments of the critical paths, but for those of spans that were left out."""
    path = (
        _of_entries(context, details, "critical_path", "entry_row", "row", "start_ns", "end_ns")
        .join(places, on="row")
        .sort("detail", "start_ns", "end_ns")
    )
    return {
        "first": _first(path["detail"], details.height),
        "span": path["place"].to_numpy(),
        "start_ns": (path["start_ns"] - path["entry_start_ns"]).to_numpy(),
        "end_ns": (path["end_ns"] - path["entry_start_ns"]).to_numpy(),
    }


def _code(
    context: Context, details: pl.DataFrame, places: pl.DataFrame, strings: _Strings
) -> dict[str, Any]:
    """Return the functions that samples saw in each request, by the span that was open then."""
    code = (
        context.tables["sample_spans"]
        .filter(pl.col("ambiguous").not_())
        .join(details.lazy(), on="entry_row")
        .join(context.tables["ordered_samples"].select("sample_row", "path"), on="sample_row")
        .join(places.lazy(), on="row", how="left")
        .group_by("detail", "place", "path")
        .agg(pl.col("duration_ns").sum())
        .join(_labels(context), on="path")
        .group_by("detail", "place", "label")
        .agg(pl.col("duration_ns").sum())
        .filter(pl.col("duration_ns") > 0)
        .sort(
            ["detail", "duration_ns", "label", "place"],
            descending=[False, True, False, False],
            nulls_last=True,
        )
        .group_by("detail", maintain_order=True)
        .head(_FUNCTIONS)
        .collect()
    )
    return {
        "first": _first(code["detail"], details.height),
        "label": strings.ids(code["label"]),
        "duration_ns": code["duration_ns"].to_numpy(),
        "span": code["place"].fill_null(-1).to_numpy(),
    }


def _events(
    context: Context, details: pl.DataFrame, spans: pl.DataFrame, strings: _Strings
) -> dict[str, Any]:
    """Return the events of each request's spans (exceptions, retries, messages), in order."""
    ids = ["trace_hi", "trace_lo", "span_id"]
    mine = spans.select(*ids, "detail", "place", "entry_start_ns", "skew_ns").unique(
        ids, keep="first", maintain_order=True
    )
    events = (
        context.tables["span_events"]
        .join(mine.lazy(), on=ids, nulls_equal=True)
        .with_columns(at_ns=pl.col("ts_ns") + pl.col("skew_ns") - pl.col("entry_start_ns"))
        .sort("detail", "at_ns", "place", nulls_last=True)
        .group_by("detail", maintain_order=True)
        .head(_EVENTS)
        .collect()
    )
    cleaned = [None if text is None else clean_json(text) for text in events["attributes"]]
    return {
        "first": _first(events["detail"], details.height),
        "span": events["place"].to_numpy(),
        "at_ns": events["at_ns"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        "name": strings.ids(events["name"]),
        "attributes": strings.ids(pl.Series(cleaned, dtype=pl.String)),
    }


def _labels(context: Context) -> pl.LazyFrame:
    """Return for each call path what it says in one line: the program's own function, and the leaf.

    `search (tools.py:88) → do_execute` reads: search, at that line, was in do_execute.
    """
    paths = context.tables.frame("call_paths")
    own = CallPaths.of(paths).innermost(paths["own"].to_numpy())
    caller = pl.Series("own", own, dtype=pl.Int64).replace(-1, None)
    place = pl.format(
        "{} ({}:{})",
        "function",
        pl.col("file").str.split("/").list.last().fill_null("?"),
        pl.col("line").fill_null(0),
    )
    at = paths.select(place.alias("at"))["at"]
    return pl.LazyFrame(
        {
            "path": pl.int_range(paths.height, eager=True, dtype=pl.Int64),
            "leaf": paths["function"],
            "itself": pl.Series(own) == pl.int_range(paths.height, eager=True),
            "at": at.gather(caller),
        }
    ).select(
        "path",
        label=pl.when(pl.col("at").is_null())
        .then("leaf")
        .when("itself")
        .then("at")
        .otherwise(pl.format("{} → {}", "at", "leaf")),
    )
