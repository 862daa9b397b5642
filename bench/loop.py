"""The same numbers by a tight Python loop over the same columns."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

# Imported here so that the time measured is the work's own.
import perfkit.analysis  # noqa: F401
from perfkit.analysis.session import Tables
from perfkit.capture import Capture

Child = tuple[int, int, int]
"""End, minus start, and row of a child, both clipped to its parent."""


def times_loop(capture: str) -> list[int]:
    """Return the sums over all spans of depth, subtree, self time and time on a critical path.

    Of spans with sound parents only: it looks for no cycles, no skew, no duplicates.
    """
    columns = ("trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "duration_ns")
    frame = Capture.open(Path(capture)).table("spans").select(columns).collect()
    rows = frame.rows()
    place = {(hi, lo, span): row for row, (hi, lo, span, *_) in enumerate(rows)}
    parent = [
        -1 if above is None else place.get((hi, lo, above), -1) for hi, lo, _, above, _, _ in rows
    ]
    start = [row[4] for row in rows]
    end = [row[4] + row[5] for row in rows]
    children: defaultdict[int, list[int]] = defaultdict(list)
    for row, above in enumerate(parent):
        if above >= 0:
            children[above].append(row)

    depth, subtree = [0] * len(rows), [1] * len(rows)
    own, critical = [0] * len(rows), [0] * len(rows)
    order: list[int] = []
    for root, above in enumerate(parent):
        if above >= 0:
            continue
        todo = [root]
        while todo:
            row = todo.pop()
            order.append(row)
            for child in children.get(row, ()):
                depth[child] = depth[row] + 1
                todo.append(child)
        _walk(root, start, end, children, critical)
    for row in reversed(order):
        if parent[row] >= 0:
            subtree[parent[row]] += subtree[row]
    for row in order:
        begin, finish = start[row], end[row]
        covered, reached = 0, begin
        for left, right in sorted((start[child], end[child]) for child in children.get(row, ())):
            left, right = max(left, reached), min(right, finish)
            if right > left:
                covered += right - left
                reached = right
        own[row] = finish - begin - covered
    return [sum(depth), sum(subtree), sum(own), sum(critical)]


def _walk(
    root: int,
    start: list[int],
    end: list[int],
    children: defaultdict[int, list[int]],
    critical: list[int],
) -> None:
    """Add up the critical path of one entry, from its end to its start."""
    todo = [(root, start[root], end[root])]
    while todo:
        row, begin, until = todo.pop()
        kids: list[Child] = []
        for child in children.get(row, ()):
            left, right = max(start[child], begin), min(end[child], until)
            if left < right:
                kids.append((right, -left, child))
        kids.sort()
        for right, left, child in reversed(kids):
            if right <= until:
                critical[row] += until - right
                todo.append((child, -left, right))
                until = -left
        critical[row] += until - begin


def times_columns(capture: str) -> list[int]:
    """Return the same sums from perfkit's tables."""
    tables = Tables(Capture.open(Path(capture)))
    tree, times = tables.columns("tree", "depth", "subtree"), tables.frame("span_times")
    own = times["self_ns"] + times["gap_ns"]
    return [
        int(values.sum()) for values in (tree["depth"], tree["subtree"], own, times["critical_ns"])
    ]
