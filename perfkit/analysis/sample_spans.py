"""Which span was running when a stack was seen: `sample_spans`, and its sums `code_by_entry`.

A sample belongs to the span that was open on its thread and had no open child there. On a thread
that serves one request at a time there is one such span. On an event loop several requests are open
on one thread, and a stack does not say which of them it worked for: then the sample is ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.intervals import Intervals, Ints, uncovered, union
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.span_threads import NOWHERE, SpanThreads, span_threads


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `sample_spans`, in the order of samples."""
    samples = tables.frame("ordered_samples").filter(pl.col("ts_ns").is_not_null())
    spans = span_threads(tables)
    thread = (
        samples.select("pid", "tid")
        .join(
            spans.threads,
            on=["pid", "tid"],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )["thread"]
        .fill_null(NOWHERE)
        .to_numpy()
    )
    start = samples["ts_ns"].to_numpy()
    duration = samples["duration_ns"].fill_null(0).to_numpy()
    parts = _Activity.of(spans).during(thread, start, start + np.maximum(duration, 0))
    return (
        parts.with_columns(
            pl.Series("sample_row", samples["sample_row"].gather(parts["sample"])),
            timed=samples["duration_ns"].is_not_null().gather(parts["sample"]),
        )
        .group_by("sample_row", "row", "entry_row", "ambiguous")
        .agg(
            duration_ns=pl.when(pl.col("timed").all()).then(pl.col("duration_ns").sum()),
            start_ns=pl.col("start_ns").min(),
        )
        .sort("sample_row", "start_ns")
        .select(list(COLUMNS))
    )


@dataclass(frozen=True)
class _Activity:
    """For every sampled thread, from which moment on which spans had no open child there.

    `state` has a row for each moment at which that changes: `rows` and `entries`, how many such
    spans and how many of their entries there are, and `row` and `entry_row`, which one if it is
    one. Every thread begins with a state in which nothing is open.
    """

    moments: Ints
    """Unix ns of all changes; the first stands for the time before any."""
    key: Ints
    """Thread × number of moments + position of the moment, rising."""
    state: dict[str, Ints]

    @classmethod
    def of(cls, spans: SpanThreads) -> _Activity:
        """Sweep over the starts and ends of all spans on sampled threads."""
        matched = spans.matched()
        before_all = np.array([np.iinfo(np.int64).min])
        moments = np.unique(np.concatenate([before_all, matched.start_ns, matched.end_ns]))
        ranks = len(moments)
        whole = Intervals(
            np.arange(len(matched.row)),
            np.searchsorted(moments, matched.start_ns),
            np.searchsorted(moments, matched.end_ns),
        )
        children = np.flatnonzero(matched.above >= 0)
        covers = Intervals(matched.above[children], whole.start[children], whole.end[children])
        working = uncovered(whole, covers, ranks)
        thread, row = matched.thread[working.group], matched.row[working.group]
        # One interval for all spans of an entry on a thread: then the sum over the open ones says
        # how many entries there are, and which it is if it is one.
        entry = matched.entry_row[working.group]
        pairs, pair = np.unique(np.stack([thread, entry]), axis=1, return_inverse=True)
        serving = union(Intervals(pair.reshape(-1), working.start, working.end), ranks)
        changes = [
            _changes(thread * ranks, working.start, working.end, 0, row),
            _changes(pairs[0, serving.group] * ranks, *serving[1:], 2, pairs[1, serving.group]),
        ]
        beginnings = np.arange(max(spans.threads.height, 1), dtype=np.int64) * ranks
        key = np.concatenate([beginnings, *(keys for keys, _ in changes)])
        change = np.concatenate(
            [np.zeros((len(beginnings), 4), np.int64), *(values for _, values in changes)]
        )
        order = np.argsort(key, kind="stable")
        key, level = key[order], np.cumsum(change[order], axis=0)
        settled = np.append(key[1:] != key[:-1], True)[: len(key)]
        names = ("rows", "row", "entries", "entry_row")
        state = {name: level[settled, number] for number, name in enumerate(names)}
        return cls(moments, key[settled], state)

    def during(self, thread: Ints, start_ns: Ints, end_ns: Ints) -> pl.DataFrame:
        """Cut each interval at the changes on its thread.

        Returns `sample` (which interval), `start_ns`, `duration_ns`, `row`, `entry_row` and
        `ambiguous`.
        """
        ranks = len(self.moments)
        known = thread != NOWHERE
        lookup = np.where(known, thread, 0) * ranks
        at_start = np.searchsorted(self.moments, start_ns, side="right") - 1
        at_end = np.maximum(np.searchsorted(self.moments, end_ns, side="left") - 1, at_start)
        first = np.searchsorted(self.key, lookup + at_start, side="right") - 1
        last = np.searchsorted(self.key, lookup + at_end, side="right") - 1
        parts = np.where(known, last - first + 1, 1)
        sample = np.repeat(np.arange(len(thread)), parts)
        number = np.arange(len(sample)) - np.repeat(np.cumsum(parts) - parts, parts)
        at = first[sample] + number
        began = np.where(number > 0, self.moments[self.key[at] % ranks], start_ns[sample])
        ended = end_ns[sample]
        followed = np.flatnonzero(number[1:] > 0)
        ended[followed] = began[followed + 1]
        frame = pl.DataFrame(
            {"sample": sample, "start_ns": began, "duration_ns": ended - began}
            | {name: np.where(known[sample], values[at], 0) for name, values in self.state.items()}
        )
        return frame.select(
            "sample",
            "start_ns",
            "duration_ns",
            row=pl.when(pl.col("rows") == 1).then("row"),
            entry_row=pl.when(pl.col("entries") == 1).then("entry_row"),
            ambiguous=pl.col("entries") > 1,
        )


def _changes(base: Ints, start: Ints, end: Ints, column: int, identity: Ints) -> tuple[Ints, Ints]:
    """Return keys, and what begins (+) and ends (−) there: a count and a sum of identities."""
    change = np.zeros((2 * len(start), 4), dtype=np.int64)
    change[: len(start), column] = 1
    change[: len(start), column + 1] = identity
    change[len(start) :] = -change[: len(start)]
    return np.concatenate([base + start, base + end]), change


def code_by_entry(tables: Tables) -> pl.DataFrame:
    """Return the table `code_by_entry`, most time first."""
    samples = tables["ordered_samples"].select("sample_row", "stack_id", "state", "count")
    tree = tables["tree"].select(
        pl.col("row").cast(pl.Int64).alias("entry_row"), "entry_endpoint", "entry_tool"
    )
    key = ("entry_endpoint", "entry_tool", "stack_id", "ambiguous")
    duration, state = pl.col("duration_ns"), pl.col("state")
    return (
        tables["sample_spans"]
        .join(samples, on="sample_row", how="inner")
        .join(tree, on="entry_row", how="left")
        .group_by(*key, entry=pl.col("entry_row").is_not_null())
        .agg(
            duration_ns=pl.when(duration.is_not_null().any()).then(duration.sum()),
            running_ns=pl.when(duration.is_not_null().any()).then(
                duration.filter(state == "running").sum()
            ),
            samples=pl.col("sample_row").n_unique().cast(pl.Int64),
        )
        .sort("duration_ns", "samples", *key, descending=[True, True, *[False] * 4])
        .select(list(CODE_COLUMNS))
        .collect()
    )


COLUMNS = {
    "sample_row": "the sample, as in `ordered_samples`; again for every span that it overlaps",
    "row": "the span, as in `tree`; null when none or more than one was at work on that thread",
    "entry_row": "the entry that the span belongs to; null when it is none, or ambiguous",
    "ambiguous": "several entries were open on the thread, as on an event loop",
    "start_ns": "when the overlap with the span began",
    "duration_ns": "length of the overlap; null when the sample has only a time",
}

DERIVED = Derived(
    "sample_spans",
    "one sample with a time and one span that was at work on its thread then",
    ("ordered_samples", "tree"),
    compute,
    COLUMNS,
)

CODE_COLUMNS = {
    "entry_endpoint": "endpoint of the entry; null outside of entries, and when ambiguous",
    "entry_tool": "tool of the entry",
    "entry": "whether the samples belong to an entry",
    "ambiguous": "several entries were open on the thread, as on an event loop",
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
