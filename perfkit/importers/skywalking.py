"""SkyWalking: segments as agents send them over HTTP, or a trace as the query API answers.

A span's number is unique in its segment only, so its id is a hash of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.formats.spans import Origin
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import Id, SpanRows, from_process, scaled
from perfkit.semconv import Value

NAME = "skywalking-json"
FORMAT = Format(
    title="SkyWalking segments and traces",
    made_by="an agent's HTTP reporter (`/v3/segments`), or GraphQL `queryTrace`",
    recognised_by="`traceSegmentId`, or `segmentId` with `endpointName`",
    gives="spans, span events (logs), span links (references across processes)",
    lacks="times finer than ms",
    tried="apache-skywalking 1.2.0 (HTTP); the wheel of 1.3.0 lacks its protocol and never starts",
)

_MS = 10**6
_TYPES = {"entry": "server", "exit": "client", "local": "internal", "0": "server", "1": "client"}
_NAMES = {
    "url": "url.full",
    "http.method": "http.request.method",
    "status_code": "http.response.status_code",
    "http.status_code": "http.response.status_code",
    "db.type": "db.system.name",
    "db.instance": "db.namespace",
    "db.statement": "db.query.text",
}
Number = int | float | str | None


class _Pair(msgspec.Struct):
    key: str = ""
    value: Any = None


class _Log(msgspec.Struct):
    time: Number = None
    data: list[_Pair] | None = None


class _Reference(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    parent_trace_segment_id: str | None = None
    parent_segment_id: str | None = None
    parent_span_id: int | None = None


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    segment_id: str | None = None
    span_id: int | None = None
    parent_span_id: int | None = None
    service_code: str | None = None
    service_instance_name: str | None = None
    start_time: Number = None
    end_time: Number = None
    operation_name: str | None = None
    endpoint_name: str | None = None
    span_type: str | int | None = None
    type: str | None = None
    peer: str | None = None
    component: str | None = None
    is_error: bool | None = None
    span_layer: str | int | None = None
    layer: str | None = None
    refs: list[_Reference] | None = None
    tags: list[_Pair] | None = None
    logs: list[_Log] | None = None


class _Segment(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    trace_segment_id: str | None = None
    service: str | None = None
    service_instance: str | None = None
    spans: list[_Span] | None = None


class _Spans(msgspec.Struct):
    spans: list[_Span] | None = None


class _Data(msgspec.Struct):
    trace: _Spans | None = None
    query_trace: _Spans | None = msgspec.field(name="queryTrace", default=None)


class _Answer(msgspec.Struct):
    data: _Data | None = None
    spans: list[_Span] | None = None


_segment = msgspec.json.Decoder(_Segment | list[_Segment])
_answer = msgspec.json.Decoder(_Answer)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise segments by their names."""
    del path
    return head.lstrip()[:1] in (b"{", b"[") and (
        b'"traceSegmentId"' in head or (b'"segmentId"' in head and b'"endpointName"' in head)
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all segments, or the spans of a trace."""
    with SpanRows(source, writer) as rows:
        for segment in _segments(source):
            own = from_process(segment.service, service__instance__id=segment.service_instance)
            for span in segment.spans or ():
                _add(rows, span, segment, own)


def _segments(source: Source) -> Iterator[_Segment]:
    head = source.head().lstrip()
    if head[:1] == b"{" and b'"traceSegmentId"' not in head:
        answer = json_stream.decode(source, _answer, source.contents(), "a SkyWalking trace",
                                    str(source), _answer_may_be_partial) or _Answer()  # fmt: skip
        data = answer.data or _Data()
        spans = answer.spans or (data.trace or data.query_trace or _Spans()).spans
        for span in spans or ():
            service, instance = span.service_code, span.service_instance_name
            yield _Segment(span.trace_id, span.segment_id, service, instance, [span])
        return
    for place, raw in json_stream.records(source, _may_be_partial):
        found = json_stream.decode(
            source, _segment, raw, "a SkyWalking segment", place, _may_be_partial
        )
        if found is not None:
            yield from found if isinstance(found, list) else [found]


def _may_be_partial(path: json_prefix.Path) -> bool:
    """Whether it is a segment, the list of its spans, or a list of segments."""
    return (path[1:] if path[:1] == ("*",) else path) in ((), ("spans",))


def _answer_may_be_partial(path: json_prefix.Path) -> bool:
    names = ("data", "trace", "queryTrace", "spans")
    return all(name in names for name in path)


def _trace(text: str | None) -> Id:
    return ids.trace_id_from_text(text) if text else (0, 0)


def _span_id(segment: str | None, number: int | None) -> int | None:
    if segment is None or number is None or number < 0:
        return None
    return ids.span_id_from_text(f"skywalking {segment} {number}")


def _add(rows: SpanRows, span: _Span, segment: _Segment, own: Origin) -> None:
    trace = _trace(segment.trace_id)
    span_id = _span_id(segment.trace_segment_id, span.span_id)
    parent_id = _span_id(segment.trace_segment_id, span.parent_span_id)
    links: list[tuple[Id, int]] = []
    for reference in span.refs or ():
        above = reference.parent_trace_segment_id or reference.parent_segment_id
        target = _span_id(above, reference.parent_span_id)
        other = _trace(reference.trace_id) if reference.trace_id else trace
        if target is None:
            continue
        if parent_id is None and other == trace:
            parent_id = target
        else:
            links.append((other, target))
    layer = str(span.span_layer if span.span_layer is not None else span.layer or "").lower()
    kind = _TYPES.get(str(span.span_type if span.span_type is not None else span.type).lower(), "")
    kind = kind or "internal"
    if layer in ("mq", "4"):
        kind = {"server": "consumer", "client": "producer"}.get(kind, kind)
    attributes: dict[str, Value] = {}
    for pair in span.tags or ():
        attributes[_NAMES.get(pair.key, pair.key)] = pair.value
    if isinstance(system := attributes.get("db.system.name"), str):
        attributes["db.system.name"] = system.lower()
    elif layer in ("database", "2", "cache", "5"):  # Python's agent does not always say which
        attributes["db.system.name"] = "other_sql" if layer in ("database", "2") else "cache"
    name = span.operation_name or span.endpoint_name or ""
    if kind == "server" and name.startswith("/"):
        attributes.setdefault("http.route", name)
    if kind in ("client", "producer"):
        attributes["peer.service"] = span.peer or None
    attributes["component"] = span.component or None
    start_ns, end_ns = scaled(span.start_time, _MS), scaled(span.end_time, _MS)
    good = rows.add(
        trace,
        span_id,
        parent_id,
        name,
        start_ns,
        end_ns - start_ns if end_ns and start_ns is not None else None,
        own,
        attributes,
        kind=kind,
        status="error" if span.is_error else "unset",
    )
    if good and span_id is not None:
        for other, target in links:
            rows.link(trace, span_id, other, target)
        for log in span.logs or ():
            data: dict[str, Value] = {pair.key: pair.value for pair in log.data or ()}
            name = str(data.get("event") or "log")
            rows.event(trace, span_id, scaled(log.time, _MS), name, data)
