"""A capture that keeps only its newest part: the oldest parts are removed as new ones come.

A part goes when its newest row is older than the bound, so at least that much is always there.
Samples name stacks and frames, which are written once. So that these go too, they are written anew
from time to time: a generation of them goes with the last part of samples that may name them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfkit.compact import Part, SegmentCompactor

_NAMED_BY_SAMPLES = frozenset({"stacks", "frames"})
_GENERATIONS = 8
"""How many of them a full ring holds. Our own number: the more there are, the less outlives its
samples, and the more often the same stacks are written."""


@dataclass(frozen=True)
class Bounds:
    """What a ring may hold; null is no bound."""

    age_ns: int | None = None
    size_bytes: int | None = None
    spans: int | None = None


def forget(segments: SegmentCompactor, bounds: Bounds) -> dict[str, Any]:
    """Remove the oldest parts that were written until the rest is within the bounds.

    Returns how that changes what a compaction reports. Raises OSError.
    """
    now_ns = time.time_ns()
    if _is_full(segments, bounds, now_ns):
        segments.renew_stacks()
    rows: dict[str, int] = {}
    removed_bytes = 0
    for part in _to_remove(segments.parts, segments.generation, bounds, now_ns):
        part.path.unlink(missing_ok=True)
        segments.parts.remove(part)
        rows[part.table] = rows.get(part.table, 0) + part.rows
        removed_bytes += part.size_bytes
    return {
        "rows": {table: -count for table, count in rows.items()},
        "forgotten": rows,
        "size_bytes": -removed_bytes,
    }


def _is_full(segments: SegmentCompactor, bounds: Bounds, now_ns: int) -> bool:
    """Say whether the stacks that come next belong to a new generation."""
    newest = [
        part
        for part in segments.parts
        if part.generation == segments.generation and part.table in _NAMED_BY_SAMPLES
    ]
    if not newest:
        return False
    age_ns, size_bytes = now_ns - newest[0].written_ns, sum(part.size_bytes for part in newest)
    return (bounds.age_ns is not None and age_ns * _GENERATIONS >= bounds.age_ns) or (
        bounds.size_bytes is not None and size_bytes * _GENERATIONS >= bounds.size_bytes
    )


def _to_remove(parts: list[Part], generation: int, bounds: Bounds, now_ns: int) -> list[Part]:
    """Choose parts, in the order in which they are to go: stacks after the samples that name them.

    `parts` are in the order in which they were written; `generation` is the one that still grows.
    """
    oldest_ns = now_ns - bounds.age_ns if bounds.age_ns is not None else 0
    size_bytes = sum(part.size_bytes for part in parts)
    spans = sum(part.rows for part in parts if part.table == "spans")
    samples = [part.generation for part in parts if part.table == "samples"]
    named = [part for part in parts if part.table in _NAMED_BY_SAMPLES]
    removed: list[Part] = []

    def remove(part: Part) -> None:
        nonlocal size_bytes, spans
        removed.append(part)
        size_bytes -= part.size_bytes
        spans -= part.rows if part.table == "spans" else 0

    def remove_unnamed() -> None:
        oldest = min([generation, *samples])
        while named and named[0].generation < oldest:
            remove(named.pop(0))

    remove_unnamed()
    for part in parts:
        if part.table in _NAMED_BY_SAMPLES:
            continue
        if not (
            # Nothing in a part is newer than the part.
            part.written_ns < oldest_ns
            or (bounds.size_bytes is not None and size_bytes > bounds.size_bytes)
            or (bounds.spans is not None and spans > bounds.spans)
        ):
            break
        remove(part)
        if part.table == "samples":
            samples.remove(part.generation)
            remove_unnamed()
    return removed
