"""Parents of spans that do not say theirs, from their times."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_OPEN = 2**63


def enclosing(
    intervals: Sequence[tuple[int, int | None]], roots: Collection[int]
) -> tuple[list[int | None], int]:
    """Return for each interval (start, end) the smallest one that encloses it, and a count.

    An interval without an end is open: it encloses all that begins after it, and lies in what
    encloses its start. Of equal intervals the earlier in the sequence encloses the later; among
    enclosing ones of one size the one that began last, then the later in the sequence, wins.
    `roots` have no parent. The count is of intervals that several roots enclose, so that their root
    is a guess.
    """
    reach = [_OPEN if end is None else end for _, end in intervals]
    sizes = [_OPEN if end is None else end - start for start, end in intervals]
    order = sorted(range(len(intervals)), key=lambda i: (intervals[i][0], -reach[i], i))
    parents: list[int | None] = [None] * len(intervals)
    ambiguous = 0
    active: list[int] = []
    for index in order:
        start, end = intervals[index]
        needed = start if end is None else end
        active = [other for other in active if reach[other] >= start]
        if index not in roots:
            around = [other for other in active if reach[other] >= needed]
            # `active` is in the order of starts; reversed, so that the first of equals is the last.
            parents[index] = min(reversed(around), key=lambda other: sizes[other], default=None)
            ambiguous += sum(other in roots for other in around) > 1
        active.append(index)
    return parents, ambiguous
