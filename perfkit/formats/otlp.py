"""OTLP bodies, protobuf and JSON, to batches.

All functions raise InputError for a body that is no OTLP at all; single spans and points that
cannot be taken are counted in `Batch.rejected`.

https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

from typing import Any

from perfkit import ids
from perfkit.batch import Batch
from perfkit.errors import InputError
from perfkit.formats import otlp_wire as wire
from perfkit.formats.attributes import AttributeCache, DamagedAttribute
from perfkit.formats.otlp_metrics import MetricRows
from perfkit.formats.otlp_spans import Edge, Origin, SpanRows, origin

_PROTOBUF = Edge(
    trace_id=ids.trace_id_from_bytes,
    span_id=ids.span_id_from_bytes,
    encoded=lambda attributes: attributes,
    header=wire.header_from_protobuf,
    attributes=AttributeCache(wire.attribute_from_protobuf),
)
_JSON = Edge(
    trace_id=lambda text: ids.trace_id_from_text(text) if text else (0, 0),
    span_id=ids.span_id_from_text,
    encoded=lambda attributes: [bytes(raw) for raw in attributes or ()],
    header=wire.header_from_json,
    attributes=AttributeCache(wire.attribute_from_json),
)


def traces_from_protobuf(body: bytes) -> Batch:
    """Read an ExportTraceServiceRequest or TracesData."""
    return _traces(_PROTOBUF, wire.parse_traces(body))


def traces_from_json(body: bytes) -> Batch:
    """Read the JSON form of an ExportTraceServiceRequest."""
    return _traces(_JSON, wire.load_traces(body))


def metrics_from_protobuf(body: bytes) -> Batch:
    """Read an ExportMetricsServiceRequest or MetricsData."""
    return _metrics(_PROTOBUF, wire.parse_metrics(body), lambda metric, name: metric.HasField(name))


def metrics_from_json(body: bytes) -> Batch:
    """Read the JSON form of an ExportMetricsServiceRequest."""
    return _metrics(
        _JSON, wire.load_metrics(body), lambda metric, name: getattr(metric, name) is not None
    )


def _origin(edge: Edge, resource: Any, scope: Any = b"") -> Origin:
    try:
        return origin(edge, bytes(resource), bytes(scope))
    except DamagedAttribute as error:
        raise InputError("a resource has an attribute that cannot be decoded") from error


def _traces(edge: Edge, message: Any) -> Batch:
    rows = SpanRows(edge)
    for group in message.resource_spans or ():
        for part in group.scope_spans or ():
            rows.add(part.spans or (), _origin(edge, group.resource, part.scope))
    return rows.finish()


def _metrics(edge: Edge, message: Any, present: Any) -> Batch:
    rows = MetricRows(edge)
    for group in message.resource_metrics or ():
        source = _origin(edge, group.resource)
        for part in group.scope_metrics or ():
            for metric in part.metrics or ():
                rows.add(metric, source, present)
    return rows.finish()
