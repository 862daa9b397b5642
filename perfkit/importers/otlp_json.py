"""OTLP JSON: one document, or one a line as the collector's file exporter writes them."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import otlp
from perfkit.importers import otlp_answers, otlp_salvage
from perfkit.importers.base import HEAD_BYTES, Format, Source

NAME = "otlp-json"
FORMAT = Format(
    title="OTLP JSON, one document or one a line",
    made_by="the OpenTelemetry collector's file exporter, any OTLP/JSON exporter, Jaeger's "
    "`/api/v3/traces`, Grafana Tempo's `/api/traces/ID`",
    recognised_by="`resourceSpans` or `resourceMetrics` as first member, also within `result`, "
    "`trace`, or as `batches`",
    gives="spans, span events, span links, metrics",
    lacks="nothing; logs are refused",
    tried="OpenTelemetry JS 0.223.1",
)

_START = re.compile(
    rb'\s*\{\s*"(?:resource(?:Spans|Metrics|Logs)|resource_(?:spans|metrics|logs))"\s*:'
)
_END_BYTES = 64
_LARGE_BYTES = 16 << 20
_PLACEHOLDER = re.compile(rb'"\w*(?:[Tt]ime|_time)\w*"\s*:\s*([A-Z_]{3,}|\{\{[^}]*\}\}|\$\{?\w+)')


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the first member's name."""
    del path
    return is_document(head) or otlp_answers.is_answer(head)


def is_document(text: bytes) -> bool:
    """Whether a text begins as OTLP JSON does."""
    return _START.match(text) is not None


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all spans and metrics; logs are counted as rejected."""
    if _one_document_a_line(source):
        for number, line in source.lines():
            with source.record():
                _add(source, writer, otlp_answers.unwrapped(line), f", line {number}")
        return
    content = source.contents()
    if otlp_answers.is_answer(content[:HEAD_BYTES]):
        content = otlp_answers.unwrapped(bytes(content))
    large = len(content) > _LARGE_BYTES and not otlp.is_old_json(content[:HEAD_BYTES])
    problem = otlp_salvage.problem(content, large=large) if source.on_damage is not None else None
    if problem is not None:
        _add_good_ones(source, writer, content, problem)
    elif large:
        _add_in_pieces(source, writer, content)
    else:
        _add(source, writer, bytes(content), "")


def _add_good_ones(
    source: Source, writer: CaptureWriter, content: bytes | mmap.mmap, problem: InputError
) -> None:
    """Read what is whole of a damaged document, and say where others begin."""
    found = 0
    for offset, document in otlp_salvage.records(content):
        try:
            for batch in otlp.from_json(document):
                writer.add(batch)
                found += 1
        except InputError as error:
            source.pass_over(source.error(error.message, offset=offset))
    if not found:
        raise InputError(problem.message, where=str(source), hint=problem.hint)
    writer.lose("document that is damaged", 1, "its whole spans and metrics are kept")
    writer.note(
        f"{source.name} is damaged ({problem.message}): its whole spans and metrics are kept"
    )


def _one_document_a_line(source: Source) -> bool:
    """Whether the first line is a document of its own and another line follows.

    A line may be as long as the file, so no more than its end is kept.
    """
    end = b""
    ended = False
    for chunk in source.chunks(quietly=True):
        rest = chunk
        if not ended:
            rest = rest if end else rest.lstrip()
            line, newline, rest = rest.partition(b"\n")
            end = (end + line[-_END_BYTES:])[-_END_BYTES:]
            ended = bool(newline)
            if ended and not end.rstrip().endswith(b"}"):
                return False
        if ended and rest.strip():
            return True
    return False


def _add_in_pieces(source: Source, writer: CaptureWriter, content: bytes | mmap.mmap) -> None:
    """Read a large document so that only some thousand spans at a time become objects."""
    passed_over = source.pass_over if source.on_damage is not None else None
    for share, batch in otlp.from_large_json(content, passed_over):
        writer.add(batch)
        source.share(share)


def _add(source: Source, writer: CaptureWriter, document: bytes, place: str) -> None:
    try:
        batches = otlp.from_json(document)
    except InputError as error:
        hint = error.hint
        if placeholder := _PLACEHOLDER.search(document):
            name = placeholder[1].decode("ascii", "replace")[:40]
            hint = f"it is a template: fill in the placeholder {name} and the like first"
        where = f"{source}{place}"
        raise InputError(error.message, where=where, hint=hint, part=error.part) from error
    for batch in batches:
        writer.add(batch)
