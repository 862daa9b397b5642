"""Which span was running when a stack was seen: `sample_spans`, and its sums `code_by_entry`.

A sample belongs to the span that was open on its thread and had no open child there. On a thread
that serves one request at a time there is one such span. On an event loop several requests are open
on one thread, and a stack does not say which of them it worked for. Where spans say their steps
(see `span_steps`) it is the one whose step it was, unless the step's edge is too near to be sure
(see `step_edges`); where they do not, the sample is ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.code.span_steps import Steps, span_steps
from perfkit.analysis.code.span_threads import NOWHERE, Matched, SpanThreads, span_threads
from perfkit.analysis.code.step_edges import NOBODY, SEVERAL, blur, stack_changes
from perfkit.analysis.code.waiting import resting
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.intervals import Changes, Intervals, Ints, uncovered, union
from perfkit.analysis.vector.percentiles import codes
from perfkit.analysis.vector.rows import rows_or_null
from perfkit.capture import CaptureInfo

_KIND = ("entry_endpoint", "entry_tool")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `sample_spans`, in the order of samples."""
    samples = tables.frame("ordered_samples").filter(pl.col("ts_ns").is_not_null())
    if samples.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    spans = span_threads(tables)
    steps = span_steps(tables, spans)
    seen = stack_changes(samples if len(steps.place) else samples.clear(), spans.thread_count)
    activity = _Activity.of(spans, steps, seen, tables.capture.info)
    start = samples["ts_ns"].to_numpy()
    end = start + samples["duration_ns"].fill_null(0).clip(0).to_numpy()
    pieces = activity.changes.cut(samples["thread"].to_numpy(), start, end)
    length = pl.Series("duration_ns", pieces.end_ns - pieces.start_ns)
    rests = _rests(samples, tables.frame("call_paths")).gather(pieces.source)
    return (
        activity.state[pieces.state]
        .with_columns(
            pl.when(~rests).then(pl.col("row", "entry_row")),
            pl.col("ambiguous") & ~rests,
        )
        .with_columns(
            sample_row=samples["sample_row"].gather(pieces.source),
            start_ns=pl.Series(pieces.start_ns),
            duration_ns=length.set(samples["duration_ns"].is_null().gather(pieces.source), None),
        )
        .select(list(COLUMNS))
    )


def _rests(samples: pl.DataFrame, paths: pl.DataFrame) -> pl.Series:
    """Return for each sample whether it shows a worker without work, which is in no request.

    Between two looks a thread is taken to be where it was seen; a request that began after the look
    would have such a wait for its code.
    """
    of_path = resting(paths)
    at_rest = of_path.gather(samples["path"]).fill_null(False)
    return at_rest & (samples["state"] != "running").fill_null(True)


@dataclass(frozen=True)
class _Activity:
    """For every sampled thread, at each moment, which spans had no open child there."""

    changes: Changes
    state: pl.DataFrame
    """A row for each state: `row`, `entry_row` (null unless there is exactly one), `ambiguous`."""

    @classmethod
    def of(cls, spans: SpanThreads, steps: Steps, seen: Changes, info: CaptureInfo) -> _Activity:
        """Sweep over the starts and ends of all spans on sampled threads, and of their steps."""
        matched = spans.matched()
        since_ns = _unsaid_since(spans, matched, steps)
        changes = Changes.of(
            spans.thread_count,
            np.concatenate([*(matched.thread,) * 3, steps.thread, steps.thread]),
            np.concatenate(
                [matched.start_ns, matched.end_ns, since_ns, steps.start_ns, steps.end_ns]
            ),
        )
        ranks = len(changes.moments)
        whole = Intervals(
            np.arange(len(matched.row)),
            changes.rank(matched.start_ns),
            changes.rank(matched.end_ns),
        )
        children = np.flatnonzero(matched.above >= 0)
        covers = Intervals(matched.above[children], whole.start[children], whole.end[children])
        # A span that says its steps is at work in them alone.
        whole = whole._replace(start=changes.rank(since_ns))
        working = uncovered(whole, covers, ranks)
        thread = matched.thread[working.group]
        rows, row = changes.sums(thread, working.start, working.end, matched.row[working.group])
        # One interval for all spans of an entry on a thread, so that an entry counts once.
        entry = matched.entry[working.group]
        lowest = entry.min(initial=0)
        span = int(entry.max(initial=0) - lowest) + 1
        serving = union(working._replace(group=thread * span + (entry - lowest)), ranks)
        entries, owner = changes.sums(
            serving.group // span, serving.start, serving.end, serving.group % span + lowest
        )
        # Where one interval is open, the sum over the open ones is its own number.
        row = np.where(rows == 1, row, NOWHERE)
        one_entry = np.where((entries == 1) & (owner >= 0), owner, NOWHERE)
        ambiguous = entries > 1
        # Of one thread one span is current: what it says goes before what is concluded.
        current = _current(spans, steps, changes)
        said = current.open > 0
        row = np.where(said, current.row, row)
        one_entry = np.where(said, current.entry, one_entry)
        ambiguous = np.where(said, current.open > 1, ambiguous)
        owner = np.where(said, current.owner, np.where(entries == 1, owner, NOBODY))
        owner[ambiguous] = SEVERAL
        changes, part_of, uncertain = blur(
            changes, owner, said, _loops(spans, steps), _kinds(spans, owner), seen, info
        )
        row = np.where(uncertain, NOWHERE, row[part_of])
        one_entry = np.where(uncertain, NOWHERE, one_entry[part_of])
        ambiguous = uncertain | ambiguous[part_of]
        differs = changes.begins()
        for values in (row, one_entry, ambiguous):
            differs[1:] |= values[1:] != values[:-1]
        state = pl.DataFrame(
            {
                "row": spans.rows.gather(rows_or_null(row[differs])),
                "entry_row": spans.rows.gather(rows_or_null(one_entry[differs])),
                "ambiguous": ambiguous[differs],
            }
        )
        return cls(changes.thinned(differs), state)


class _Current(NamedTuple):
    """For each state: how many spans were in a step; its row and entry where it was one."""

    open: Ints
    row: Ints
    entry: Ints
    owner: Ints
    """The entry, also one that was not captured; without meaning where it was not one span."""


def _current(spans: SpanThreads, steps: Steps, changes: Changes) -> _Current:
    columns = spans.spans
    # The second report of a request stands for the first.
    row = (
        columns.select(pl.when("duplicate").then("parent_row").fill_null(pl.col("row")))
        .to_series()
        .to_numpy()[steps.place]
    )
    entry = columns["entry"].to_numpy()[steps.place]
    start, end = changes.rank(steps.start_ns), changes.rank(steps.end_ns)
    count, row, entry = changes.sums(steps.thread, start, end, row, entry)
    return _Current(
        count,
        np.where(count == 1, row, NOWHERE),
        np.where((count == 1) & (entry >= 0), entry, NOWHERE),
        entry,
    )


def _loops(spans: SpanThreads, steps: Steps) -> npt.NDArray[np.bool_]:
    """Return for each thread whether it runs a loop: whether spans had steps where they began."""
    loops = np.zeros(spans.thread_count, dtype=np.bool_)
    home = spans.spans["thread"].to_numpy()[steps.place]
    loops[steps.thread[home == steps.thread]] = True
    return loops


def _kinds(spans: SpanThreads, owner: Ints) -> Ints:
    """Number the owners by endpoint and tool; what is no captured entry stays as it is."""
    kind, captured = owner.copy(), np.flatnonzero(owner >= 0)
    kind[captured] = codes(spans.whole, _KIND)[0][owner[captured]]
    return kind


def _unsaid_since(spans: SpanThreads, matched: Matched, steps: Steps) -> Ints:
    """Return from when on each span may have been at work without saying so."""
    since = np.full(spans.spans.height, np.iinfo(np.int64).min)
    since[steps.said] = steps.known_until_ns
    clipped: Ints = np.clip(since[matched.place], matched.start_ns, matched.end_ns)
    return clipped


def code_by_entry(tables: Tables) -> pl.DataFrame:
    """Return the table `code_by_entry`, most time first."""
    names = ("entry_endpoint", "entry_tool")
    parts, samples = tables.frame("sample_spans"), tables.frame("ordered_samples")
    entries = parts["entry_row"].drop_nulls().unique().sort()
    kind, kinds = codes(tables.picked("tree", entries.to_numpy(), *names), names)
    of_entry = pl.select(
        pl.when(parts["entry_row"].is_not_null()).then(entries.search_sorted(parts["entry_row"]))
    ).to_series()
    # Numbers instead of texts, and places instead of joins: there may be many millions of parts.
    place = parts["sample_row"]
    duration, running = pl.col("duration_ns"), pl.col("state") == "running"
    sums = (
        parts.lazy()
        .select(
            "ambiguous",
            "sample_row",
            duration,
            kind=pl.Series(kind, dtype=pl.Int64).gather(of_entry),
            stack_id=samples["stack_id"].gather(place),
            state=samples["state"].gather(place),
        )
        .with_columns(running_ns=pl.when(running).then(duration))
        .group_by("kind", "ambiguous", "stack_id")
        .agg(
            pl.col("duration_ns", "running_ns").sum(),
            timed=duration.count() > 0,
            samples=pl.col("sample_row").n_unique().cast(pl.Int64),
        )
        .collect(engine="streaming")
    )
    kinds = kinds.with_columns(kind=pl.int_range(pl.len(), dtype=pl.Int64), entry=pl.lit(True))
    key = (*_KIND, "stack_id", "ambiguous")
    return (
        sums.join(kinds, on="kind", how="left")
        .with_columns(
            pl.col("entry").fill_null(False),
            pl.when("timed").then(pl.col("duration_ns", "running_ns")),
        )
        .sort("duration_ns", "samples", *key, descending=[True, True, *[False] * 4])
        .select(list(CODE_COLUMNS))
    )


_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("sample_row", "row", "entry_row"), pl.Int64()),
    "ambiguous": pl.Boolean(),
    **dict.fromkeys(("start_ns", "duration_ns"), pl.Int64()),
}

COLUMNS = {
    "sample_row": "the sample, as in `ordered_samples`; again for every part that differs",
    "row": "the span, as in `tree`; null when none or more than one was at work on that thread",
    "entry_row": "the entry that the span belongs to; null when it is none, or ambiguous",
    "ambiguous": "several entries were open on the thread, or a step of a loop began or ended near",
    "start_ns": "when this part of the sample began",
    "duration_ns": "length of the part; null when the sample has only a time",
}

DERIVED = Derived(
    "sample_spans",
    "one part of a sample, during which one and the same span was at work on its thread",
    ("ordered_samples", "tree", "spans"),
    compute,
    COLUMNS,
)

CODE_COLUMNS = {
    "entry_endpoint": "endpoint of the entry; null outside of entries, and when ambiguous",
    "entry_tool": "tool of the entry",
    "entry": "whether the samples belong to an entry",
    "ambiguous": "several entries were open on the thread, or a step of a loop began or ended near",
    "stack_id": "the stack",
    "duration_ns": "time, working or waiting; null when samples have no durations",
    "running_ns": "the part of it in which the thread ran",
    "samples": "samples",
}

CODE_BY_ENTRY = Derived(
    "code_by_entry",
    "one stack below one kind of entry",
    ("sample_spans", "ordered_samples", "tree"),
    code_by_entry,
    CODE_COLUMNS,
)
