"""The critical path of each entry: the chain of spans that sets its length.

Read from its end backwards, a span waited for its child that ended last; before that child began,
for the child that had ended last by then, and so on; between these the span itself worked. This
is the critical path of Jaeger's UI (jaeger-ui, `CriticalPath`) and of CRISP (Zhang et al., USENIX
ATC '22). Who waited for whom is in `span_waits`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.overlaps import order_by
from perfkit.analysis.vector.rows import indices


def compute(tables: Tables) -> pl.DataFrame:
    """Return the pieces of all critical paths; those of one entry latest first."""
    waits = tables.frame("span_waits")
    entry = indices(tables.columns("tree", "entry_row")["entry_row"])
    span_start, span_end = waits["start_ns"].to_numpy(), waits["end_ns"].to_numpy()
    parent, before, last = (
        indices(waits[name]) for name in ("parent_row", "before_row", "last_row")
    )
    # A span's own pieces: after its last child, and before each child that it waited for.
    spans = np.flatnonzero(waits["critical"].to_numpy())
    tail_start = np.where(last[spans] >= 0, span_end[last[spans]], span_start[spans])
    awaited = spans[parent[spans] >= 0]
    above, sibling = parent[awaited], before[awaited]
    gap_start = np.where(sibling >= 0, span_end[sibling], span_start[above])
    row = np.concatenate([spans, above])
    start = np.concatenate([tail_start, gap_start])
    end = np.concatenate([span_end[spans], span_start[awaited]])
    some = end > start
    row, start, end = row[some], start[some], end[some]
    latest_first = order_by(entry[row], -start, len(entry), stable=False)
    row, start, end = row[latest_first], start[latest_first], end[latest_first]
    return pl.DataFrame({"entry_row": entry[row], "row": row, "start_ns": start, "end_ns": end})


DERIVED = Derived(
    "critical_path",
    "one piece of an entry's critical path; those of one entry latest first",
    ("tree", "span_waits"),
    compute,
    {
        "entry_row": "the entry, a row of `tree`",
        "row": "the span that worked or waited by itself then",
        "start_ns": "start of this piece of the path",
        "end_ns": "end of it",
    },
)
