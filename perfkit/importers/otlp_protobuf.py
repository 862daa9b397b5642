"""OTLP protobuf: a request body, TracesData or MetricsData, or several of them joined.

The three are the same on the wire, and joined messages are one message with all their parts. So a
file is cut between its top-level fields into pieces that are decoded one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import otlp, otlp_columns
from perfkit.formats.wire_fields import (
    FIXED64,
    LENGTH,
    VARINT,
    Content,
    CutOffError,
    Field,
    field,
    fields,
    first,
)
from perfkit.importers.base import Format, Source

NAME = "otlp-protobuf"
FORMAT = Format(
    title="OTLP protobuf",
    made_by="any OTLP exporter: the body of a request, or several joined",
    recognised_by="its field numbers and lengths",
    gives="spans, span events, span links, metrics",
    lacks="nothing; logs are refused",
)

_PIECE_BYTES = 4 << 20


def sniff(head: bytes, path: Path) -> bool:
    """Recognise resources with scopes in them by their field numbers and lengths."""
    del path
    group = first(head, 0, len(head))
    if group is None or (group.number, group.wire_type) != (1, LENGTH):
        return False
    resource = first(head, group.value, group.end)
    if resource is None or resource.number not in (1, 2) or resource.wire_type != LENGTH:
        return False
    if resource.end > group.end:
        return False
    inner = first(head, resource.value, resource.end)
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


def _pieces(source: Source, content: Content) -> Iterator[tuple[int, int]]:
    start = end = 0
    while end < len(content):
        try:
            group = field(content, end, len(content))
        except CutOffError as error:
            raise source.error("cut off, or not OTLP protobuf", offset=end) from error
        if group.number != 1 or group.wire_type != LENGTH:
            raise source.error("not OTLP protobuf", offset=end)
        if group.end > len(content):
            raise source.error("cut off in the middle of a resource", offset=end)
        end = group.end
        if end - start >= _PIECE_BYTES:
            yield start, end
            start = end
    if end > start:
        yield start, end


def signal(content: Content) -> Literal["traces", "metrics", "logs"]:
    """Tell spans, metrics and log records apart by the fields of the first one."""
    for record in _records(content):
        seen = {(one.number, one.wire_type) for one in fields(content, record)}
        if (1, FIXED64) in seen or (11, FIXED64) in seen:
            return "logs"  # time, observed time
        if (7, FIXED64) in seen or (8, FIXED64) in seen or (6, VARINT) in seen:
            return "traces"  # start, end, kind
        if any((number, LENGTH) in seen for number in (7, 9, 10, 11)):
            return "metrics"  # sum, histograms, summary
        return "metrics" if (5, LENGTH) in seen and (4, LENGTH) not in seen else "traces"
    return "traces"


def _records(content: Content) -> Iterator[Field]:
    whole = Field(0, LENGTH, 0, 0, len(content))
    for group in fields(content, whole):
        for part in fields(content, group):
            if part.number == 2 and part.wire_type == LENGTH:
                for record in fields(content, part):
                    if record.number == 2 and record.wire_type == LENGTH:
                        yield record
