"""Which spans kept an event loop for long, as they themselves say it: `long_steps`.

A step is the time in which the code of one span ran without giving the loop back. It needs nobody
who looked in time, so it is exact where a machine is so busy that stacks are seen late or not at
all. It holds what the thread waited for a core and for the interpreter's lock meanwhile.

What ran is said by stacks, where some were seen: the one that `loop_blocking` has for most of it.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.code.span_steps import ATTRIBUTE, parse
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.waits.loop_turns import MIN_BLOCKED_NS

_IDS = ("trace_hi", "trace_lo", "span_id")
_SPAN = ("row", "entry_row", "service", "name", "entry_endpoint", "entry_tool")
_CODE = ("function", "file", "leaf_function")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `long_steps`, longest first."""
    name = f"$['{ATTRIBUTE}']"
    texts = (
        tables["spans"]
        .filter(pl.col("attributes").str.contains(f'"{ATTRIBUTE}"', literal=True))
        .select(*_IDS, text=pl.col("attributes").str.json_path_match(name))
        .drop_nulls("text")
        .unique(_IDS, keep="any")
        .collect()
    )
    spans = (
        tables["tree"]
        .filter(~pl.col("duplicate"))
        .select(
            *(*_IDS, *_SPAN, "pid", "thread_id"),
            # Samples are on the clock of the span's own host.
            start_ns=pl.col("start_ns") - pl.col("skew_ns"),
            end_ns=pl.col("end_ns") - pl.col("skew_ns"),
        )
        .join(texts.lazy(), on=_IDS, maintain_order="left")
        .collect()
        .with_row_index("place")
    )
    columns = ("place", "pid", "thread_id", "start_ns", "end_ns", "text")
    length = pl.col("end_ns") - pl.col("start_ns")
    return (
        parse(spans.select(columns).lazy())
        .filter(length >= MIN_BLOCKED_NS)
        .join(spans.lazy().select("place", "thread_id", *_SPAN), on="place", maintain_order="left")
        # What the loop gave to another thread does not keep it.
        .filter(pl.col("tid") == pl.col("thread_id"))
        .with_columns(duration_ns=length)
        .collect()
        .pipe(_with_code, tables.frame("loop_blocking"))
        .sort("duration_ns", "start_ns", "row", descending=[True, False, False])
        .select(list(COLUMNS))
    )


def _with_code(steps: pl.DataFrame, blocking: pl.DataFrame) -> pl.DataFrame:
    """Add the code that was seen longest in each step."""
    start, end = pl.col("start_ns"), pl.col("end_ns")
    seen = blocking.select(
        *("pid", "tid", *_CODE),
        seen_from_ns="start_ns",
        seen_until_ns=start + pl.col("duration_ns"),
    )
    common = pl.min_horizontal(end, "seen_until_ns") - pl.max_horizontal(start, "seen_from_ns")
    code = (
        steps.select("pid", "tid", "start_ns", "end_ns")
        .join_where(
            seen,
            pl.col("pid") == pl.col("pid_right"),
            pl.col("tid") == pl.col("tid_right"),
            start < pl.col("seen_until_ns"),
            pl.col("seen_from_ns") < end,
        )
        .with_columns(common_ns=common)
        .sort("common_ns", *_CODE, descending=True, nulls_last=True)
        .unique(("pid", "tid", "start_ns"), keep="first", maintain_order=True)
        .select("pid", "tid", "start_ns", *_CODE)
    )
    return steps.join(code, on=("pid", "tid", "start_ns"), how="left")


COLUMNS = {
    "start_ns": "when the code of the span went on",
    "duration_ns": "how long it kept the loop, with what it waited for a core meanwhile",
    "pid": "process",
    "tid": "thread of the loop",
    "row": "the span, as in `tree`",
    "entry_row": "the request of a user that it is part of",
    "service": "its service",
    "name": "its name",
    "entry_endpoint": "endpoint of that request",
    "entry_tool": "tool of that request",
    "function": "function of the program that `loop_blocking` has for most of it; null when no "
    "stack was seen in time",
    "file": "its file",
    "leaf_function": "innermost function of that stack",
}

DERIVED = Derived(
    "long_steps",
    f"one time of at least {MIN_BLOCKED_NS // 1_000_000} ms in which a span kept an event loop, as "
    "the span says it (`perfkit.otel`)",
    ("tree", "spans", "loop_blocking"),
    compute,
    COLUMNS,
)
