"""Is an idle frame a wait for a lock? Judged by what the other threads do meanwhile.

Taking a `threading.Lock` is a call into C that leaves no frame, so a thread that waits looks like
one that reads a file or sleeps. But while a thread waits for a lock, exactly one other thread is
past the line that takes it: further down in the same function, or in a caller further down, as far
as the lock is held. That is what is measured here, with no knowledge of the source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths, Ints
from perfkit.analysis.vector.intervals import Changes

_CALLERS = 2
"""In how many callers up the lock may be held: a function whose only task is to take it has one."""
_ENDS = 6
"""How many lines are tried for the last one under the lock."""


def confidences(
    paths: pl.DataFrame,
    samples: pl.DataFrame,
    waiting: Sequence[pl.DataFrame],
    hardly_run: Sequence[bool],
) -> list[float]:
    """Return, for each set of samples that wait at one line, how certain it is that it is a lock.

    `samples` are all samples with a length: `path`, `pid`, `ts_ns`, `duration_ns`. `waiting` have
    the same columns, and `run`, the number of the wait; `hardly_run` says of each whether threads
    are hardly ever seen running at that line.

    The answer, from 0 to 1, is the share of the waiting time in which exactly one other thread of
    the process was past the line, times the share of the time with anyone past the line in which it
    was only one, times n / (n + 1) for n waits, as a single one may be chance. Up to which line the
    lock is held is not known. To the end of the function, if threads also run at the waiting line:
    they may wait for the interpreter, which one thread has at a time, too. Otherwise of those lines
    that are tried the one that fits best. This measure is our own.
    """
    tree = CallPaths.of(paths)
    code = (paths["own"] | (paths["category"] == "library")).fill_null(False)
    past = [
        _past(paths, tree, code, _longest(waits), _ENDS if hardly else 1)
        for waits, hardly in zip(waiting, hardly_run, strict=True)
    ]
    concerned = np.zeros(paths.height, dtype=np.bool_)
    for nodes in (nodes for regions in past for nodes in regions):
        concerned[nodes] = True
    # Of many samples few are past any such line.
    holding = _ByPath(
        tree, samples.filter(pl.Series(tree.under(concerned)).gather(samples["path"]))
    )
    result = []
    for waits, regions in zip(waiting, past, strict=True):
        best = max((_exclusive(waits, holding.below(nodes)) for nodes in regions), default=0.0)
        count = waits["run"].n_unique()
        result.append(best * count / (count + 1))
    return result


def _longest(waits: pl.DataFrame) -> int:
    """Return the path of most of the waiting; the callers of a line may differ."""
    by_path = waits.group_by("path").agg(pl.col("duration_ns").sum())
    return int(by_path.sort("duration_ns", "path", descending=[True, False])["path"][0])


def _past(
    paths: pl.DataFrame, tree: CallPaths, code: pl.Series, path: int, most: int
) -> list[Ints]:
    """Return what may be under the lock, each as its topmost frames.

    It is what is between the waiting line and one of at most so many lines further down in its
    function; and the same in its callers.
    """
    regions: list[Ints] = []
    node: int | None = path
    levels = 0
    while node is not None and levels <= _CALLERS:
        function, file, line, above = paths.select("function", "file", "line", "parent").row(node)
        if code[node] and None not in (function, file, line):
            levels += 1
            further = (
                (paths["function"] == function) & (paths["file"] == file) & (paths["line"] > line)
            ).fill_null(False)
            for end in _ends(paths["line"].filter(further).unique().sort(), most):
                under = further & (paths["line"] <= end).fill_null(False)
                regions.append(np.flatnonzero(tree.topmost(under.to_numpy())))
        node = above
    return regions


def _ends(lines: pl.Series, most: int) -> list[int]:
    """Choose some of the lines, evenly, the last with them."""
    chosen = np.linspace(len(lines) - 1, 0, min(most, len(lines))).round().astype(np.int64)
    return [int(line) for line in lines.gather(chosen)]


class _ByPath:
    """Samples sorted by path, so that those below a node are next to each other."""

    def __init__(self, tree: CallPaths, samples: pl.DataFrame) -> None:
        self._tree = tree
        self._samples = samples.select("path", "pid", "ts_ns", "duration_ns").sort("path")
        self._path = self._samples["path"].to_numpy()

    def below(self, nodes: Ints) -> pl.DataFrame:
        """Return the samples with one of the nodes on their path; the nodes are not nested."""
        first = np.searchsorted(self._path, nodes)
        counts = np.searchsorted(self._path, self._tree.end[nodes]) - first
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows: Ints = np.repeat(first, counts) + offsets
        return self._samples[rows]


def _exclusive(waiting: pl.DataFrame, holding: pl.DataFrame) -> float:
    pids = pl.concat([waiting["pid"], holding["pid"]]).rank("dense").fill_null(0).to_numpy()
    group = pids.astype(np.int64)
    start = pl.concat([waiting["ts_ns"], holding["ts_ns"]]).to_numpy()
    end = start + pl.concat([waiting["duration_ns"], holding["duration_ns"]]).to_numpy()
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
