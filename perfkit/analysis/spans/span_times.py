"""The table `span_times`: where the time of each span went."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.tree import waiting_parents_of
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.overlaps import covered
from perfkit.analysis.vector.rows import indices

_READ = ("parent_row", "detached", "start_ns", "end_ns", "calls_server")


def compute(tables: Tables) -> pl.DataFrame:
    """Return self time, client-server gap and time on the critical path of every span."""
    tree = tables.columns("tree", *_READ)
    own = self_times(tree)
    remote = tree["calls_server"].to_numpy()
    return pl.DataFrame(
        {
            "row": np.arange(tree.height),
            "self_ns": np.where(remote, 0, own),
            "gap_ns": np.where(remote, own, 0),
            "critical_ns": critical_times(tables.frame("span_waits")),
        }
    )


def critical_times(waits: pl.DataFrame) -> Ints:
    """Return how long each span lies on the critical path itself: the pieces of `critical_path`.

    Its children on the path run one after the other within it, so that is what they leave of it.
    """
    length = (waits["end_ns"] - waits["start_ns"]).to_numpy()
    length = np.where(waits["critical"].to_numpy(), length, 0)
    parent = indices(waits["parent_row"])
    child = np.flatnonzero((parent >= 0) & (length > 0))
    result = length.copy()
    np.subtract.at(result, parent[child], length[child])
    return result


def self_times(tree: pl.DataFrame) -> Ints:
    """Return each span's time minus the union of its children's, clipped to it."""
    parent = waiting_parents_of(tree)
    start, end = tree["start_ns"].to_numpy(), tree["end_ns"].to_numpy()
    child = np.flatnonzero(parent >= 0)
    # Rows are depth-first with siblings by start, so a stable sort by parent is all it takes.
    child = child[np.argsort(parent[child], kind="stable")]
    above = parent[child]
    clipped_start = np.clip(start[child], start[above], end[above])
    clipped_end = np.clip(end[child], start[above], end[above])
    children = covered(above, clipped_start, clipped_end, tree.height)
    own: Ints = end - start - children
    return own


DERIVED = Derived(
    "span_times",
    "one span: where its time went",
    ("tree", "span_waits"),
    compute,
    {
        "row": "the span, as in `tree`",
        "self_ns": "its time in which no child that it waited for was running",
        "gap_ns": "the same for a client span above its server's span: network and queueing, "
        "which is no work of the caller",
        "critical_ns": "self or gap time that lies on the critical path of its entry",
    },
)
