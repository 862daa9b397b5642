"""Jaeger JSON: the answer of the query API (`{"data": [trace…]}`), a list of traces, or one trace.

A reference FOLLOWS_FROM becomes a link; when a span has no other reference it is also the parent,
as in Jaeger's own user interface. Traces that Jaeger's probabilistic sampler let through stand for
as many as the sampler's parameter says: the tag is on the root only, and holds for all spans.
"""

from __future__ import annotations

import functools
import mmap
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from perfkit import ids, model
from perfkit.capture import CaptureWriter
from perfkit.formats.attributes import (
    CACHE_ENTRY_BYTES,
    RESOLVED_COLUMNS,
    AttributeCache,
    DamagedAttribute,
    Resolved,
    json_object,
    resolve_span,
)
from perfkit.formats.spans import MAX_TIME_NS, Origin, SpanBatch, origin, problem
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import HEAD_BYTES, Format, Source
from perfkit.semconv import SAMPLE_PROBABILITY, SAMPLE_RATE, SEMANTIC, Value

NAME = "jaeger-json"
FORMAT = Format(
    title="Jaeger JSON",
    made_by='Jaeger\'s query API or "Download JSON" in its page',
    recognised_by="spans with `traceID`, `spanID`, `operationName`",
    gives="spans, span events, span links",
    lacks="times finer than µs",
)

_BATCH_SPANS = 20_000
_LARGE_BYTES = 32 << 20
_ADJUSTED = RESOLVED_COLUMNS.index("adjusted_count")
_KEPT_ORIGINS = 1 << 12
_KEPT_IDS = 1 << 10

Number = int | float | str


class _Tag(msgspec.Struct):
    key: str
    type: str | None = None
    value: Any = None


class _Reference(msgspec.Struct):
    refType: str = "CHILD_OF"
    traceID: str | None = None
    spanID: str | None = None


class _Log(msgspec.Struct):
    timestamp: Number = 0
    fields: list[msgspec.Raw] | None = None


class _Process(msgspec.Struct):
    serviceName: str | None = None
    tags: list[msgspec.Raw] | None = None


class _Span(msgspec.Struct):
    spanID: str | None = None
    traceID: str | None = None
    parentSpanID: str | None = None
    operationName: str | None = None
    references: list[_Reference] | None = None
    startTime: Number = -1
    duration: Number | None = None
    tags: list[msgspec.Raw] | None = None
    logs: list[_Log] | None = None
    processID: str | None = None
    process: _Process | None = None


class _Trace(msgspec.Struct):
    traceID: str | None = None
    spans: list[_Span] | None = None
    processes: dict[str, _Process] | None = None
    cut: bool = msgspec.field(default=False, name=json_prefix.CUT)


_tag = msgspec.json.Decoder(_Tag)


class _LargeTrace(msgspec.Struct):
    traceID: str | None = None
    spans: list[msgspec.Raw] | None = None
    processes: dict[str, _Process] | None = None
    cut: bool = msgspec.field(default=False, name=json_prefix.CUT)


_trace = msgspec.json.Decoder(_Trace)
_large_trace = msgspec.json.Decoder(_LargeTrace)
_spans = msgspec.json.Decoder(list[_Span])

# One trace alone has its spans, or its processes, without `data` around them.
_ONE_TRACE = re.compile(rb'^\s*\{(?:(?!"data"\s*:).)*?"(?:spans|spanID|processes)"\s*:', re.DOTALL)
_SAMPLER = re.compile(
    "|".join(re.escape(f'"{name}"') for name in (*SAMPLE_RATE, *SAMPLE_PROBABILITY)).encode()
)
_SPAN_KEYS = [re.compile(rb'"%b"\s*:' % name) for name in (b"traceID", b"spanID", b"operationName")]


def sniff(head: bytes, path: Path) -> bool:
    """Recognise spans by Jaeger's spelling of their ids."""
    del path
    start = head.lstrip()[:1]
    return (
        start in (b"{", b"[")
        and sum(key.search(head) is not None for key in _SPAN_KEYS) >= 2
        and b'"resourceSpans"' not in head
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all traces."""
    rows = SpanBatch()
    reader = _Reader()
    nameless = False
    try:
        for place, raw in _split(source):
            try:
                sampled = reader.sampled(raw) if _is_large(raw) else None
                for part in _parts(raw):
                    reader.add(rows, part, sampled)
                    nameless = nameless or (part.cut and not part.processes)
                    if len(rows.spans) >= _BATCH_SPANS:
                        writer.add(rows.finish())
                        rows = SpanBatch()
            except json_stream.BAD_JSON as error:
                source.pass_over(json_stream.refuse("Jaeger JSON", place, error))
    finally:
        writer.add(rows.finish())
        if nameless:
            writer.note(
                f"{source.name} is cut off before the names of services, which come last: spans "
                "bear the numbers of their processes, such as p1"
            )


_Text = msgspec.Raw | bytes | mmap.mmap


def _is_large(raw: _Text) -> bool:
    return memoryview(raw).nbytes > _LARGE_BYTES


def _parts(raw: _Text) -> Iterator[_Trace]:
    """Decode a trace; a large one in parts, so that few of its spans are objects at a time."""
    if not _is_large(raw):
        yield _trace.decode(raw)
        return
    trace = _large_trace.decode(raw)
    texts = trace.spans or []
    for first in range(0, len(texts), _BATCH_SPANS):
        text = b"[%b]" % b",".join(texts[first : first + _BATCH_SPANS])
        yield _Trace(trace.traceID, _spans.decode(text), trace.processes, trace.cut)


def _split(source: Source) -> Iterator[tuple[str, _Text]]:
    """Yield the text of each trace, so that only one at a time becomes objects."""
    content = source.contents()
    if _ONE_TRACE.search(content[:HEAD_BYTES]):
        yield f"{source}, trace 1", _whole_part(source, content)
    else:
        yield from json_stream.elements(source, content, "data", partly=_may_be_partial)


def _may_be_partial(path: json_prefix.Path) -> bool:
    return path in ((), ("spans",))


def _whole_part(source: Source, content: bytes | mmap.mmap) -> bytes | mmap.mmap:
    """Return what is whole of a trace that is cut off, with `--keep-going`."""
    if source.on_damage is None or _is_json(content):
        return content
    part = json_prefix.beginning(json_prefix.until_bad_text(content), _may_be_partial)
    if part.whole or not part.text:
        return content
    json_prefix.pass_over(source, part.end, len(content))
    return part.text


def _is_json(content: bytes | mmap.mmap) -> bool:
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except json_stream.BAD_JSON:
        return False
    return True


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
def _tags() -> AttributeCache:
    """Return the tags that were seen: one cache for all files, which are often one trace each."""
    semantic = SEMANTIC | {_KIND, _STATUS, _MESSAGE, *_SCOPES}
    return AttributeCache(_decode_tag, semantic=semantic, resolve=_resolve)


@functools.cache
def _origins() -> dict[tuple[str | None, bytes], Origin]:
    """Return the processes that were seen: nearly every trace has those of the one before."""
    return {}


class _Reader:
    def __init__(self) -> None:
        self._tags = _tags()
        self._origins = _origins()

    def sampled(self, raw: _Text) -> float:
        """Return for how many a trace stands, where that is not known before its last span."""
        found = 1.0
        for part in _parts(raw) if _SAMPLER.search(raw) else ():
            rows = SpanBatch()
            self.add(rows, part)
            found = max([found, *(columns[_ADJUSTED] for columns in rows.resolved)])
        return found

    def add(self, rows: SpanBatch, trace: _Trace, sampled: float | None = None) -> None:
        """Take spans of one trace, which stands for `sampled`; null where all spans are here."""
        origins: dict[tuple[str | None, str | None], Origin] = {}
        first = len(rows.resolved)
        for span in trace.spans or ():
            try:
                self._add_span(rows, span, trace, origins)
            except DamagedAttribute:
                rows.batch.reject("span with a tag that cannot be decoded")
        if sampled is None:
            sampled = max((columns[_ADJUSTED] for columns in rows.resolved[first:]), default=1.0)
        if sampled != 1.0:
            rows.resolved[first:] = [
                (*columns[:_ADJUSTED], sampled, *columns[_ADJUSTED + 1 :])
                for columns in rows.resolved[first:]
            ]

    def _add_span(
        self,
        rows: SpanBatch,
        span: _Span,
        trace: _Trace,
        origins: dict[tuple[str | None, str | None], Origin],
    ) -> None:
        trace_id = _trace_id(span.traceID or trace.traceID)
        own_id = ids.span_id_from_text(span.spanID)
        start_ns = _ns(span.startTime)
        duration_ns = _ns(span.duration) if span.duration is not None else None
        end_ns = start_ns + duration_ns if duration_ns is not None else None
        refusal = problem(trace_id, own_id, start_ns, end_ns)
        if refusal is not None:
            rows.batch.reject(refusal)
            return
        key = (span.processID, None)
        source = origins.get(key)
        if source is None:
            process = (trace.processes or {}).get(span.processID or "") or span.process
            if process is None and trace.cut:
                process = _Process(span.processID)
            source = origins[key] = self._origin(process)
        columns, attributes = self._describe(span, source.pid)
        message, scope = columns[-2:]
        if scope is not None:
            key = (span.processID, scope)
            source = origins.setdefault(key, replace(source, scope=scope))
        links: list[tuple[Any, ...]] = []
        parent_id = _parent(span, trace_id, (*trace_id, own_id), links)
        events = list(self._events(rows, span, (*trace_id, own_id))) if span.logs else ()
        rows.spans.append(
            (
                *(*trace_id, own_id, parent_id, span.operationName or ""),
                *(start_ns, duration_ns, message, attributes),
            )
        )
        rows.resolved.append(columns[:-2])
        rows.origins.append(source)
        rows.links += links
        rows.events += events

    def _origin(self, process: _Process | None) -> Origin:
        if process is None:
            return origin({})
        encoded = [bytes(raw) for raw in process.tags or ()]
        key = (process.serviceName, b"\n".join(encoded))
        found = self._origins.get(key)
        if found is None:
            attributes = self._tags.values_of(encoded)
            attributes["service.name"] = process.serviceName
            found = origin(attributes)
            if len(key[1]) <= CACHE_ENTRY_BYTES:
                if len(self._origins) >= _KEPT_ORIGINS:
                    self._origins.clear()
                self._origins[key] = found
        return found

    def _describe(self, span: _Span, pid: int | None) -> tuple[tuple[Any, ...], str | None]:
        encoded = [bytes(raw) for raw in span.tags or ()]
        rest: dict[str, str] = {}
        tokens: list[int] = []
        for raw in encoded:
            key, text, token = self._tags[raw]
            if token:
                tokens.append(token)
            else:
                rest[key] = text
        resolved = self._tags.resolve(("unspecified", "unset", pid, tuple(tokens)), encoded)
        return resolved.columns, json_object((rest | resolved.leftover).values())

    def _events(
        self, rows: SpanBatch, span: _Span, own: tuple[Any, ...]
    ) -> Iterator[tuple[Any, ...]]:
        for log in span.logs or ():
            ts_ns = _ns(log.timestamp)
            if not 0 <= ts_ns < MAX_TIME_NS:
                rows.batch.reject("event without a plausible time")
                continue
            encoded = [bytes(raw) for raw in log.fields or ()]
            name = self._tags.values_of(encoded).get("event")
            yield (*own, ts_ns, str(name or "log"), self._tags.object_of(encoded))


@functools.lru_cache(_KEPT_IDS)  # each span says it twice, itself and of its parent
def _trace_id(text: str | None) -> tuple[int, int]:
    return ids.trace_id_from_text(text) if text else (0, 0)


def _ns(microseconds: Number) -> int:
    """Return ns; -1, which is refused as a time, for what is no number."""
    try:
        if isinstance(microseconds, int):
            return microseconds * 1000
        return round(float(microseconds) * 1000)
    except (ValueError, OverflowError):
        return -1


def _parent(
    span: _Span,
    trace_id: tuple[int, int],
    own: tuple[Any, ...],
    links: list[tuple[Any, ...]],
) -> int | None:
    """Return the parent's id. References that are no parent, and every FOLLOWS_FROM, are links."""
    parent_id = follows = None
    for reference in span.references or ():
        target = ids.span_id_from_text(reference.spanID)
        if target is None:
            continue
        trace = _trace_id(reference.traceID) if reference.traceID else trace_id
        child_of = reference.refType == "CHILD_OF"
        if child_of and trace == trace_id and parent_id is None:
            parent_id = target
            continue
        links.append((*own, *trace, target, None))
        if not child_of and trace == trace_id and follows is None:
            follows = target
    if parent_id is None:
        parent_id = follows
    return parent_id if parent_id is not None else ids.span_id_from_text(span.parentSpanID)
