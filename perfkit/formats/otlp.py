"""OTLP bodies, protobuf and JSON, to batches.

All functions raise InputError for a body that is no OTLP at all; single spans and points that
cannot be taken are counted in `Batch.rejected`.

https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import UNSET

from perfkit import ids
from perfkit.batch import Batch
from perfkit.errors import InputError
from perfkit.formats import otlp_wire as wire
from perfkit.formats.attributes import AttributeCache
from perfkit.formats.otlp_metrics import MetricRows
from perfkit.formats.otlp_spans import Edge, SpanRows, decode_origin
from perfkit.formats.spans import Origin

_PIECE_SPANS = 20_000

PROTOBUF = Edge(
    text=wire.text,
    trace_id=ids.trace_id_from_bytes,
    span_id=ids.span_id_from_bytes,
    encoded=lambda attributes: attributes,
    header=wire.header_from_protobuf,
    present=lambda message, name: message.HasField(name),
    attributes=AttributeCache(wire.attribute_from_protobuf),
)
_JSON = Edge(
    text=lambda text: text or "",
    trace_id=lambda text: ids.trace_id_from_text(text) if text else (0, 0),
    span_id=ids.span_id_from_text,
    encoded=lambda attributes: [bytes(raw) for raw in attributes or ()],
    header=wire.header_from_json,
    present=lambda message, name: getattr(message, name) is not None,
    attributes=AttributeCache(wire.attribute_from_json),
)


def traces_from_protobuf(body: bytes) -> Batch:
    """Read an ExportTraceServiceRequest or TracesData."""
    return _traces(PROTOBUF, wire.parse_traces(body).resource_spans)


def traces_from_json(body: bytes) -> Batch:
    """Read the JSON form of an ExportTraceServiceRequest."""
    return _traces(_JSON, _member(wire.load_json(body), "resource_spans"))


def metrics_from_protobuf(body: bytes) -> Batch:
    """Read an ExportMetricsServiceRequest or MetricsData."""
    return _metrics(PROTOBUF, wire.parse_metrics(body).resource_metrics)


def metrics_from_json(body: bytes) -> Batch:
    """Read the JSON form of an ExportMetricsServiceRequest."""
    return _metrics(_JSON, _member(wire.load_json(body), "resource_metrics"))


def from_json(body: bytes) -> list[Batch]:
    """Read a document of any signal, as the collector's file exporter writes them."""
    document = wire.load_json(body)
    batches = []
    if document.resource_spans is not UNSET:
        batches.append(_traces(_JSON, document.resource_spans))
    return [*batches, *_others(document)]


def is_old_json(head: bytes) -> bool:
    """Whether a document has the spelling of old, which is only read in one piece."""
    return wire.OLD_SPELLING.search(head) is not None


def from_large_json(
    body: bytes | mmap.mmap, on_problem: Callable[[InputError], None] | None = None
) -> Iterator[tuple[float, Batch]]:
    """Read the same as `from_json`, some thousand spans after the other.

    Yields (share of the document that was read, batch). What comes before a span that is not as it
    must be is yielded before it raises; with `on_problem`, that hears of it and the span is left
    out. A document that is not JSON raises at once.
    """
    document = wire.split_json(body)
    groups = document.resource_spans or ()
    parts = [(group, part) for group in groups for part in group.scope_spans or ()]
    total = max(1, sum(len(part.spans or ()) for _, part in parts))
    rows, waiting, done = SpanRows(_JSON), 0, 0
    for group, part in parts:
        source = _origin(_JSON, group.resource, part.scope)
        encoded = part.spans or []
        first = 0
        while first < len(encoded):
            spans, problem = wire.spans_from_json(encoded[first : first + _PIECE_SPANS])
            rows.add(spans, source)
            waiting, done = waiting + len(spans), done + len(spans)
            first += len(spans)
            if waiting >= _PIECE_SPANS or (problem is not None and on_problem is None):
                yield done / total, rows.finish()
                rows, waiting = SpanRows(_JSON), 0
            if problem is not None:
                if on_problem is None:
                    raise problem
                on_problem(problem)
                first += 1
    yield 1.0, rows.finish()
    for batch in _others(document):
        yield 1.0, batch


def _others(document: Any) -> Iterator[Batch]:
    if document.resource_metrics is not UNSET:
        yield _metrics(_JSON, document.resource_metrics)
    if document.resource_logs is not UNSET:
        logs = Batch()
        logs.reject("logs, which perfkit does not read")
        yield logs


def _member(document: Any, name: str) -> Any:
    """Return one signal of a document; an empty one is a valid request without data."""
    value = getattr(document, name)
    if value is UNSET and document != type(document)():  # one that has something else
        raise InputError(f"not OTLP JSON of this kind: it has no {name}")
    return None if value is UNSET else value


def _origin(edge: Edge, resource: Any, scope: Any = b"") -> Origin:
    return decode_origin(edge, bytes(resource), bytes(scope))


def origin_of(resource: bytes, scope: bytes) -> Origin:
    """Decode an encoded Resource and InstrumentationScope. Raises InputError."""
    return _origin(PROTOBUF, resource, scope)


def _traces(edge: Edge, groups: Any) -> Batch:
    rows = SpanRows(edge)
    for group in groups or ():
        for part in group.scope_spans or ():
            rows.add(part.spans or (), _origin(edge, group.resource, part.scope))
    return rows.finish()


def _metrics(edge: Edge, groups: Any) -> Batch:
    rows = MetricRows(edge)
    for group in groups or ():
        source = _origin(edge, group.resource)
        for part in group.scope_metrics or ():
            for metric in part.metrics or ():
                rows.add(metric, source)
    return rows.finish()
