"""What a document of Jaeger's JSON holds: traces, spans and processes, and what their tags say."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from perfkit import model
from perfkit.formats.attributes import (
    CACHE_ENTRY_BYTES,
    AttributeCache,
    DamagedAttribute,
    Resolved,
    resolve_span,
)
from perfkit.formats.spans import Origin, origin
from perfkit.importers import json_prefix
from perfkit.semconv import SEMANTIC, Value

_KEPT_ORIGINS = 1 << 12

Number = int | float | str


class _Tag(msgspec.Struct):
    key: str
    type: str | None = None
    value: Any = None


class Reference(msgspec.Struct):
    """To another span."""

    refType: str = "CHILD_OF"
    traceID: str | None = None
    spanID: str | None = None


class Log(msgspec.Struct):
    """An event of a span."""

    timestamp: Number = 0
    fields: list[msgspec.Raw] | None = None


class Process(msgspec.Struct):
    """What recorded a span."""

    serviceName: str | None = None
    tags: list[msgspec.Raw] | None = None


class Span(msgspec.Struct):
    """A span as the document has it; its tags are read when they are needed."""

    spanID: str | None = None
    traceID: str | None = None
    parentSpanID: str | None = None
    operationName: str | None = None
    references: list[Reference] | None = None
    startTime: Number = -1
    duration: Number | None = None
    tags: msgspec.Raw = msgspec.Raw()
    logs: list[Log] | None = None
    processID: str | None = None
    process: Process | None = None


class Trace(msgspec.Struct):
    """A trace as the document has it, or a part of its spans."""

    traceID: str | None = None
    spans: list[Span] | None = None
    processes: msgspec.Raw = msgspec.Raw()
    cut: bool = msgspec.field(default=False, name=json_prefix.CUT)


_tag = msgspec.json.Decoder(_Tag)
_tag_list = msgspec.json.Decoder(list[msgspec.Raw] | None)
_processes = msgspec.json.Decoder(dict[str, Process] | None)


def processes_of(trace: Trace) -> dict[str, Process]:
    """Return the processes by their number."""
    text = bytes(trace.processes)
    return (_processes.decode(text) if text else None) or {}


def tags_of(text: bytes) -> list[bytes]:
    """Return the encoded tags of a span's list of them, which may be missing."""
    return [bytes(raw) for raw in (_tag_list.decode(text) if text else None) or ()]


def _decode_tag(raw: bytes) -> tuple[str, Value]:
    try:
        tag = _tag.decode(raw)
        if isinstance(tag.value, str):
            if tag.type == "int64":
                return tag.key, int(tag.value)
            if tag.type == "float64":
                return tag.key, float(tag.value)
            if tag.type == "bool":
                return tag.key, tag.value.lower() == "true"
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DamagedAttribute from error
    return tag.key, tag.value


# Where the Jaeger exporters put what has fields of its own in OpenTelemetry:
# https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/jaeger/
_KIND, _STATUS, _MESSAGE = "span.kind", "otel.status_code", "otel.status_description"
_SCOPES = ("otel.scope.name", "otel.library.name")
_STATUSES = {name.upper(): name for name in model.STATUSES}


def _resolve(kind: str, status: str, pid: int | None, attributes: dict[str, Value]) -> Resolved:
    """Do as `resolve_span`, with kind and status from tags; adds message and scope."""
    named = attributes.pop(_KIND, None)
    recorded = _STATUSES.get(str(attributes.pop(_STATUS, "")), status)
    message = attributes.pop(_MESSAGE, None)
    scopes = [attributes.pop(name, None) for name in _SCOPES]
    scope = next((str(name) for name in scopes if name), None)
    kind = named if isinstance(named, str) and named in model.KINDS else kind
    columns, leftover = resolve_span(kind, recorded, pid, attributes)
    return Resolved((*columns, str(message) if message else None, scope), leftover)


@functools.cache
def tags() -> AttributeCache:
    """Return the tags that were seen: one cache for all files, which are often one trace each."""
    semantic = SEMANTIC | {_KIND, _STATUS, _MESSAGE, *_SCOPES}
    return AttributeCache(_decode_tag, semantic=semantic, resolve=_resolve)


@functools.cache
def _origins() -> dict[tuple[str | None, bytes], Origin]:
    """Return the processes that were seen: nearly every trace has those of the one before."""
    return {}


def origin_of(process: Process | None) -> Origin:
    """Return where spans of a process come from."""
    if process is None:
        return origin({})
    origins = _origins()
    encoded = [bytes(raw) for raw in process.tags or ()]
    key = (process.serviceName, b"\n".join(encoded))
    found = origins.get(key)
    if found is None:
        attributes = tags().values_of(encoded)
        attributes["service.name"] = process.serviceName
        found = origin(attributes, left_out=tags().undecodable(encoded))
        if len(key[1]) <= CACHE_ENTRY_BYTES:
            if len(origins) >= _KEPT_ORIGINS:
                origins.clear()
            origins[key] = found
    return found
