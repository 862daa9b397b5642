"""Is an idle frame a wait for a lock? Judged by what the other threads do meanwhile.

Taking a `threading.Lock` is a call into C that leaves no frame, so a thread that waits looks like
one that reads a file or sleeps. But while a thread waits for a lock, exactly one other thread is
past the line that takes it: further down in the same function, or in a caller further down. That is
what is measured here, with no knowledge of the source.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.call_paths import CallPaths, Flags, Ints
from perfkit.analysis.intervals import Changes

_CALLERS = 2
"""In how many callers up the lock may be held: a function whose only task is to take it has one."""


class Exclusion:
    """Measures how well the samples of a capture fit the idea that a line takes a lock."""

    def __init__(self, paths: pl.DataFrame, rows: pl.DataFrame) -> None:
        """Take `call_paths` and all samples with times and paths."""
        self._tree = CallPaths.of(paths)
        self._paths = paths
        self._rows = rows.sort("path").select("path", "pid", "ts_ns", "duration_ns")
        self._row_path = self._rows["path"].to_numpy()
        self._code = (paths["own"] | (paths["category"] == "library")).fill_null(False)

    def confidence(self, waiting: pl.DataFrame) -> float:
        """Return, from 0 to 1, how certain it is that these samples of one line wait for a lock.

        It is the share of the waiting time in which exactly one other thread of the process was
        past the line, times the share of the time with anyone past the line in which it was only
        one, times n / (n + 1) for n waits (column `run`), as a single one may be chance. This
        measure is our own.
        """
        longest = waiting.group_by("path").agg(pl.col("duration_ns").sum())
        path = longest.sort("duration_ns", "path", descending=[True, False])["path"][0]
        best = max((self._exclusive(waiting, past) for past in self._past(path)), default=0.0)
        waits = waiting["run"].n_unique()
        return best * waits / (waits + 1)

    def _past(self, path: int) -> list[Flags]:
        """Return which frames are past the waiting line: in its function, then in its callers."""
        regions: list[Flags] = []
        node: int | None = path
        while node is not None and len(regions) <= _CALLERS:
            function, file, line, node_above = self._paths.select(
                "function", "file", "line", "parent"
            ).row(node)
            if self._code[node]:
                below = (
                    (self._paths["function"] == function)
                    & (self._paths["file"] == file)
                    & (self._paths["line"] > line)
                )
                regions.append(below.fill_null(False).to_numpy())
            node = node_above
        return regions

    def _exclusive(self, waiting: pl.DataFrame, past: Flags) -> float:
        holding = self._rows[self._below(np.flatnonzero(self._tree.topmost(past)))]
        pids = pl.concat([waiting["pid"], holding["pid"]]).rank("dense").fill_null(0).to_numpy()
        group = pids.astype(np.int64)
        start = np.concatenate([waiting["ts_ns"].to_numpy(), holding["ts_ns"].to_numpy()])
        length = np.concatenate(
            [waiting["duration_ns"].to_numpy(), holding["duration_ns"].to_numpy()]
        )
        end = start + length
        changes = Changes.of(
            int(group.max(initial=0)) + 1, np.tile(group, 2), np.concatenate([start, end])
        )
        split = waiting.height
        start, end = changes.rank(start), changes.rank(end)
        (waiters,) = changes.sums(group[:split], start[:split], end[:split])
        (holders,) = changes.sums(group[split:], start[split:], end[split:])
        time = changes.length_ns()
        waited = time[waiters > 0].sum()
        held, held_by_one = time[holders > 0].sum(), time[holders == 1].sum()
        if not waited or not held:
            return 0.0
        covered = time[(waiters > 0) & (holders == 1)].sum()
        return float(covered / waited * (held_by_one / held))

    def _below(self, nodes: Ints) -> Ints:
        """Return which rows have one of the nodes on their path; the nodes are not nested."""
        first = np.searchsorted(self._row_path, nodes)
        last = np.searchsorted(self._row_path, self._tree.end[nodes])
        counts = last - first
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows: Ints = np.repeat(first, counts) + offsets
        return rows
