"""Clock skew between hosts: a called span that does not fit into its call is moved into it.

The rule is that of Jaeger's clock-skew adjuster (jaeger, `internal/.../adjuster/clockskew.go`):
only spans of another host than their parent's are looked at; one that already fits stays; one that
is longer than its parent is moved only if it starts too early; any other is centred in its parent,
as if the network took as long there as back. Spans of the same host below it move with it.

Stricter than Jaeger in one point: unless a client and its server are known as such by their kind,
only a start before the parent's is taken for skew, since work that goes on after its caller is
ordinary there.
"""

from __future__ import annotations

import numpy as np

from perfkit.analysis.spans.recorded import Recorded
from perfkit.analysis.vector.forest import Bools, Ints, along_path, nearest_marked

_FARTHEST_NS = 1 << 61
"""No clock is farther off; damaged times must not overflow."""


def shifts(spans: Recorded, parent: Ints, start: Ints, duration: Ints, apart: Bools) -> Ints:
    """Return by how much each span is to be moved, in ns; mostly 0.

    `apart` marks spans whose parent does not wait for them: they are not expected to fit.
    """
    count = len(parent)
    shift = np.zeros(count, dtype=np.int64)
    crossing = _other_host(spans, parent) & ~apart
    edges = np.flatnonzero(crossing)
    if not edges.size:
        return shift
    calls = _is_call(spans, parent, edges)
    suspects = edges[_move(edges, parent, start, duration, calls, shift[edges]) != 0]
    if not suspects.size:
        return shift

    # One host's part of a trace moves as one: its top decides. Only parts at or below a suspect
    # can move, and a part is decided after the one above it.
    tops = crossing | (parent < 0) | apart
    top = nearest_marked(parent, tops)
    suspected = np.zeros(count, dtype=np.int64)
    suspected[suspects] = 1
    below_suspect = along_path(parent, suspected, np.maximum, 0).astype(np.bool_)
    level = along_path(parent, crossing.astype(np.int64), np.add, 0)
    call_of = np.zeros(count, dtype=np.bool_)
    call_of[edges] = calls
    todo = edges[below_suspect[edges]]
    todo = todo[np.argsort(level[todo], kind="stable")]
    for wave in np.split(todo, np.flatnonzero(np.diff(level[todo])) + 1):
        moved = shift[top[parent[wave]]]
        wanted = _move(wave, parent, start, duration, call_of[wave], moved)
        shift[wave] = np.clip(wanted, -_FARTHEST_NS, _FARTHEST_NS)
    return shift[top]


def _other_host(spans: Recorded, parent: Ints) -> Bools:
    result: Bools = (parent >= 0) & (spans.host != spans.host[parent])
    return result


def _is_call(spans: Recorded, parent: Ints, edges: Ints) -> Bools:
    calls: Bools = spans.is_kind("server")[edges] & spans.is_kind("client")[parent[edges]]
    return calls


def _move(
    child: Ints, parent: Ints, start: Ints, duration: Ints, calls: Bools, moved_above: Ints
) -> Ints:
    """Return the shift of each child, given the shift of the part that its parent is in."""
    above = parent[child]
    early = start[above] + moved_above - start[child]
    room = duration[above] - duration[child]
    fits = (early <= 0) & (early + room >= 0)
    centred = early + room // 2
    return np.where(
        room < 0, np.maximum(early, 0), np.where(fits | (~calls & (early <= 0)), 0, centred)
    )
