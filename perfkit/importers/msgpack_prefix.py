"""What is whole of damaged MessagePack: for `--keep-going`.

https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

Content = bytes | mmap.mmap

# First byte -> bytes that follow it.
_FIXED = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1, 0xD4), 2),
    0xD5: 3,
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    0xD6: 5,
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
    0xD7: 9,
    0xD8: 17,
}
# First byte -> (bytes of the length that follows it, bytes besides those that the length says).
_SIZED = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
# First byte -> (bytes of the count that follows it, values of each).
_LISTS = (*range(0x90, 0xA0), 0xDC, 0xDD)
_GROUPS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def elements(content: Content, at: int) -> Iterator[tuple[int, int | None]]:
    """Yield (begin, end) of each element of the list at `at`; null is the end of one that is cut.

    Raises ValueError for what is no list.
    """
    head = _head(content, at)
    if head is None or content[at] not in _LISTS:
        raise ValueError("no list")
    at, count = head
    for _ in range(count):
        end = _end(content, at)
        yield at, end
        if end is None:
            return
        at = end


def _end(content: Content, at: int) -> int | None:
    """Return where a value ends; null when it is cut off."""
    waiting = 1
    while waiting:
        head = _head(content, at)
        if head is None:
            return None
        at, within = head
        waiting += within - 1
    return at if at <= len(content) else None


def _head(content: Content, at: int) -> tuple[int, int] | None:
    """Return where a value goes on after its own bytes, and how many values are in it."""
    if at >= len(content):
        return None
    first = content[at]
    at += 1
    if first <= 0x7F or first >= 0xE0:
        return at, 0
    if first <= 0x8F:
        return at, 2 * (first & 15)
    if first <= 0x9F:
        return at, first & 15
    if first <= 0xBF:
        return at + (first & 31), 0
    if first in _FIXED:
        return at + _FIXED[first], 0
    if first in _GROUPS:
        width, each = _GROUPS[first]
        return at + width, each * int.from_bytes(content[at : at + width], "big")
    if first in _SIZED:
        width, more = _SIZED[first]
        return at + width + more + int.from_bytes(content[at : at + width], "big"), 0
    return None
