"""OTLP JSON: one document, or one a line as the collector's file exporter writes them."""

from __future__ import annotations

import re
from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import otlp
from perfkit.importers.base import Format, Source

NAME = "otlp-json"
FORMAT = Format(
    title="OTLP JSON, one document or one a line",
    made_by="the OpenTelemetry collector's file exporter, any OTLP/JSON exporter",
    recognised_by="`resourceSpans` or `resourceMetrics` as first member",
    gives="spans, span events, span links, metrics",
    lacks="nothing; logs are refused",
)

_START = re.compile(
    rb'\s*\{\s*"(?:resource(?:Spans|Metrics|Logs)|resource_(?:spans|metrics|logs))"\s*:'
)
_END_OF_LINE = re.compile(rb"\}\s*$")
_PLACEHOLDER = re.compile(rb'"\w*(?:[Tt]ime|_time)\w*"\s*:\s*([A-Z_]{3,}|\{\{[^}]*\}\}|\$\{?\w+)')


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the first member's name."""
    del path
    return is_document(head)


def is_document(text: bytes) -> bool:
    """Whether a text begins as OTLP JSON does."""
    return _START.match(text) is not None


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all spans and metrics; logs are counted as rejected."""
    if _one_document_a_line(source):
        for number, line in source.lines():
            _add(source, writer, line, f", line {number}")
    else:
        _add(source, writer, source.read(), "")


def _one_document_a_line(source: Source) -> bool:
    """Whether the first line is a document of its own and another line follows."""
    lines = source.lines()
    first, second = next(lines, None), next(lines, None)
    return (
        first is not None
        and second is not None
        and _START.match(first[1]) is not None
        and _END_OF_LINE.search(first[1]) is not None
    )


def _add(source: Source, writer: CaptureWriter, document: bytes, place: str) -> None:
    try:
        batches = otlp.from_json(document)
    except InputError as error:
        hint = error.hint
        if placeholder := _PLACEHOLDER.search(document):
            name = placeholder[1].decode("ascii", "replace")[:40]
            hint = f"it is a template: fill in the placeholder {name} and the like first"
        raise InputError(error.message, where=f"{source}{place}", hint=hint) from error
    for batch in batches:
        writer.add(batch)
