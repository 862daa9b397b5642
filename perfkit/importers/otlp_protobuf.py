"""OTLP protobuf: a request body, TracesData or MetricsData, or several of them joined.

The three are the same on the wire, and joined messages are one message with all their parts. So a
file is cut between its top-level fields into pieces that are decoded one after the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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
    Field,
    fields,
    first,
)
from perfkit.importers import otlp_salvage
from perfkit.importers.base import Format, Source

NAME = "otlp-protobuf"
FORMAT = Format(
    title="OTLP protobuf",
    made_by="any OTLP exporter: the body of a request, or several joined",
    recognised_by="its field numbers and lengths",
    gives="spans, span events, span links, metrics",
    lacks="nothing; logs are refused",
    tried="OpenTelemetry Python 1.45.1 and JS 0.223.1",
)

_PIECE_BYTES = 16 << 20
"""Some 35,000 spans: of a quarter as much each takes an eighth longer, and 60 MB less memory."""


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
    if signal(content) == "logs":
        raise InputError("OTLP logs, which perfkit does not read; give it traces or metrics")
    add(source, writer, content)


def add(
    source: Source,
    writer: CaptureWriter,
    content: Content,
    offset_of: Callable[[int], int] = lambda at: at,
) -> None:
    """Read the spans or metrics of a message; `offset_of` is where in the file its bytes are."""
    take = _add_metrics if signal(content) == "metrics" else _add_spans
    try:
        for start, end in _pieces(content):
            source.share(start / len(content))
            try:
                take(writer, content[start:end])
            except InputError as error:
                bad = None
                for bad, problem in _add_good_ones(writer, take, content, start, end):
                    at = offset_of(bad)
                    source.pass_over(source.error(problem.message, offset=at, hint=error.hint))
                if bad is None:
                    at = offset_of(start)
                    source.pass_over(source.error(error.message, offset=at, hint=error.hint))
    except _TornError as torn:
        if rest := otlp_salvage.complete(content, torn.at, len(content)):
            with contextlib.suppress(InputError):  # the one below says more
                take(writer, rest)
        raise source.error(torn.message, offset=offset_of(torn.at)) from torn


class _TornError(InputError):
    """A damaged outermost field, after which none can be found."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


def _add_spans(writer: CaptureWriter, body: bytes) -> None:
    for spans, others in otlp_columns.read([body]):
        writer.append("spans", spans)
        writer.add(others)


def _add_metrics(writer: CaptureWriter, body: bytes) -> None:
    writer.add(otlp.metrics_from_protobuf(body))


def _add_good_ones(
    writer: CaptureWriter,
    take: Callable[[CaptureWriter, bytes], None],
    content: Content,
    start: int,
    end: int,
) -> Iterator[tuple[int, InputError]]:
    """Add the spans or metrics of a damaged piece that can be read; yield where others are."""
    for at, body in otlp_salvage.singly(content, start, end):
        try:
            take(writer, body)
        except InputError as problem:
            yield at, problem


def _pieces(content: Content) -> Iterator[tuple[int, int]]:
    start = end = 0
    while end < len(content):
        group = first(content, end, len(content))
        problem = None
        if group is None:
            problem = "cut off, or not OTLP protobuf"
        elif group.number != 1 or group.wire_type != LENGTH:
            problem = "not OTLP protobuf"
        elif group.end > len(content):
            problem = "cut off in the middle of a resource"
        if group is None or problem is not None:
            if end > start:
                yield start, end
            raise _TornError(problem or "", end)
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
