"""AWS X-Ray segments: `aws xray batch-get-traces`, a list of segment documents, or one a line.

Segments and subsegments are spans of one trace. The 96 random and 32 time bits of `1-TIME-RANDOM`
are the trace id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.attributes import json_text
from perfkit.formats.spans import Origin
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import Id, SpanRows, from_process, scaled
from perfkit.semconv import Value

NAME = "xray-json"
FORMAT = Format(
    title="AWS X-Ray segments",
    made_by="`aws xray batch-get-traces --trace-ids …`, or the documents that an SDK sends",
    recognised_by="`trace_id` or `Id` of the form `1-xxxxxxxx-…`, with segments or `start_time`",
    gives="spans, span events (exceptions)",
    lacks="kinds (from `namespace`, `http`); which host a call went to, without `http.url`",
    tried="aws-xray-sdk 2.15.0",
)

_S = 10**9
_MAX_DEPTH = 200
_TRACE_ID = re.compile(rb'"(?:trace_id|Id)"\s*:\s*"1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24}"')


class _Http(msgspec.Struct):
    request: dict[str, Any] | None = None
    response: dict[str, Any] | None = None


class _Segment(msgspec.Struct):
    id: str | None = None
    trace_id: str | None = None
    parent_id: str | None = None
    type: str | None = None
    name: str | None = None
    start_time: float | None = None
    end_time: float | None = None
    namespace: str | None = None
    origin: str | None = None
    http: _Http | None = None
    error: bool | None = None
    fault: bool | None = None
    throttle: bool | None = None
    cause: Any = None
    sql: dict[str, Any] | None = None
    aws: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    subsegments: list[_Segment] | None = None


class _Wrapped(msgspec.Struct):
    Document: str | _Segment | None = None


class _Trace(msgspec.Struct):
    Segments: list[_Wrapped] | None = None


_segment = msgspec.json.Decoder(_Segment)
_trace = msgspec.json.Decoder(_Trace)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the trace id, and what a segment has."""
    del path
    return (
        head.lstrip()[:1] in (b"{", b"[")
        and _TRACE_ID.search(head) is not None
        and (b'"Segments"' in head or b'"start_time"' in head)
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all segments."""
    # An SDK sends the parts of a large segment ahead of it, each as a document of its own.
    ahead: list[tuple[str, _Segment]] = []
    origins: dict[str, Origin] = {}
    with SpanRows(source, writer) as rows:
        try:
            for place, segment in _segments(source):
                if segment.type == "subsegment":
                    ahead.append((place, segment))
                elif segment.trace_id is not None or segment.id is not None:
                    _add(rows, origins, segment, segment.trace_id, segment.parent_id, None, place)
        finally:
            _add_ahead(rows, origins, ahead)


def _add_ahead(
    rows: SpanRows, origins: dict[str, Origin], ahead: list[tuple[str, _Segment]]
) -> None:
    """Add subsegments that came by themselves: they are of the service of their segment."""
    above = {one.id: one.parent_id for _, one in ahead if one.id is not None}
    for place, one in ahead:
        at = one.parent_id
        for _ in range(_MAX_DEPTH):
            if at is None or at in origins or at not in above:
                break
            at = above[at]
        own = origins.get(at or "") or from_process(None)
        _add(rows, origins, one, one.trace_id, one.parent_id, own, place)


def _segments(source: Source) -> Iterator[tuple[str, _Segment]]:
    start = source.head().lstrip()
    if b'"Segments"' in start:
        traces = json_stream.elements(
            source, source.contents(), "Traces", partly=lambda path: path in ((), ("Segments",))
        )
        for place, raw in traces:
            found: Any = None
            with source.record():
                found = _decode(_trace, raw, place)
            for wrapped in (found.Segments if found else None) or ():
                if isinstance(wrapped.Document, str):
                    if (segment := _passable(source, wrapped.Document, place)) is not None:
                        yield place, segment
                elif wrapped.Document is not None:
                    yield place, wrapped.Document
    else:
        for place, raw in json_stream.records(source, _may_be_partial):
            if (segment := _passable(source, raw, place)) is not None:
                yield place, segment


def _may_be_partial(path: json_prefix.Path) -> bool:
    """Whether it is a segment, or the list of its parts; what it lacks is not known then."""
    return all(name in ("subsegments", "*") for name in path)


def _passable(source: Source, raw: Any, place: str) -> _Segment | None:
    """Decode a segment, or what is whole of it; null for one that is passed over."""
    raw = raw.encode() if isinstance(raw, str) else raw
    found = json_stream.decode(source, _segment, raw, "an X-Ray segment", place, _may_be_partial)
    if found is not None and found.trace_id is None:  # it comes last, and its parts have it too
        parts = found.subsegments or ()
        found.trace_id = next((one.trace_id for one in parts if one.trace_id), None)
    return found


def _decode(decoder: Any, raw: Any, place: str) -> Any:
    try:
        return decoder.decode(raw)
    except json_stream.BAD_JSON as error:
        raise json_stream.refuse("an X-Ray segment", place, error) from error


def _add(
    rows: SpanRows,
    origins: dict[str, Origin],
    segment: _Segment,
    trace_text: str | None,
    parent: str | None,
    above: Origin | None,
    place: str,
    depth: int = 0,
) -> None:
    if depth > _MAX_DEPTH:
        raise InputError("subsegments nested too deeply", where=place)
    trace: Id = (0, 0)
    if trace_text:
        trace = ids.trace_id_from_text(trace_text.removeprefix("1-"))
    source = above or from_process(segment.name, cloud__platform=segment.origin)
    kind = "server" if above is None else "internal"
    if above is not None and segment.namespace in ("remote", "aws"):
        kind = "client"
    if segment.id is not None:
        origins[segment.id] = source
    span_id = ids.span_id_from_text(segment.id)
    start_ns, end_ns = scaled(segment.start_time, _S), scaled(segment.end_time, _S)
    failed = bool(segment.error or segment.fault or segment.throttle)
    exceptions = _exceptions(segment.cause)
    duration_ns = None if end_ns is None or start_ns is None else end_ns - start_ns
    good = rows.add(
        trace,
        span_id,
        ids.span_id_from_text(parent),
        segment.name or "",
        start_ns,
        duration_ns,
        source,
        _attributes(segment, kind),
        kind=kind,
        status="error" if failed else "unset",
        message=next((str(one["message"]) for one in exceptions if one.get("message")), None),
    )
    if good and span_id is not None:
        for one in exceptions:
            attributes = {
                "exception.type": one.get("type"),
                "exception.message": one.get("message"),
            }
            when_ns = end_ns if end_ns is not None else start_ns
            rows.event(trace, span_id, when_ns, "exception", attributes)
    for inner in segment.subsegments or ():
        _add(rows, origins, inner, trace_text, segment.id, source, place, depth + 1)


def _exceptions(cause: Any) -> list[dict[str, Any]]:
    found = cause.get("exceptions") if isinstance(cause, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _attributes(segment: _Segment, kind: str) -> dict[str, Value]:
    http = segment.http or _Http()
    request, response = http.request or {}, http.response or {}
    sql, aws = segment.sql or {}, segment.aws or {}
    attributes: dict[str, Value] = {
        "http.request.method": request.get("method"),
        "url.full": request.get("url"),
        "user_agent.original": request.get("user_agent"),
        "client.address": request.get("client_ip"),
        "http.response.status_code": response.get("status"),
        "db.system.name": _lower(sql.get("database_type")) or ("other_sql" if sql else None),
        "db.query.text": sql.get("sanitized_query"),
        "aws.operation": aws.get("operation"),
        "aws.request_id": aws.get("request_id"),
        "aws.table_name": aws.get("table_name"),
        "peer.service": segment.name if kind == "client" else None,
    }
    for key, value in (segment.annotations or {}).items():
        attributes.setdefault(key, value)
    if segment.metadata:
        attributes["aws.xray.metadata"] = json_text(segment.metadata)
    return attributes


def _lower(value: object) -> str | None:
    return value.lower() if isinstance(value, str) and value else None
