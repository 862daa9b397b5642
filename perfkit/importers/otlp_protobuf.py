"""OTLP protobuf: a request body, TracesData or MetricsData, or several of them joined.

The three are the same on the wire, and joined messages are one message with all their parts. So a
file is cut between its top-level fields into pieces that are decoded one after the other.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import otlp, otlp_columns
from perfkit.importers.base import Format, Source

NAME = "otlp-protobuf"
FORMAT = Format(
    title="OTLP protobuf",
    made_by="any OTLP exporter: the body of a request, or several joined",
    recognised_by="its field numbers and lengths",
    gives="spans, span events, span links, metrics",
    lacks="nothing; logs are refused",
)

_Buffer: TypeAlias = bytes | mmap.mmap
_PIECE_BYTES = 4 << 20
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    wire_type: int
    start: int
    """Where its tag begins."""
    value: int
    """Where its value begins, after the length if it has one."""
    end: int


class _CutOffError(ValueError):
    """A field that does not fit into its surroundings, or is no field."""


def sniff(head: bytes, path: Path) -> bool:
    """Recognise resources with scopes in them by their field numbers and lengths."""
    del path
    group = _first(head, 0, len(head))
    if group is None or (group.number, group.wire_type) != (1, _LENGTH):
        return False
    resource = _first(head, group.value, group.end)
    if resource is None or resource.number not in (1, 2) or resource.wire_type != _LENGTH:
        return False
    if resource.end > group.end:
        return False
    inner = _first(head, resource.value, resource.end)
    # Attributes or the count of dropped ones in a resource, a scope or spans in their list.
    return resource.end == resource.value or (
        inner is not None and inner.number in (1, 2, 3) and inner.end <= resource.end
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all spans or metrics."""
    content = source.contents()
    found = signal(content)
    if found == "logs":
        raise InputError("OTLP logs, which perfkit does not read; give it traces or metrics")
    for start, end in _pieces(source, content):
        source.share(start / len(content))
        try:
            if found == "metrics":
                writer.add(otlp.metrics_from_protobuf(content[start:end]))
                continue
            for spans, others in otlp_columns.read([content[start:end]]):
                writer.append("spans", spans)
                writer.add(others)
        except InputError as error:
            raise source.error(error.message, offset=start, hint=error.hint) from error


def _pieces(source: Source, content: _Buffer) -> Iterator[tuple[int, int]]:
    start = end = 0
    while end < len(content):
        try:
            field = _field(content, end, len(content))
        except _CutOffError as error:
            raise source.error("cut off, or not OTLP protobuf", offset=end) from error
        if field.number != 1 or field.wire_type != _LENGTH:
            raise source.error("not OTLP protobuf", offset=end)
        if field.end > len(content):
            raise source.error("cut off in the middle of a resource", offset=end)
        end = field.end
        if end - start >= _PIECE_BYTES:
            yield start, end
            start = end
    if end > start:
        yield start, end


def signal(content: _Buffer) -> Literal["traces", "metrics", "logs"]:
    """Tell spans, metrics and log records apart by the fields of the first one."""
    for record in _records(content):
        seen = {(field.number, field.wire_type) for field in _fields(content, record)}
        if (1, _FIXED64) in seen or (11, _FIXED64) in seen:
            return "logs"  # time, observed time
        if (7, _FIXED64) in seen or (8, _FIXED64) in seen or (6, _VARINT) in seen:
            return "traces"  # start, end, kind
        if any((number, _LENGTH) in seen for number in (7, 9, 10, 11)):
            return "metrics"  # sum, histograms, summary
        return "metrics" if (5, _LENGTH) in seen and (4, _LENGTH) not in seen else "traces"
    return "traces"


def _records(content: _Buffer) -> Iterator[_Field]:
    whole = _Field(0, _LENGTH, 0, 0, len(content))
    for group in _fields(content, whole):
        for part in _fields(content, group):
            if part.number == 2 and part.wire_type == _LENGTH:
                for record in _fields(content, part):
                    if record.number == 2 and record.wire_type == _LENGTH:
                        yield record


def _fields(content: _Buffer, inside: _Field) -> Iterator[_Field]:
    """Yield the fields inside one, up to the first that is damaged."""
    at = inside.value
    while at < inside.end:
        field = _first(content, at, inside.end)
        if field is None or field.end > inside.end:
            return
        yield field
        at = field.end


def _first(content: _Buffer, at: int, end: int) -> _Field | None:
    try:
        return _field(content, at, end)
    except _CutOffError:
        return None


def _field(content: _Buffer, start: int, end: int) -> _Field:
    """Read one field's header. Its value may end after `end`; the caller judges that."""
    tag, at = _varint(content, start, end)
    number, wire_type = tag >> 3, tag & 7
    if not number:
        raise _CutOffError
    if wire_type == _LENGTH:
        length, at = _varint(content, at, end)
        return _Field(number, wire_type, start, at, at + length)
    if wire_type == _VARINT:
        return _Field(number, wire_type, start, at, _varint(content, at, end)[1])
    if wire_type in (_FIXED64, _FIXED32):
        return _Field(number, wire_type, start, at, at + (8 if wire_type == _FIXED64 else 4))
    raise _CutOffError


def _varint(content: _Buffer, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= min(end, len(content)):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _CutOffError
