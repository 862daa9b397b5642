"""When an event loop turned, as spans show it: a callback that ran before then is over.

A stack stands until another one is seen. On a busy machine that may be long after its callback is
over: what spans say of the loop is more exact than when somebody looked at it.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.code.span_steps import span_steps
from perfkit.analysis.code.span_threads import NOWHERE, SpanThreads, span_threads
from perfkit.analysis.code.step_edges import PERIODS, periods_ns
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.intervals import Changes

MIN_BLOCKED_NS = 20_000_000
"""Shorter runs are left out: at py-spy's 100 Hz they would rest on a single observation."""

_SAME_CALLBACK_NS = 20_000
"""As short a time without a step may be within one callback, as in `perfkit.otel`."""


def cut_where_the_loop_turned(rows: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Cut rows where the loop of their thread turned, and number as `turn` what is between.

    That is where a request begins or ends on it and, where spans say in which steps of the loop
    they ran, where there is no step within a request. `needs_ns` says how long it must have been
    seen to be believed: what lies outside of all steps may be a stack of the step before that was
    stamped late. Of a stack that stood from a step until after it the rest is left out.
    """
    if rows.is_empty():
        return rows.with_columns(turn=pl.lit(0, dtype=pl.Int64), needs_ns=pl.lit(0, pl.Int64))
    spans = span_threads(tables)
    requests = spans.spans.filter("request")
    loops = rows["thread"].unique()
    if len(loops) == 1 and requests["service"].n_unique() == 1 and not requests["named"].any():
        # Spans that name no thread: there is one loop, and one service that it can have served.
        requests = requests.with_columns(thread=pl.lit(loops[0], pl.Int64))
    requests = requests.filter(pl.col("thread") != NOWHERE)
    stretches = _stretches(_steps(tables, spans))
    edges = pl.concat(
        [
            requests.select("thread", at_ns="start_ns"),
            requests.select("thread", at_ns="end_ns"),
            _turns(stretches),
        ]
    )
    turns = Changes.of(spans.thread_count, edges["thread"].to_numpy(), edges["at_ns"].to_numpy())
    start = rows["ts_ns"].to_numpy()
    pieces = turns.cut(rows["thread"].to_numpy(), start, start + rows["duration_ns"].to_numpy())
    cut = rows[pieces.source].with_columns(
        ts_ns=pieces.start_ns,
        duration_ns=pieces.end_ns - pieces.start_ns,
        turn=pieces.state,
        seen=pieces.start_ns == start[pieces.source],
    )
    if stretches.is_empty():
        return cut.with_columns(needs_ns=pl.lit(0, pl.Int64))
    late = PERIODS * periods_ns(tables.capture.info, pieces.start_ns)
    return _believed(cut.with_columns(late_ns=pl.Series(late)), stretches)


def _steps(tables: Tables, spans: SpanThreads) -> pl.DataFrame:
    """Return `thread`, `start_ns`, `end_ns` of steps, and when the entry of their span is open.

    Of a span that does not say all of its steps the rest of its time counts as one.
    """
    said = span_steps(tables, spans)
    whole = spans.spans.with_row_index("place").with_columns(pl.col("place").cast(pl.Int64))
    rest = pl.DataFrame({"place": said.said, "start_ns": said.known_until_ns}).join(
        whole.select("place", "thread", "end_ns"), on="place"
    )
    columns = ("place", "thread", "start_ns", "end_ns")
    steps = pl.DataFrame(
        {
            "place": said.place,
            "thread": said.thread,
            "start_ns": said.start_ns,
            "end_ns": said.end_ns,
        }
    )
    entries = whole.select(entry="row", opened_ns="start_ns", closed_ns="end_ns")
    return (
        pl.concat([steps, rest.select(columns)])
        .filter(pl.col("end_ns") > pl.col("start_ns"), pl.col("thread") != NOWHERE)
        .join(whole.select("place", "entry"), on="place")
        .join(entries, on="entry", how="left")
        .sort("thread", "start_ns", "end_ns")
        .select(*columns[1:], "opened_ns", "closed_ns")
    )


def _stretches(steps: pl.DataFrame) -> pl.DataFrame:
    """Return `thread`, `start_ns`, `end_ns` of the times in which one step follows the other.

    With when the entry of the first step was opened and that of the last one closed.
    """
    before_ns = pl.col("end_ns").cum_max().shift(1).over("thread")
    apart = (pl.col("start_ns") - before_ns > _SAME_CALLBACK_NS).fill_null(True)
    return (
        steps.with_columns(stretch=apart.cum_sum())
        .group_by("thread", "stretch", maintain_order=True)
        .agg(
            pl.col("start_ns").min(),
            pl.col("end_ns").max(),
            pl.col("opened_ns").first(),
            pl.col("closed_ns").get(pl.col("end_ns").arg_max()),
        )
        .drop("stretch")
    )


def _turns(stretches: pl.DataFrame) -> pl.DataFrame:
    """Return `thread`, `at_ns` where a step begins or ends while its request is open.

    A callback may go on, or have begun, with code that its span does not cover. But the span of a
    request that is open would be current.
    """
    begins = stretches.filter(pl.col("start_ns") - pl.col("opened_ns") > _SAME_CALLBACK_NS)
    ends = stretches.filter(pl.col("closed_ns") - pl.col("end_ns") > _SAME_CALLBACK_NS)
    return pl.concat(
        [
            begins.select("thread", at_ns="start_ns"),
            ends.select("thread", at_ns="end_ns"),
        ]
    )


def _believed(pieces: pl.DataFrame, stretches: pl.DataFrame) -> pl.DataFrame:
    """Return the pieces with `needs_ns`, without those that only went on after a step was over.

    One that was first seen between two steps is mostly a stack of the step before, seen late: then
    it lasted no longer than that step.
    """
    last_ns = pl.col("ts_ns") + pl.col("duration_ns") - 1
    stepping = pl.col("thread").is_in(stretches["thread"].unique().to_list())
    before = stretches.select(
        "thread", at="start_ns", reach_ns="end_ns", step_ns=pl.col("end_ns") - pl.col("start_ns")
    ).sort("at")
    outside = pl.col("stepping") & (pl.col("reach_ns").fill_null(0) <= pl.col("ts_ns"))
    follows = pl.col("ts_ns") - pl.col("reach_ns") <= pl.col("late_ns")
    late = pl.col("outside") & (follows & (pl.col("step_ns") >= MIN_BLOCKED_NS)).fill_null(False)
    return (
        pieces.with_row_index("piece")
        .with_columns(last_ns=last_ns, stepping=stepping)
        .sort("last_ns")
        .join_asof(before, left_on="last_ns", right_on="at", by="thread", check_sortedness=False)
        .sort("piece")
        .with_columns(outside=outside)
        .filter(pl.col("seen") | ~pl.col("outside"))
        .with_columns(
            needs_ns=pl.when(pl.col("outside") & ~late).then("late_ns").otherwise(0),
            duration_ns=pl.when(late)
            .then(pl.min_horizontal("duration_ns", "step_ns"))
            .otherwise("duration_ns"),
        )
        .drop("piece", "last_ns", "stepping", "at", "reach_ns", "step_ns", "outside", strict=False)
    )
