"""Protobuf's wire format, one field after the other: for the few fields around many messages.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

Content: TypeAlias = bytes | mmap.mmap


class Field(NamedTuple):
    """One field of a message, as positions in what holds it."""

    number: int
    wire_type: int
    start: int
    """Where its tag begins."""
    value: int
    """Where its value begins, after the length if it has one."""
    end: int


class CutOffError(ValueError):
    """A field that does not fit into its surroundings, or is no field."""


def fields(content: Content, inside: Field) -> Iterator[Field]:
    """Yield the fields inside one, up to the first that is damaged."""
    at = inside.value
    while at < inside.end:
        found = first(content, at, inside.end)
        if found is None or found.end > inside.end:
            return
        yield found
        at = found.end


def first(content: Content, at: int, end: int) -> Field | None:
    """Read a field's header as `field` does; None when there is none."""
    try:
        return field(content, at, end)
    except CutOffError:
        return None


def field(content: Content, start: int, end: int) -> Field:
    """Read one field's header. Its value may end after `end`; the caller judges that.

    Raises CutOffError.
    """
    tag, at = _varint(content, start, end)
    number, wire_type = tag >> 3, tag & 7
    if not number:
        raise CutOffError
    if wire_type == LENGTH:
        length, at = _varint(content, at, end)
        return Field(number, wire_type, start, at, at + length)
    if wire_type == VARINT:
        return Field(number, wire_type, start, at, _varint(content, at, end)[1])
    if wire_type in (FIXED64, FIXED32):
        return Field(number, wire_type, start, at, at + (8 if wire_type == FIXED64 else 4))
    raise CutOffError


def _varint(content: Content, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= min(end, len(content)):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise CutOffError
