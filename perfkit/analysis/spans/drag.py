"""The table `span_drag`: what each span costs its entry, and how much room it has.

Drag and total float (slack) of the critical path method (Devaux, "Total Project Control", 1999), on
the order of things in `span_waits` and under the rules of the replay in `what_if`: whatever waited
for a span moves with it, and own work in between stays as long as it was.

Both follow from one busy period of one parent at a time: what comes after a period waits for all of
it. Of its children, those that a child delays are itself and whatever waited for it in the period,
one after the other. Without that child the period ends as early as the latest of all others lets
it, and the entry gains the least that any span above lets through. A child can grow unnoticed until
the latest of what it delays reaches the period's end, and by what the spans above have room for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.forest import (
    Bools,
    Ints,
    along_path,
    marked_chains,
    nearest_marked,
    subtree_maxima,
)
from perfkit.analysis.vector.rows import indices

_EVERYTHING = np.iinfo(np.int64).max


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a span, in the order of `tree`."""
    waits = tables.frame("span_waits")
    entry = indices(tables.columns("tree", "entry_row")["entry_row"])
    order = _Order.of(
        *(indices(waits[name]) for name in ("parent_row", "before_row", "period_row"))
    )
    start, end = waits["start_ns"].to_numpy(), waits["end_ns"].to_numpy()
    waited = np.flatnonzero(order.period >= 0)
    # What comes after the period moves with its end.
    until = end[order.period[waited]]

    room = np.zeros(len(end), dtype=np.int64)
    room[waited] = until - subtree_maxima(order.before, end)[waited]
    slack = along_path(order.parent, room, np.add, 0)

    chain = marked_chains(order.before, order.period[waited])
    yields = np.full(len(end), _EVERYTHING)
    yields[waited] = np.where(
        chain[waited], until - _latest_other(order, chain, waited, start, end)[waited], 0
    )
    drag = np.minimum(end - start, along_path(order.parent, yields, np.minimum, _EVERYTHING))

    placed = entry == np.arange(len(entry))
    placed[waited] = entry[waited] >= 0
    return pl.DataFrame(
        {
            "row": np.arange(len(end)),
            "drag_ns": np.where(placed, drag, 0),
            "slack_ns": pl.Series(slack).set(pl.Series(~placed), None),
        }
    )


class _Order(NamedTuple):
    """What waits for what, as indices of rows."""

    parent: Ints
    before: Ints
    """The sibling of the same period that it waited for."""
    period: Ints

    @classmethod
    def of(cls, parent: Ints, before: Ints, period: Ints) -> _Order:
        """Take the columns of `span_waits`."""
        return cls(parent, np.where(period[before] == period, before, -1), period)


def _latest_other(order: _Order, chain: Bools, waited: Ints, start: Ints, end: Ints) -> Ints:
    """Return for each span of a chain when the last of the siblings ends that it does not delay.

    The chain of a period leads from its last child back over what each waited for. A span of it
    delays those after it in the chain, and whatever waited for one of these; so the others are
    those that hang on an earlier span of the chain, and those that hang on none.
    """
    hangs_on = nearest_marked(order.before, chain)[waited]
    free = waited[hangs_on < 0]
    latest_free = start[order.parent]
    np.maximum.at(latest_free, order.period[free], end[free])
    latest = end.copy()
    some = hangs_on >= 0
    np.maximum.at(latest, hangs_on[some], end[waited[some]])
    earlier = np.where(chain, order.before, -1)
    until_now = along_path(earlier, latest, np.maximum, 0)
    result = latest_free[order.period]
    later = np.flatnonzero(earlier >= 0)
    result[later] = np.maximum(result[later], until_now[earlier[later]])
    return result


DERIVED = Derived(
    "span_drag",
    "one span: what it costs its entry, and how much room it has",
    ("tree", "span_waits"),
    compute,
    {
        "row": "the span, as in `tree`",
        "drag_ns": "how much shorter its entry would be if it and all below it took no time; "
        "0 off the critical path, and where something parallel takes as long",
        "slack_ns": "how much longer it could take before its entry does; null for spans that "
        "nobody waits for or that have no length",
    },
)
