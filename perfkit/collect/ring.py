"""A capture that keeps only its newest part: the oldest parts are removed as new ones come.

A part goes when its newest row is older than the bound, so at least that much is always there.
Stacks and frames stay, without a bound: samples that are kept name them, and they grow with the
code that is seen, not with time (docs/performance.md says how fast).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfkit.compact import Part

_KEPT = frozenset({"stacks", "frames"})


@dataclass(frozen=True)
class Bounds:
    """What a ring may hold; null is no bound."""

    age_ns: int | None = None
    size_bytes: int | None = None
    spans: int | None = None


def forget(parts: list[Part], bounds: Bounds) -> dict[str, Any]:
    """Remove the oldest of `parts`, which are in the order in which they were written.

    Returns how that changes what a compaction reports. Raises OSError.
    """
    rows: dict[str, int] = {}
    size_bytes = sum(part.size_bytes for part in parts)
    spans = sum(part.rows for part in parts if part.table == "spans")
    oldest_ns = time.time_ns() - bounds.age_ns if bounds.age_ns is not None else 0
    removed_bytes = 0
    for part in [part for part in parts if part.table not in _KEPT]:
        if not (
            # Nothing in a part is newer than the part.
            part.written_ns < oldest_ns
            or (bounds.size_bytes is not None and size_bytes > bounds.size_bytes)
            or (bounds.spans is not None and spans > bounds.spans)
        ):
            break
        part.path.unlink(missing_ok=True)
        parts.remove(part)
        rows[part.table] = rows.get(part.table, 0) + part.rows
        size_bytes -= part.size_bytes
        removed_bytes += part.size_bytes
        spans -= part.rows if part.table == "spans" else 0
    return {
        "rows": {table: -count for table, count in rows.items()},
        "forgotten": rows,
        "size_bytes": -removed_bytes,
    }
