"""Records of requests as a service may log them: JSON lines, an array, or one object of the form::

    {"trace_id": "…", "timestamp": "2026-11-23T20:01:02Z",
     "request": {"method": "POST", "path": "/tools/invoke", "tool": "search", "duration_ms": 120.5},
     "spans": [{"name": "auth", "duration_ms": 3.1}, {"name": "db.query", "duration_ms": 80}],
     "resources": {"cpu_percent": 45.2, "memory_mb": 512, "db_connections": 15}}

The record says how long things took, not when. What is made up is said in notes: without
`timestamp` the requests are laid one after the other, and the spans of a request are laid end to
end in the order in which they are listed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perfkit import ids, units
from perfkit.batch import Batch
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import times
from perfkit.formats.attributes import json_object, resolve_span
from perfkit.formats.spans import MAX_DURATION_NS, MAX_TIME_NS, SpanBatch, origin
from perfkit.importers import json_stream
from perfkit.importers.base import Format, Source
from perfkit.semconv import Value

NAME = "request-records"
FORMAT = Format(
    title="Records of requests, JSON",
    made_by='your own program: `{"request": {"path": …, "duration_ms": …}, "spans": […]}`',
    recognised_by="an object `request` with a `duration_ms`",
    gives="spans, metrics",
    lacks="when spans began (laid end to end); when requests began, without a `timestamp`",
)

_METRIC_COLUMNS = ("ts_ns", "name", "unit", "kind", "value", "service", "attributes")


class _Request(msgspec.Struct):
    duration_ms: float
    method: str | None = None
    path: str | None = None
    tool: str | None = None


class _Part(msgspec.Struct):
    name: str
    duration_ms: float


class _Resources(msgspec.Struct):
    cpu_percent: float | None = None
    memory_mb: float | None = None
    db_connections: float | None = None


class _Record(msgspec.Struct):
    request: _Request
    trace_id: str | int | None = None
    timestamp: str | float | None = None
    service: str | None = None
    spans: list[_Part] | None = None
    resources: _Resources | None = None


_record = msgspec.json.Decoder(_Record)
_FORM = re.compile(rb'"request"\s*:\s*\{[^{}]*"duration_ms"\s*:')


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a request with its duration."""
    del path
    return head.lstrip()[:1] in (b"{", b"[") and _FORM.search(head) is not None


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all records."""
    records = list(_load(source))
    batch = SpanBatch()
    good = [record for record in records if _plausible(record)]
    if len(good) < len(records):
        batch.batch.reject("record with an implausible duration", len(records) - len(good))
    starts = _starts(source, writer, batch.batch, good)
    for number, (record, start_ns) in enumerate(zip(good, starts, strict=True)):
        if start_ns is not None:
            # All that is said of it: files of several machines have one name, and a record 0 each.
            said = msgspec.json.encode(record).decode()
            _add(batch, record, start_ns, f"{source.content_name} record {number} {said}")
    writer.add(batch.finish())
    if any(record.spans for record in good):
        writer.note(
            f"{source.name} says how long the spans of a request took, not when: they are "
            "laid end to end in the order of the record, which is an assumption"
        )
    if any(record.resources is not None for record in good):
        writer.note(
            f"{source.name}: cpu_percent is taken as per cent of one core and memory_mb as MiB"
        )


def _load(source: Source) -> Iterator[_Record]:
    try:
        for place, raw in json_stream.records(source):
            try:
                yield _record.decode(raw)
            except json_stream.BAD_JSON as error:
                source.pass_over(json_stream.refuse("a record of a request", place, error))
    except InputError as error:  # what is before the damage is laid out in time all the same
        source.pass_over(error)


def _plausible(record: _Record) -> bool:
    lengths = [record.request.duration_ms, *(part.duration_ms for part in record.spans or ())]
    return all(0 <= length <= MAX_DURATION_NS / 1e6 for length in lengths)


def _starts(
    source: Source, writer: CaptureWriter, batch: Batch, records: list[_Record]
) -> list[int | None]:
    """Return when each request began: as recorded, else one after the other."""
    starts = [_moment(record.timestamp) for record in records]
    missing = starts.count(None)
    if missing < len(records):
        if missing:
            batch.reject("record without a time, while others have one", missing)
        writer.note(f"{source.name}: timestamp is taken as the start of the request")
        return starts
    lengths = [_ns(record.request.duration_ms) for record in records]
    begin_ns = source.started_at_ns
    if begin_ns is None:
        begin_ns = max(0, source.modified_ns - sum(lengths))
    if records:
        writer.note(
            f"{source.name} has no times: its requests are laid one after the other from "
            f"{units.timestamp(begin_ns)}, so rates, concurrency and trends mean nothing; add a "
            '"timestamp" to each record'
        )
    placed: list[int | None] = []
    for length in lengths:
        placed.append(begin_ns if begin_ns < MAX_TIME_NS else None)
        begin_ns += length
    return placed


def _add(rows: SpanBatch, record: _Record, start_ns: int, unique: str) -> None:
    text = str(record.trace_id) if record.trace_id not in (None, "") else unique
    trace = ids.trace_id_from_text(text)
    source = origin({"service.name": record.service})
    request = record.request
    duration_ns = _ns(request.duration_ms)
    named: dict[str, Value] = {
        "http.request.method": request.method,
        "url.path": request.path,
        "gen_ai.tool.name": request.tool,
    }
    attributes = {key: value for key, value in named.items() if value}
    root_id = ids.span_id_from_text(f"{unique} request")
    name = " ".join(part for part in (request.method, request.path) if part) or "request"
    cursor_ns = start_ns
    spans: list[tuple[str, int | None, int | None, int, int, str, dict[str, Value]]] = [
        (name, root_id, None, start_ns, duration_ns, "server", attributes)
    ]
    for number, part in enumerate(record.spans or ()):
        length_ns = _ns(part.duration_ms)
        # Spans that do not fit one after the other overlapped: none reaches beyond its request.
        begin_ns = max(start_ns, min(cursor_ns, start_ns + duration_ns - length_ns))
        cursor_ns = begin_ns + length_ns
        own_id = ids.span_id_from_text(f"{unique} span {number}")
        spans.append((part.name, own_id, root_id, begin_ns, length_ns, "internal", {}))
    for name, own_id, parent_id, begin_ns, length_ns, kind, members in spans:
        resolved = resolve_span(kind, "unset", None, members)
        text_attributes = json_object(resolved.leftover.values())
        rows.spans.append(
            (*trace, own_id, parent_id, name, begin_ns, length_ns, None, text_attributes)
        )
        rows.resolved.append(resolved.columns)
        rows.origins.append(source)
    _add_resources(rows.batch, record, start_ns, source.service)


def _add_resources(batch: Batch, record: _Record, ts_ns: int, service: str) -> None:
    resources = record.resources
    if resources is None:
        return
    rows: list[tuple[Any, ...]] = []
    for value, factor, name, unit, attributes in (
        (resources.cpu_percent, 0.01, "process.cpu.utilization", "1", None),
        (resources.memory_mb, 1 << 20, "process.memory.usage", "By", None),
        (
            *(resources.db_connections, 1, "db.client.connection.count", "{connection}"),
            '{"db.client.connection.state":"used"}',
        ),
    ):
        if value is not None and math.isfinite(value * factor):
            rows.append((ts_ns, name, unit, "gauge", value * factor, service, attributes))
    batch.add_rows("metrics", _METRIC_COLUMNS, rows)


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)


def _moment(value: str | float | None) -> int | None:
    if value is None:
        return None
    time_ns = times.from_text(value) if isinstance(value, str) else times.from_number(value)
    return time_ns if time_ns is not None and time_ns < MAX_TIME_NS else None
