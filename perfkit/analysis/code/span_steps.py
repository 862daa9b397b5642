"""When each span was the current one of the code that ran, where the program says it.

`perfkit.otel` writes the attribute `perfkit.steps` to spans on event loops; its form is described
there. Where it is, nothing needs to be concluded from which spans were open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.code.span_threads import SpanThreads
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.intervals import Ints

ATTRIBUTE = "perfkit.steps"
_MAX_US = 10**13  # 115 days: no sum of such numbers overflows
_IDS = ("trace_hi", "trace_lo", "span_id")


@dataclass(frozen=True)
class Steps:
    """Intervals in which a span was current on a sampled thread, as columns."""

    place: Ints
    """The span, as a position in `SpanThreads.spans`."""
    thread: Ints
    start_ns: Ints
    end_ns: Ints
    said: Ints
    """Positions of all spans that say their steps, some perhaps none."""
    known_until_ns: Ints
    """For each of those until when they say them; after that they may have had more."""


def span_steps(tables: Tables, spans: SpanThreads, *, elsewhere: bool = False) -> Steps:
    """Read the steps of all spans that have some, or of those with steps on a further thread."""
    text = pl.col("text")
    texts = (
        tables["spans"]
        .filter(pl.col("attributes").str.contains(f'"{ATTRIBUTE}"', literal=True))
        .select(*_IDS, text=pl.col("attributes").str.json_path_match(f"$['{ATTRIBUTE}']"))
        .filter(text.str.contains("@", literal=True) if elsewhere else text.is_not_null())
        .unique(_IDS, keep="any")
        .collect()
    )
    none = np.empty(0, dtype=np.int64)
    if texts.is_empty():
        return Steps(*(none,) * 6)
    of_spans = (
        spans.whole.lazy()
        .select(*_IDS, "pid", "thread_id")
        .with_row_index("place")
        .with_columns(
            pl.col("place").cast(pl.Int64),
            start_ns=spans.spans["start_ns"],
            end_ns=spans.spans["end_ns"],
        )
        .join(texts.lazy(), on=_IDS, how="inner", maintain_order="left")
    )
    steps = parse(of_spans).collect()
    said = (
        steps.group_by("place", maintain_order=True)
        .agg(
            known=~pl.col("more").any(),
            end_ns=pl.col("span_end_ns").first(),
            last_ns=pl.col("end_ns").max(),
        )
        .with_columns(until=pl.when("known").then("end_ns").otherwise("last_ns").fill_null(0))
    )
    on_threads = _on_threads(steps.filter(pl.col("end_ns") > pl.col("start_ns")), spans.threads)
    return Steps(
        on_threads["place"].to_numpy(),
        on_threads["thread"].to_numpy(),
        on_threads["start_ns"].to_numpy(),
        on_threads["end_ns"].to_numpy(),
        said["place"].to_numpy(),
        said["until"].to_numpy(),
    )


def parse(spans: pl.LazyFrame) -> pl.LazyFrame:
    """Parse `text` of spans (`place`, `pid`, `thread_id`, `start_ns`, `end_ns`) into steps.

    Gives `place`, `pid`, `tid`, `start_ns`, `end_ns`, `span_end_ns`, and `more`: that the rest is
    not known, because the text says so, is cut off or is none of ours. A span without steps gives
    one row without times.
    """
    token, number = pl.col("token"), pl.col("number")
    tokens = (
        spans.with_columns(token=pl.col("text").str.split(" "))
        .with_columns(
            # What is last may be half of a number where the text was cut off.
            more=pl.col("token").list.last() != ".",
            token=pl.col("token").list.slice(0, pl.col("token").list.len() - 1),
        )
        .rename({"start_ns": "base_ns", "end_ns": "span_end_ns"})
        .drop("text")
        .explode("token", empty_as_null=True)
        .with_columns(elsewhere=token.str.starts_with("@").fill_null(False))
        .with_columns(
            tid=pl.when("elsewhere")
            .then(token.str.slice(1).cast(pl.Int64, strict=False))
            .forward_fill()
            .over("place")
            .fill_null(pl.col("thread_id")),
            number=token.cast(pl.Int64, strict=False),
        )
        .filter(~pl.col("elsewhere"))
        .with_columns(
            odd=pl.int_range(pl.len()).over("place") % 2 == 1,
            wrong=token.is_not_null() & ~number.abs().le(_MAX_US).fill_null(False),
        )
        .with_columns(wrong=pl.col("wrong").any().over("place"))
        .with_columns(number=pl.when(~pl.col("wrong")).then("number"))
        .with_columns(reached_ns=pl.col("base_ns") + number.cum_sum().over("place") * 1000)
    )
    return tokens.filter(pl.col("odd") | token.is_null()).select(
        "place",
        "pid",
        "tid",
        "span_end_ns",
        start_ns=(pl.col("reached_ns") - number * 1000).clip("base_ns", "span_end_ns"),
        end_ns=pl.col("reached_ns").clip("base_ns", "span_end_ns"),
        more=pl.col("more") | pl.col("wrong"),
    )


def _on_threads(steps: pl.DataFrame, threads: pl.DataFrame) -> pl.DataFrame:
    """Number the sampled threads of the steps; those of others are left out."""
    alone = threads.filter(pl.len().over("tid") == 1).select("tid", alone="thread")
    return (
        steps.join(threads, on=["pid", "tid"], how="left")
        .join(alone, on="tid", how="left")
        .with_columns(thread=pl.when(pl.col("pid").is_null()).then("alone").otherwise("thread"))
        .drop_nulls("thread")
    )
