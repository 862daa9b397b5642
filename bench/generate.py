"""Generates OTLP and captures of any size: eight spans a trace, ten attributes a span.

One body of 64 traces is made with the protobuf library; further bodies are copies of its bytes in
which NumPy replaces every id and time, so a million spans take seconds to write, not minutes.
"""

from __future__ import annotations

import base64
import json
import random
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


def _attributes(span: int, rng: random.Random) -> list[KeyValue]:
    values: dict[str, str | int | bool] = {
        "http.request.method": "POST",
        "http.route": f"/tools/{rng.choice(('invoke', 'list', 'search', 'render'))}",
        "http.response.status_code": 200,
        "server.address": "gateway.internal",
        "server.port": 8080,
        "network.protocol.version": "1.1",
        "user.id": rng.randrange(5_000),
        "tenant": f"tenant-{rng.randrange(40)}",
        "thread.id": 1000 + rng.randrange(8),
        "cache.hit": rng.random() < 0.5,
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

    def __init__(self, seed: int = 1) -> None:
        rng = random.Random(seed)
        request = ExportTraceServiceRequest()
        resource_spans = request.resource_spans.add()
        resource_spans.resource.attributes.append(
            KeyValue(key="service.name", value=AnyValue(string_value="gateway"))
        )
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = "bench"
        offsets: list[tuple[int, int]] = []
        for trace in range(TRACES_PER_BODY):
            factor = rng.lognormvariate(0, 0.5)
            for index, (name, kind, parent, start, length) in enumerate(_SHAPE):
                number = trace * SPANS_PER_TRACE + index
                span = scope_spans.spans.add()
                span.trace_id = b"T" + trace.to_bytes(7, "big") + b"t" * 8
                span.span_id = b"S" + number.to_bytes(7, "big")
                if parent is not None:
                    span.parent_span_id = b"S" + (trace * SPANS_PER_TRACE + parent).to_bytes(
                        7, "big"
                    )
                span.name, span.kind = name, kind
                at = START_NS + trace * 1_000_000
                span.start_time_unix_nano = at + int(start * 1000 * factor)
                span.end_time_unix_nano = at + int((start + length) * 1000 * factor)
                offsets.append((span.start_time_unix_nano, span.end_time_unix_nano))
                span.attributes.extend(_attributes(index, rng))
        self._bytes = np.frombuffer(request.SerializeToString(), dtype=np.uint8)
        raw = self._bytes.tobytes()
        self._trace_at = _find_all(raw, b"\x0a\x10T", 2)
        self._span_at = _find_all(raw, b"\x12\x08S", 2)
        self._parent_at = _find_all(raw, b"\x22\x08S", 2)
        self._time_at = np.concatenate(
            [_find_all(raw, b"\x39" + start.to_bytes(8, "little"), 1)[:1] for start, _ in offsets]
        )
        assert len(self._trace_at) == len(self._span_at) == SPANS_PER_BODY
        assert len(np.unique(self._time_at)) == SPANS_PER_BODY

    def body(self, number: int) -> bytes:
        """Return body `number` as ExportTraceServiceRequest bytes."""
        out = self._bytes.copy()
        high = np.frombuffer(number.to_bytes(4, "big"), dtype=np.uint8)
        for positions, skip in ((self._trace_at, 9), (self._span_at, 1), (self._parent_at, 1)):
            # The number goes into bytes of the id that the template leaves constant.
            place = positions[:, None] + skip + np.arange(4)[None, :]
            out[place] = high[None, :]
        if number:
            self._shift(out, number * _BODY_NS)
        return out.tobytes()

    def _shift(self, out: np.ndarray, by_ns: int) -> None:
        for position in (self._time_at, self._time_at + 9):
            place = position[:, None] + np.arange(8)[None, :]
            times = out[place].copy().view("<u8") + np.uint64(by_ns)
            out[place] = times.view(np.uint8).reshape(-1, 8)


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
