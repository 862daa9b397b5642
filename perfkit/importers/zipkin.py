"""Zipkin v2 JSON: a list of spans, or a list of traces as the query API answers.

A client and a server span of one call may share an id (B3). The server's half gets an id of its
own under the client's, and the spans below go with the half of their own service.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.spans import Origin
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import Id, SpanRows, from_process, scaled
from perfkit.semconv import Value

NAME = "zipkin-json"
FORMAT = Format(
    title="Zipkin v2 JSON",
    made_by="Zipkin's query API (`/api/v2/traces`) or any Zipkin reporter",
    recognised_by="spans with `traceId`, `id` and `localEndpoint`, `kind` or `timestamp`",
    gives="spans, span events (annotations)",
    lacks="times finer than µs; links; why a request failed, other than the tag `error`",
    tried="py_zipkin 1.2.8, opentelemetry-exporter-zipkin-json 1.45.1, OpenTelemetry JS 2.12.1",
)

_US = 1000
_KINDS = ("CLIENT", "SERVER", "PRODUCER", "CONSUMER")
Number = int | float | str | None


class _Endpoint(msgspec.Struct, rename="camel"):
    service_name: str | None = None
    ipv4: str | None = None
    ipv6: str | None = None
    port: int | None = None


class _Annotation(msgspec.Struct):
    timestamp: Number = None
    value: str | None = None


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    id: str | None = None
    parent_id: str | None = None
    kind: str | None = None
    name: str | None = None
    timestamp: Number = None
    duration: Number = None
    local_endpoint: _Endpoint | None = None
    remote_endpoint: _Endpoint | None = None
    annotations: list[_Annotation] | None = None
    tags: dict[str, Any] | None = None
    shared: bool | None = None


_spans = msgspec.json.Decoder(_Span | list[_Span])
_START = re.compile(rb"\s*(?:\[\s*){0,2}\{")
_Halves = dict[tuple[Id, int | None], str | None]
"""Id of a span that a client and a server share -> service of the server."""


def sniff(head: bytes, path: Path) -> bool:
    """Recognise spans by Zipkin's spelling."""
    del path
    return (
        _START.match(head) is not None
        and b'"traceId"' in head
        and b'"id"' in head
        and b'"spanId"' not in head
        and any(key in head for key in (b'"localEndpoint"', b'"timestamp"', b'"kind"'))
        and b'"startTimeUnixNano"' not in head
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all spans."""
    content = source.contents()
    shared = content.find(b'"shared"') >= 0
    halves = _shared_ids(source) if shared else {}
    with SpanRows(source, writer) as rows:
        for span in _all(source):
            _add(rows, span, halves)


def _all(source: Source) -> Iterator[_Span]:
    partly = json_prefix.lists(source.head())
    for place, raw in json_stream.records(source, partly):
        try:
            found = _spans.decode(raw)
        except json_stream.BAD_JSON as error:
            source.pass_over(json_stream.refuse("Zipkin JSON", place, error))
            continue
        yield from found if isinstance(found, list) else [found]


def _ignore(_: InputError) -> None:
    """Pass over what is damaged: it is counted when the spans are read."""


def _shared_ids(source: Source) -> _Halves:
    """Return the ids that both halves of a call have."""
    clients: set[tuple[Id, int | None]] = set()
    servers: _Halves = {}
    try:
        for span in _all(dataclasses.replace(source, on_damage=_ignore)):
            key = (_trace(span), ids.span_id_from_text(span.id))
            if span.shared:
                servers[key] = _service(span)
            else:
                clients.add(key)
    except InputError:
        pass  # the same error comes when the spans are read
    return {key: service for key, service in servers.items() if key in clients}


def _trace(span: _Span) -> Id:
    return ids.trace_id_from_text(span.trace_id) if span.trace_id else (0, 0)


def _service(span: _Span) -> str | None:
    return span.local_endpoint.service_name if span.local_endpoint else None


def _server_half(trace: Id, span_id: int | None) -> int | None:
    return ids.span_id_from_text(f"{trace} {span_id} shared")


def _add(rows: SpanRows, span: _Span, halves: _Halves) -> None:
    trace = _trace(span)
    span_id = ids.span_id_from_text(span.id)
    parent_id = ids.span_id_from_text(span.parent_id)
    if span.shared and (trace, span_id) in halves:
        parent_id, span_id = span_id, _server_half(trace, span_id)
    elif (trace, parent_id) in halves and halves[trace, parent_id] == _service(span):
        parent_id = _server_half(trace, parent_id)
    tags = span.tags or {}
    kind = span.kind.lower() if span.kind in _KINDS else "internal"
    failed = "error" in tags and tags["error"] not in (False, "false")
    duration_ns = scaled(span.duration, _US) if span.duration is not None else None
    good = rows.add(
        trace,
        span_id,
        parent_id,
        span.name or "",
        scaled(span.timestamp, _US),
        duration_ns,
        _origin(span),
        _attributes(span, tags, kind),
        kind=kind,
        status="error" if failed else "unset",
        message=str(tags["error"]) if failed and tags["error"] not in (True, "true", "") else None,
    )
    if good and span_id is not None:
        for note in span.annotations or ():
            rows.event(trace, span_id, scaled(note.timestamp, _US), note.value or "annotation", {})


def _origin(span: _Span) -> Origin:
    local = span.local_endpoint or _Endpoint()
    address = local.ipv4 or local.ipv6
    instance = f"{address}:{local.port}" if address and local.port else address
    return from_process(local.service_name, service__instance__id=instance)


def _attributes(span: _Span, tags: dict[str, Any], kind: str) -> dict[str, Value]:
    attributes: dict[str, Value] = dict(tags)
    remote = span.remote_endpoint
    if remote is not None and kind in ("client", "producer"):
        attributes.setdefault("peer.service", remote.service_name)
        attributes.setdefault("server.address", remote.ipv4 or remote.ipv6)
        attributes.setdefault("server.port", remote.port)
    if "http.path" in attributes:
        attributes["url.path"] = attributes.pop("http.path")
    if "sql.query" in attributes:
        attributes["db.query.text"] = attributes.pop("sql.query")
        attributes.setdefault("db.system.name", "other_sql")
    return attributes
