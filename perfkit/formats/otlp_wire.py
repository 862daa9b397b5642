"""OTLP messages as they are parsed: protobuf classes and, of the same shape, JSON structs.

Both leave attributes, resources and scopes encoded (`list[bytes]`, `list[Raw]`), because they
repeat and `attributes.AttributeCache` decodes each only once.
"""

from __future__ import annotations

import base64
import binascii
import mmap
import re
from typing import Any, cast

import msgspec
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1 import common_pb2

from perfkit.errors import InputError
from perfkit.formats.attributes import DamagedAttribute
from perfkit.formats.otlp_descriptors import (
    ATTRIBUTE,
    RESOURCE,
    SCOPE,
    header_class,
    message_class,
)
from perfkit.semconv import Value

_TRACES = "opentelemetry.proto.trace.v1.TracesData"


def parse_traces(body: bytes) -> Any:
    """Parse an ExportTraceServiceRequest or TracesData (they are the same on the wire)."""
    return _parse(_TRACES, body)


def split_traces(body: bytes) -> Any:
    """Parse the same and leave each span encoded."""
    return _parse(_TRACES, body, spans_too=True)


def parse_span(raw: bytes) -> Any:
    """Parse one span."""
    return _parse("opentelemetry.proto.trace.v1.Span", raw)


def parse_metrics(body: bytes) -> Any:
    """Parse an ExportMetricsServiceRequest or MetricsData."""
    return _parse("opentelemetry.proto.metrics.v1.MetricsData", body)


def _parse(full_name: str, body: bytes, *, spans_too: bool = False) -> Message:
    message = message_class(full_name, spans_too=spans_too)()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise InputError(
            "not OTLP protobuf, or cut off", hint="send application/x-protobuf as OTLP defines it"
        ) from error
    if body and not message.ListFields():
        raise InputError("no resource spans or metrics in it, so it is not OTLP protobuf")
    return message


def attribute_from_protobuf(raw: bytes) -> tuple[str, Value]:
    """Decode a KeyValue; of text that is no UTF-8 what can be read. Raises DamagedAttribute."""
    try:
        pair: Any = common_pb2.KeyValue.FromString(raw)
    except DecodeError:
        pair = header_class(ATTRIBUTE)()
        try:
            pair.ParseFromString(raw)
        except DecodeError as error:
            raise DamagedAttribute from error
    try:
        return text(pair.key), _any_value(pair.value)
    except RecursionError as error:
        raise DamagedAttribute from error


def text(raw: str | bytes) -> str:
    """Decode text, whatever can be read of it."""
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")


def _any_value(value: Any) -> Value:
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [_any_value(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return {text(pair.key): _any_value(pair.value) for pair in value.kvlist_value.values}
    if which == "string_value":
        return text(value.string_value)
    return cast(Value, getattr(value, which))


def header_from_protobuf(raw: bytes, *, scope: bool) -> tuple[str, str, list[bytes]]:
    """Decode a Resource or an InstrumentationScope to (name, version, encoded attributes)."""
    found: Any = header_class(SCOPE if scope else RESOURCE)()
    try:
        found.ParseFromString(raw)
    except DecodeError as error:
        problem = "a resource or scope is damaged: not OTLP protobuf"
        raise InputError(problem, part=raw) from error
    if not scope:
        return "", "", list(found.attributes)
    return text(found.name), text(found.version), list(found.attributes)


# JSON. Null stands for the default anywhere, 64-bit integers are numbers or text, enums are numbers
# or names: https://protobuf.dev/programming-guides/json/ and the OTLP specification.

Integer = int | str | float | None
Encoded = list[msgspec.Raw] | None


class _AnyValue(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Integer = None
    double_value: float | str | None = None
    bytes_value: str | None = None
    array_value: _ArrayValue | None = None
    kvlist_value: _KeyValueList | None = None


class _ArrayValue(msgspec.Struct):
    values: list[_AnyValue] | None = None


class _KeyValue(msgspec.Struct):
    key: str | None = None
    value: _AnyValue | None = None


class _KeyValueList(msgspec.Struct):
    values: list[_KeyValue] | None = None


class _Header(msgspec.Struct):
    name: str | None = None
    version: str | None = None
    attributes: Encoded = None


class _Status(msgspec.Struct):
    code: int | str | None = None
    message: str | None = None


class _Event(msgspec.Struct, rename="camel"):
    time_unix_nano: Integer = None
    name: str | None = None
    attributes: Encoded = None


class _Link(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    attributes: Encoded = None


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    kind: int | str | None = None
    start_time_unix_nano: Integer = None
    end_time_unix_nano: Integer = None
    attributes: Encoded = None
    dropped_attributes_count: int | None = None
    events: list[_Event] | None = None
    dropped_events_count: int | None = None
    links: list[_Link] | None = None
    dropped_links_count: int | None = None
    status: _Status | None = None


class _ScopeSpans(msgspec.Struct, rename="camel"):
    scope: msgspec.Raw = msgspec.Raw()
    spans: list[_Span] | None = None


class _ResourceSpans(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw = msgspec.Raw()
    scope_spans: list[_ScopeSpans] | None = None


class _SplitScopeSpans(msgspec.Struct, rename="camel"):
    scope: msgspec.Raw = msgspec.Raw()
    spans: list[msgspec.Raw] | None = None


class _SplitResourceSpans(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw = msgspec.Raw()
    scope_spans: list[_SplitScopeSpans] | None = None


class _Point(msgspec.Struct, rename="camel"):
    time_unix_nano: Integer = None
    attributes: Encoded = None
    flags: int | None = None
    as_double: float | str | None = None
    as_int: Integer = None
    sum: float | str | None = None
    count: Integer = None


class _Data(msgspec.Struct, rename="camel"):
    data_points: list[_Point] | None = None
    aggregation_temporality: int | str | None = None
    is_monotonic: bool | None = None


class _Metric(msgspec.Struct, rename="camel"):
    name: str | None = None
    unit: str | None = None
    gauge: _Data | None = None
    sum: _Data | None = None
    histogram: _Data | None = None
    exponential_histogram: _Data | None = None
    summary: _Data | None = None


class _ScopeMetrics(msgspec.Struct, rename="camel"):
    metrics: list[_Metric] | None = None


class _ResourceMetrics(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw = msgspec.Raw()
    scope_metrics: list[_ScopeMetrics] | None = None


class _Document(msgspec.Struct, rename="camel"):
    resource_spans: list[_ResourceSpans] | msgspec.UnsetType | None = msgspec.UNSET
    resource_metrics: list[_ResourceMetrics] | msgspec.UnsetType | None = msgspec.UNSET
    resource_logs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _SplitDocument(msgspec.Struct, rename="camel"):
    resource_spans: list[_SplitResourceSpans] | msgspec.UnsetType | None = msgspec.UNSET
    resource_metrics: list[_ResourceMetrics] | msgspec.UnsetType | None = msgspec.UNSET
    resource_logs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


# Field names as in the .proto file are allowed, and before OTLP 0.15 scopes had another name. Both
# are rare, so they are rewritten to the present spelling instead of being parsed by other structs.
OLD_SPELLING = re.compile(
    rb'"(?:resource_spans|resource_metrics|scope_spans|scope_metrics|trace_id|start_time_unix_nano'
    rb'|time_unix_nano|string_value|int_value|instrumentationLibrary\w*)"\s*:'
)
_EMPTY = re.compile(rb"\s*\{\s*\}\s*")
_RENAMED = {
    "instrumentationLibrary": "scope",
    "instrumentationLibrarySpans": "scopeSpans",
    "instrumentationLibraryMetrics": "scopeMetrics",
}


def load_json(body: bytes) -> Any:
    """Parse an OTLP/JSON document. Fields that it does not have are `msgspec.UNSET`."""
    try:
        if OLD_SPELLING.search(body):
            body = msgspec.json.encode(_present_spelling(msgspec.json.decode(body)))
        document = _document.decode(body)
    except _BAD_JSON as error:
        raise _refusal(error) from error
    if document == _Document() and not _EMPTY.fullmatch(body):
        raise InputError("not OTLP JSON: it has no resourceSpans and no resourceMetrics")
    return document


def split_json(body: bytes | mmap.mmap) -> Any:
    """Parse the same and leave each span encoded; what has the spelling of old is empty."""
    try:
        return msgspec.json.decode(body, type=_SplitDocument)
    except _BAD_JSON as error:
        raise _refusal(error) from error


def spans_from_json(encoded: list[msgspec.Raw]) -> tuple[list[Any], InputError | None]:
    """Parse spans, up to the first that is none; also returns what is wrong with that one."""
    spans: list[Any] = []
    try:
        spans.extend(map(_span.decode, encoded))
    except _BAD_JSON as error:
        return spans, _refusal(error, bytes(encoded[len(spans)]))
    return spans, None


_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _refusal(error: Exception, part: bytes | None = None) -> InputError:
    if isinstance(error, msgspec.ValidationError):
        return InputError(f"not OTLP JSON: {error}", part=part)
    if isinstance(error, RecursionError):
        return InputError("not OTLP JSON: nested too deeply", part=part)
    return InputError(f"not valid JSON: {error}", part=part)


def _present_spelling(value: Any) -> Any:
    if isinstance(value, list):
        return [_present_spelling(item) for item in value]
    if isinstance(value, dict):
        return {_present_name(key): _present_spelling(item) for key, item in value.items()}
    return value


def _present_name(name: str) -> str:
    first, *rest = name.split("_")
    camel = first + "".join(part.title() for part in rest)
    return _RENAMED.get(camel, camel)


_key_value = msgspec.json.Decoder(_KeyValue)
_header = msgspec.json.Decoder(_Header)
_document = msgspec.json.Decoder(_Document)
_span = msgspec.json.Decoder(_Span)


def attribute_from_json(raw: bytes) -> tuple[str, Value]:
    """Decode a KeyValue. Raises DamagedAttribute."""
    try:
        pair = _key_value.decode(raw)
        return pair.key or "", _json_value(pair.value)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise DamagedAttribute from error


def _json_value(value: _AnyValue | None) -> Value:
    if value is None:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return int(value.int_value)
    if value.bool_value is not None:
        return value.bool_value
    if value.double_value is not None:
        return float(value.double_value)
    if value.array_value is not None:
        return [_json_value(item) for item in value.array_value.values or ()]
    if value.kvlist_value is not None:
        pairs = value.kvlist_value.values or ()
        return {pair.key or "": _json_value(pair.value) for pair in pairs}
    if value.bytes_value is not None:
        return _from_base64(value.bytes_value)
    return None


def _from_base64(text: str) -> bytes:
    """Decode base64, standard or URL-safe, with or without padding."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise DamagedAttribute from error


def header_from_json(raw: bytes, *, scope: bool) -> tuple[str, str, list[bytes]]:
    """Decode a Resource or an InstrumentationScope to (name, version, encoded attributes)."""
    del scope
    try:
        header = _header.decode(raw) if raw and raw != b"null" else _Header()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"not OTLP JSON: a resource or scope is damaged: {error}"
        raise InputError(problem, part=raw) from error
    return header.name or "", header.version or "", [bytes(raw) for raw in header.attributes or ()]
