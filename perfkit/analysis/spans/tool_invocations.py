"""The table `tool_invocations`: what each call of a tool asked, and whether the answer was new.

Agents call a tool again with the same arguments: in another order, in other spacing or case. What
came back tells a loop from one that polls or reads on.
"""

from __future__ import annotations

import contextlib
import json

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.components import outermost
from perfkit.analysis.spans.ids import Ids, Traces, numbers
from perfkit.analysis.vector.forest import Bools
from perfkit.analysis.vector.percentiles import codes

RESULTS = ("gen_ai.tool.call.result", "gen_ai.tool.output", "mcp.tool.result", "tool.result")
"""Attributes that hold a result, best first: OpenTelemetry's, Sentry's, and what libraries use."""
MODEL = r"^(chat|generate_content|text_completion|embeddings)\b"
"""Names of spans of calls to a model (OpenTelemetry, GenAI client spans)."""

_WRITES = r"^(POST|PUT|PATCH|DELETE)\b"
_ALIKE = 0.8
"""Part of the pairs of words in two results that is in both, from which they say the same (Sentry,
redundant tool calls of agents: words; pairs are our own choice)."""
_WORD = r"[\p{L}\p{N}]+"
_MAX_PARSED = 16_384
_MAX_COMPARED = 100_000

_READ = (
    *("row", "subtree", "trace_hi", "trace_lo", "span_id", "entry_row"),
    *("tool", "tool_arguments", "start_ns", "end_ns"),
)

_OF_TREE = ("row", "subtree", "entry_row", "tool", "category", "name", "start_ns")


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a call that did not fail. One inside a call of the same tool is part of it."""
    called = pl.col("tool").is_not_null() & pl.col("entry_row").is_not_null()
    called &= ~pl.col("duplicate") & (pl.col("status") != "error")
    spans = tables.where("tree", called, *_READ)
    calls = spans.filter(pl.Series(outermost(codes(spans, ["tool"])[0], spans)))
    group = ["entry_row", "question"]
    calls = (
        calls.with_columns(question=_questions(calls), result=_results(tables, calls))
        .sort("entry_row", "start_ns", "row")
        .with_columns(
            number=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over(group),
            gap_ns=(pl.col("start_ns") - pl.col("end_ns").shift(1)).clip(0).over(group),
            first_start_ns=pl.col("start_ns").first().over(group),
            result_bytes=pl.col("result").str.len_bytes().cast(pl.Int64),
        )
        .with_columns(last=pl.col("number") == pl.col("number").max().over(group))
    )
    return (
        calls.with_columns(alike=_alike(calls), http_writes=_writes(tables, calls))
        .sort("row")
        .select(*_COLUMNS)
    )


def _questions(calls: pl.DataFrame) -> pl.Series:
    """Return a hash of tool and arguments, however the arguments are written."""
    asked = calls.select("tool", "tool_arguments", several=pl.len().over("entry_row", "tool") > 1)
    # Where a tool is called once in an entry, nothing is compared.
    texts = asked.filter("several")["tool_arguments"].drop_nulls().unique()
    plain = pl.DataFrame({"tool_arguments": texts, "plain": [_plain(text) for text in texts]})
    plain = plain.with_columns(pl.col("plain").cast(pl.String))
    return (
        asked.join(plain, on="tool_arguments", how="left", maintain_order="left")
        .select(
            pl.when(pl.col("tool_arguments").is_not_null()).then(
                pl.concat_str("tool", pl.lit("\n"), pl.coalesce("plain", "tool_arguments"))
                .hash(seed=0)
                .reinterpret(signed=True)
            )
        )
        .to_series()
    )


def _plain(text: str) -> str:
    if len(text) <= _MAX_PARSED:
        with contextlib.suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    return " ".join(text.casefold().split())


def _results(tables: Tables, calls: pl.DataFrame) -> pl.Series:
    """Return the results as text; null where none was recorded."""
    recorded = (
        tables["spans"]
        .filter(pl.col("tool").is_not_null())
        .select("trace_hi", "trace_lo", "span_id", "attributes")
        .collect()
    )
    texts = recorded["attributes"]
    known = [key for key in RESULTS if texts.str.contains(f'"{key}"', literal=True).any()]
    if not known or calls.is_empty():
        return pl.Series([None] * calls.height, dtype=pl.String)
    place = Ids.of(recorded).find(
        traces := Traces.of(calls), traces.span_key(numbers(calls["span_id"]))
    )
    paths = [pl.col("attributes").str.json_path_match(f"$['{key}']") for key in known]
    results = pl.DataFrame([texts.gather(np.maximum(place, 0))]).select(pl.coalesce(paths))
    return results.to_series().set(pl.Series(place < 0), None)


def _alike(calls: pl.DataFrame) -> pl.Series:
    """Return whether a result says what the first one said; null where one is not known."""
    first = pl.col("result").first().over("entry_row", "question")
    compared = calls.select("result", first=first).with_row_index("place")
    differ = compared.filter(pl.col("result") != pl.col("first")).select(
        "place", own=_pairs("result"), other=_pairs("first")
    )
    both = pl.col("own").list.set_intersection("other").list.len()
    either = pl.col("own").list.set_union("other").list.len()
    near = differ.select((both / either).fill_nan(0.0) >= _ALIKE).to_series()
    same = compared.select(pl.col("result") == pl.col("first")).to_series()
    return same.scatter(differ["place"], near)


def _pairs(name: str) -> pl.Expr:
    """Return the pairs of neighbouring words: single words say little of a long text."""
    words = pl.col(name).str.head(_MAX_COMPARED).str.to_lowercase().str.extract_all(_WORD)
    pairs = pl.concat_str(pl.element(), pl.element().shift(-1), separator=" ")
    return words.list.eval(pairs.drop_nulls().unique())


def _writes(tables: Tables, calls: pl.DataFrame) -> pl.Series:
    """Return how many requests that change something came between the first call and each.

    What a tool or a model is asked by is no change: their calls are POST requests themselves.
    """
    repeated = calls.filter(pl.col("number") > 1)
    if repeated.is_empty():
        return pl.Series(np.zeros(calls.height, dtype=np.int64))
    tree = tables.columns("tree", *_OF_TREE)
    written = tree.filter(
        pl.col("category") == "client",
        pl.col("name").str.contains(_WRITES),
        pl.col("entry_row").is_in(repeated["entry_row"].unique().implode()),
        ~pl.Series(_inside(tree)),
    ).select("entry_row", "start_ns")
    counted = written.sort("start_ns").with_columns(
        seen=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("entry_row")
    )

    def until(moment: str) -> pl.Series:
        asked = calls.select("entry_row", start_ns=moment).with_row_index("place")
        found = asked.sort("start_ns").join_asof(
            counted, on="start_ns", by="entry_row", check_sortedness=False
        )
        return found.sort("place")["seen"].fill_null(0)

    return until("start_ns") - until("first_start_ns")


def _inside(tree: pl.DataFrame) -> Bools:
    """Return which spans are below a call of a tool or a model."""
    outer = tree["tool"].is_not_null() | tree["name"].str.contains(MODEL).fill_null(False)
    row = np.flatnonzero(outer.to_numpy())
    edge = np.zeros(tree.height + 1, dtype=np.int64)
    np.add.at(edge, row + 1, 1)
    np.add.at(edge, row + tree["subtree"].to_numpy()[row], -1)
    inside: Bools = np.cumsum(edge[:-1]) > 0
    return inside


_COLUMNS = {
    "row": "the span, as in `tree`",
    "entry_row": "the entry that it belongs to",
    "tool": "the tool",
    "question": "hash of tool and arguments, without order, spacing and case; null when arguments "
    "are not recorded",
    "number": "which call of the entry with that question it is, from 1",
    "last": "the last of them",
    "gap_ns": "time since the one before it ended, 0 where they overlap; null for the first",
    "alike": "it was told what the first was (four fifths of the pairs of words are equal); null "
    "when a result is not recorded",
    "result_bytes": "size of the result as recorded; null likewise",
    "http_writes": "POST, PUT, PATCH and DELETE requests of the entry since the first, but for "
    "those of tools and models",
}

DERIVED = Derived(
    "tool_invocations",
    "one call of a tool that did not fail",
    ("tree", "spans"),
    compute,
    _COLUMNS,
)
