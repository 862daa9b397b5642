"""OTLP requests from hypothesis, and a slow and obvious reading of them."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from google.protobuf import json_format
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from perfkit import ids, model, semconv

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INT64 = st.integers(-(2**63), 2**63 - 1)
KEYS = st.one_of(st.sampled_from(sorted(semconv.SEMANTIC)), TEXT)


def _scalars() -> st.SearchStrategy[AnyValue]:
    return st.one_of(
        st.builds(AnyValue),
        st.builds(AnyValue, string_value=TEXT),
        st.builds(
            AnyValue, string_value=st.sampled_from(["GET", "/a/1?b", "postgresql", "7", "false"])
        ),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, int_value=st.one_of(INT64, st.integers(0, 600))),
        st.builds(AnyValue, double_value=st.floats()),
        st.builds(AnyValue, bytes_value=st.binary(max_size=5)),
    )


VALUES = st.recursive(
    _scalars(),
    lambda inner: st.one_of(
        st.builds(AnyValue, array_value=st.builds(ArrayValue, values=st.lists(inner, max_size=3))),
        st.builds(
            AnyValue,
            kvlist_value=st.builds(
                KeyValueList,
                values=st.lists(st.builds(KeyValue, key=TEXT, value=inner), max_size=3),
            ),
        ),
    ),
    max_leaves=5,
)
ATTRIBUTES = st.lists(st.builds(KeyValue, key=KEYS, value=VALUES), max_size=6)
TIMES = st.one_of(st.integers(0, 2**64 - 1), st.integers(10**18, 10**18 + 10**10), st.just(0))
TRACE_IDS = st.one_of(st.binary(min_size=16, max_size=16), st.sampled_from([b"", bytes(16)]))
SPAN_IDS = st.one_of(st.binary(min_size=8, max_size=8), st.sampled_from([b"", bytes(8)]))


@st.composite
def requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        group = request.resource_spans.add()
        group.resource.attributes.extend(draw(ATTRIBUTES))
        if draw(st.booleans()):
            pair = group.resource.attributes.add()
            pair.key, pair.value.string_value = "service.name", draw(TEXT)
        for _ in range(draw(st.integers(0, 2))):
            part = group.scope_spans.add()
            part.scope.name, part.scope.version = draw(TEXT), draw(TEXT)
            part.spans.extend(draw(st.lists(_spans(), max_size=4)))
    return request


@st.composite
def _spans(draw: st.DrawFn) -> Span:
    span = Span(
        trace_id=draw(TRACE_IDS),
        span_id=draw(SPAN_IDS),
        parent_span_id=draw(SPAN_IDS),
        name=draw(TEXT),
        kind=draw(st.integers(0, 5)),
        start_time_unix_nano=draw(TIMES),
        trace_state=draw(st.sampled_from(["", "ot=th:8", "a=b,ot=th:fd70a", "x=y"])),
        attributes=draw(ATTRIBUTES),
    )
    span.end_time_unix_nano = draw(
        st.one_of(TIMES, st.just(min(span.start_time_unix_nano + 5, 2**64 - 1)))
    )
    span.status.code = draw(st.integers(0, 2))
    span.status.message = draw(TEXT)
    for _ in range(draw(st.integers(0, 2))):
        span.events.add(time_unix_nano=draw(TIMES), name=draw(TEXT), attributes=draw(ATTRIBUTES))
    for _ in range(draw(st.integers(0, 2))):
        span.links.add(trace_id=draw(TRACE_IDS), span_id=draw(SPAN_IDS))
    return span


def as_json(request: ExportTraceServiceRequest) -> bytes:
    """Write a request as OTLP/JSON: as protobuf's own JSON, but ids as hex."""
    return json.dumps(_hex_ids(json_format.MessageToDict(request))).encode()


def _hex_ids(value: Any, inside: str = "") -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64decode(item).hex()
            if key in ("traceId", "spanId", "parentSpanId")
            else _hex_ids(item, key)
            for key, item in value.items()
        }
    return [_hex_ids(item) for item in value] if isinstance(value, list) else value


def slow_spans(request: ExportTraceServiceRequest) -> list[dict[str, Any]]:
    """Read spans one by one with nothing cached, as rows of the table `spans`."""
    rows = []
    for group in request.resource_spans:
        for part in group.scope_spans:
            rows += [
                row for span in part.spans if (row := _slow_span(span, group, part)) is not None
            ]
    return rows


def _slow_span(span: Span, group: Any, part: Any) -> dict[str, Any] | None:
    start_ns, end_ns = span.start_time_unix_nano, span.end_time_unix_nano
    limit = 366 * 86_400 * 10**9
    trace_hi, trace_lo = ids.trace_id_from_bytes(span.trace_id)
    span_id = ids.span_id_from_bytes(span.span_id)
    if not (trace_hi or trace_lo) or span_id is None or not 10**17 <= start_ns < 2**63 - limit:
        return None
    if end_ns and not 0 <= end_ns - start_ns <= limit:
        return None
    kind = model.KINDS[span.kind]
    resource = plain(group.resource.attributes)
    pid = semconv.promote(dict(resource), "internal")["pid"]
    attributes = plain(span.attributes)
    adjusted_count = semconv.adjusted_count(attributes, span.trace_state)
    row: dict[str, Any] = {
        "status": semconv.status(model.STATUSES[span.status.code], attributes, kind),
        **semconv.promote(attributes, kind),
    }
    if row["pid"] is None:
        row["pid"] = pid
    if span.trace_state:
        attributes["w3c.tracestate"] = span.trace_state
    return row | {
        "trace_hi": trace_hi,
        "trace_lo": trace_lo,
        "span_id": span_id,
        "parent_id": ids.span_id_from_bytes(span.parent_span_id),
        "parent_inferred": False,
        "service": str(resource.get("service.name") or "unknown_service")
        if resource.get("service.name") != ""
        else "unknown_service",
        "instance": semconv.instance(resource),
        "scope": part.scope.name or None,
        "name": span.name,
        "kind": kind,
        "start_ns": start_ns,
        "duration_ns": end_ns - start_ns if end_ns else None,
        "status_message": (span.status.message or None) if span.status.code else None,
        "adjusted_count": adjusted_count,
        "attributes": attributes,
    }


def plain(pairs: Any) -> dict[str, Any]:
    """Decode attributes to plain values; of equal keys the last wins."""
    return {pair.key: _plain_value(pair.value) for pair in pairs}


def _plain_value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [_plain_value(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return plain(value.kvlist_value.values)
    return getattr(value, which)


def json_safe(value: Any) -> Any:
    """Return what a value is after a trip through the JSON that perfkit writes."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [json_safe(item) for item in value]
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    return value
