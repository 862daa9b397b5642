"""Generates OTLP and captures of any size: eight spans a trace, ten attributes a span.

One body of 64 traces is made with the protobuf library. Every body is a copy of its bytes in which
NumPy draws each id, time and attribute that differs between requests anew: what compresses in
real files compresses as well here, and a million spans take seconds to write, not minutes.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

TRACES_PER_BODY = 64
SPANS_PER_TRACE = 8
SPANS_PER_BODY = TRACES_PER_BODY * SPANS_PER_TRACE
START_NS = 1_700_000_000_000_000_000
_BODY_NS = 64_000_000  # one trace a millisecond

# (name, kind, parent, start, length) with times in µs relative to the request's start.
_SHAPE = (
    ("POST /tools/invoke", 2, None, 0, 20_000),
    ("auth.check", 1, 0, 100, 900),
    ("plugins.before", 1, 0, 1_100, 1_500),
    ("tool.invoke", 1, 0, 2_800, 15_000),
    ("SELECT orders", 3, 3, 3_000, 4_000),
    ("SELECT items", 3, 3, 7_200, 5_000),
    ("GET", 3, 3, 7_300, 10_000),
    ("response.serialise", 1, 0, 18_000, 1_800),
)


# Both take two bytes as a varint, so that one can stand for another in place.
_USERS = range(128, 5_128)
_THREADS = range(1_000, 1_008)
_ROUTES = ("invoke", "browse", "search", "render")


def _attributes(span: int) -> list[KeyValue]:
    values: dict[str, str | int | bool] = {
        "http.request.method": "POST",
        "http.route": f"/tools/{_ROUTES[0]}",
        "http.response.status_code": 200,
        "server.address": "gateway.internal",
        "server.port": 8080,
        "network.protocol.version": "1.1",
        "user.id": _USERS.start,
        "tenant": "tenant-00",
        "thread.id": _THREADS.start,
        "cache.hit": True,
    }
    if span in (4, 5):
        table = "orders" if span == 4 else "items"
        values["db.system.name"] = "postgresql"
        values["db.query.text"] = f"SELECT id, total FROM {table} WHERE user_id = %s"
        del values["cache.hit"], values["tenant"]
    out = []
    for key, value in values.items():
        if isinstance(value, bool):
            out.append(KeyValue(key=key, value=AnyValue(bool_value=value)))
        elif isinstance(value, int):
            out.append(KeyValue(key=key, value=AnyValue(int_value=value)))
        else:
            out.append(KeyValue(key=key, value=AnyValue(string_value=value)))
    return out


class Bodies:
    """Makes OTLP bodies of 512 spans; body `n` is always the same."""

    def __init__(self) -> None:
        self._template = np.frombuffer(_template().SerializeToString(), dtype=np.uint8)
        raw = self._template.tobytes()
        self._trace_at = _find_all(raw, b"\x0a\x10T", 2)
        self._span_at = _find_all(raw, b"\x12\x08S", 2)
        self._parent_at = _find_all(raw, b"\x22\x08S", 2)
        self._start_at = _find_all(raw, b"\x39" + START_NS.to_bytes(8, "little"), 1)
        self._user_at = _find_all(raw, b"user.id\x12\x03\x18", 10)
        self._thread_at = _find_all(raw, b"thread.id\x12\x03\x18", 12)
        self._tenant_at = _find_all(raw, b"tenant-", 7)
        self._hit_at = _find_all(raw, b"cache.hit\x12\x02\x10", 12)
        self._route_at = _find_all(raw, b"http.route\x12\x0f\x0a\x0d/tools/", 21)
        for places in (self._trace_at, self._span_at, self._start_at, self._user_at):
            assert len(places) == SPANS_PER_BODY

    def body(self, number: int) -> bytes:
        """Return body `number` as ExportTraceServiceRequest bytes."""
        rng = np.random.default_rng(number)
        out = self._template.copy()
        self._draw_ids(out, rng)
        self._draw_times(out, rng, START_NS + number * _BODY_NS)
        _put(out, self._user_at, _varints(rng.choice(_USERS, len(self._user_at))))
        _put(out, self._thread_at, _varints(rng.choice(_THREADS, len(self._thread_at))))
        tenths, ones = np.divmod(rng.integers(0, 40, len(self._tenant_at)), 10)
        _put(out, self._tenant_at, np.stack((tenths, ones), axis=1) + ord("0"))
        _put(out, self._hit_at, rng.integers(0, 2, (len(self._hit_at), 1)))
        routes = np.array([list(route.encode()) for route in _ROUTES])
        _put(out, self._route_at, routes[rng.integers(0, len(routes), len(self._route_at))])
        return out.tobytes()

    def _draw_ids(self, out: np.ndarray, rng: np.random.Generator) -> None:
        traces = rng.integers(0, 256, (TRACES_PER_BODY, 16))
        spans = rng.integers(0, 256, (TRACES_PER_BODY, SPANS_PER_TRACE, 8))
        parents = [parent for _, _, parent, _, _ in _SHAPE if parent is not None]
        _put(out, self._trace_at, traces.repeat(SPANS_PER_TRACE, axis=0))
        _put(out, self._span_at, spans.reshape(-1, 8))
        _put(out, self._parent_at, spans[:, parents].reshape(-1, 8))

    def _draw_times(self, out: np.ndarray, rng: np.random.Generator, first_ns: int) -> None:
        """Each trace begins within a millisecond of its own and is slower or faster as a whole."""
        arrivals_ns = first_ns + np.arange(TRACES_PER_BODY) * 1_000_000
        arrivals_ns += rng.integers(0, 1_000_000, TRACES_PER_BODY)
        factors = rng.lognormal(0, 0.5, TRACES_PER_BODY)[:, None]
        starts_us = np.array([start for *_, start, _ in _SHAPE])
        ends_us = np.array([start + length for *_, start, length in _SHAPE])
        for skip, offsets_us in ((0, starts_us), (9, ends_us)):
            times_ns = arrivals_ns[:, None] + (offsets_us * 1000 * factors).astype(np.int64)
            _put(out, self._start_at + skip, times_ns.astype("<u8").view(np.uint8).reshape(-1, 8))


def _template() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.append(
        KeyValue(key="service.name", value=AnyValue(string_value="gateway"))
    )
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "bench"
    for _ in range(TRACES_PER_BODY):
        for index, (name, kind, parent, *_) in enumerate(_SHAPE):
            span = scope_spans.spans.add()
            span.trace_id, span.span_id = b"T" * 16, b"S" * 8
            if parent is not None:
                span.parent_span_id = b"S" * 8
            span.name, span.kind = name, kind
            span.start_time_unix_nano = START_NS
            span.end_time_unix_nano = START_NS
            span.attributes.extend(_attributes(index))
    return request


def _put(out: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
    """Write a row of bytes at each place."""
    out[places[:, None] + np.arange(values.shape[1])] = values


def _varints(values: np.ndarray) -> np.ndarray:
    """Return numbers of 14 bits as the two bytes that protobuf writes."""
    return np.stack((values & 0x7F | 0x80, values >> 7), axis=1)


def _find_all(raw: bytes, pattern: bytes, skip: int) -> np.ndarray:
    found, at = [], raw.find(pattern)
    while at >= 0:
        found.append(at + skip)
        at = raw.find(pattern, at + 1)
    return np.array(found, dtype=np.int64)


def write_otlp(directory: Path, spans: int, *, spans_per_file: int = 50 * SPANS_PER_BODY) -> int:
    """Write about `spans` spans as OTLP protobuf files; returns how many were written."""
    directory.mkdir(parents=True, exist_ok=True)
    bodies = Bodies()
    per_file = spans_per_file // SPANS_PER_BODY
    total = max(1, round(spans / SPANS_PER_BODY))
    for first in range(0, total, per_file):
        last = min(first + per_file, total)
        # Concatenated protobuf messages are one message with the repeated fields joined.
        data = b"".join(bodies.body(number) for number in range(first, last))
        (directory / f"{first:06d}.pb").write_bytes(data)
    return total * SPANS_PER_BODY


def json_of(body: bytes) -> bytes:
    """Return a body in the JSON of OTLP, whose ids are hexadecimal."""
    document = MessageToDict(ExportTraceServiceRequest.FromString(body))
    for group in document["resourceSpans"]:
        for part in group["scopeSpans"]:
            for span in part["spans"]:
                for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[name] = base64.b64decode(span[name]).hex()
    return json.dumps(document).encode()
