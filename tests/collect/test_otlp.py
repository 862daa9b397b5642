"""The OTLP/HTTP receiver, as the specification says it, over a real socket."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from perfkit.collect import otlp
from perfkit.collect.otlp import Receiver, parse_address
from perfkit.collect.spool import Overloaded, Spool, SpoolFailed
from perfkit.errors import RecordError, UsageError
from perfkit.journal import Kind, Record, read_segment

PROTOBUF, JSON = "application/x-protobuf", "application/json"


def traces() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="one")
    scope.spans.add(trace_id=b"t" * 16, span_id=b"r" * 8, name="two")
    return request


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="load")
    metric.gauge.data_points.add(time_unix_nano=1, as_double=0.5)
    return request


class Bench:
    """A receiver on a free port, and what it wrote."""

    def __init__(self, directory: Path) -> None:
        self.closed = False
        self.segments: list[Path] = []
        self.spool = Spool(directory, on_segment=self.segments.append)
        self.receiver = Receiver(("127.0.0.1", 0), self.spool)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.receiver.port, timeout=20)

    def post(
        self, path: str, body: bytes, media_type: str = PROTOBUF, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("POST", path, body, {"Content-Type": media_type, **named})
        response = self.connection.getresponse()
        return response, response.read()

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.receiver.port), timeout=20) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def close(self) -> list[Record]:
        if not self.closed:
            self.closed = True
            self.connection.close()
            self.receiver.close()
            self.spool.close()
        return [record for path in self.segments for record in read_segment(path)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_traces_and_metrics_in_both_encodings_are_journaled_as_they_came(bench: Bench) -> None:
    sent = [
        ("/v1/traces", traces().SerializeToString(), PROTOBUF, Kind.TRACES_PROTOBUF),
        ("/v1/metrics", metrics().SerializeToString(), PROTOBUF, Kind.METRICS_PROTOBUF),
        ("/v1/traces", json_format.MessageToJson(traces()).encode(), JSON, Kind.TRACES_JSON),
        ("/v1/metrics", json_format.MessageToJson(metrics()).encode(), JSON, Kind.METRICS_JSON),
    ]
    for path, body, media_type, _ in sent:
        response, answer = bench.post(path, body, f"{media_type}; charset=utf-8")
        assert response.status == 200
        assert response.headers["Content-Type"] == media_type
        if media_type == JSON:
            assert json.loads(answer) == {}
        else:
            expected = (
                ExportTraceServiceResponse if "traces" in path else ExportMetricsServiceResponse
            )
            assert expected.FromString(answer) == expected()
    received = dict(bench.receiver.received)
    assert received == {"requests": 4, "bytes": sum(len(s[1]) for s in sent)} | {
        "spans": 4,
        "metrics": 2,
    }
    assert bench.close() == [Record(kind, False, body) for _, body, _, kind in sent]


def test_gzip_is_kept_as_it_came(bench: Bench) -> None:
    body = gzip.compress(traces().SerializeToString())
    response, _ = bench.post("/v1/traces", body, Content_Encoding="gzip")
    assert response.status == 200
    assert bench.close() == [Record(Kind.TRACES_PROTOBUF, True, body)]


def test_an_empty_request_is_valid(bench: Bench) -> None:
    assert bench.post("/v1/traces", b"")[0].status == 200
    assert bench.post("/v1/traces", b"{}", JSON)[0].status == 200


def test_chunked_bodies_are_taken(bench: Bench) -> None:
    body = traces().SerializeToString()
    head = "POST /v1/traces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    chunks = b"".join(
        f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (body[:7], body[7:])
    )
    request = f"{head}Content-Type: {PROTOBUF}\r\nConnection: close\r\n\r\n".encode() + chunks
    assert b" 200 " in bench.raw(request + b"0\r\n\r\n")
    assert bench.close() == [Record(Kind.TRACES_PROTOBUF, False, body)]


def status_of(body: bytes, media_type: str) -> Status:
    if media_type == JSON:
        return json_format.Parse(body, Status())
    return Status.FromString(body)


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
@pytest.mark.parametrize("path", ["/v1/traces", "/v1/metrics"])
@pytest.mark.parametrize(
    "body", [b"\xff\xff\xff", b"[1, 2", b"[]", b'"text"', b"\0" * 100, b'{"other": 1}']
)
def test_a_malformed_body_gets_400_and_a_status_in_its_encoding(
    bench: Bench, path: str, media_type: str, body: bytes
) -> None:
    response, answer = bench.post(path, body, media_type)
    assert response.status == 400
    assert response.headers["Content-Type"] == media_type
    status = status_of(answer, media_type)
    assert status.code == 3
    assert status.message
    # The connection goes on, and nothing of it was kept.
    assert bench.post("/v1/traces", traces().SerializeToString())[0].status == 200
    assert len(bench.close()) == 1


def test_a_cut_body_is_refused(bench: Bench) -> None:
    body = traces().SerializeToString()
    assert bench.post("/v1/traces", body[:-1])[0].status == 400
    assert (
        bench.post("/v1/traces", json_format.MessageToJson(traces()).encode()[:-1], JSON)[0].status
        == 400
    )


def test_a_body_of_another_signal_is_refused(bench: Bench) -> None:
    body = json_format.MessageToJson(metrics()).encode()
    assert bench.post("/v1/traces", body, JSON)[0].status == 400


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"\xff\xff\xff")],
    ids=["plain", "cut", "garbage inside"],
)
def test_damaged_gzip_gets_400(bench: Bench, body: bytes) -> None:
    response, answer = bench.post("/v1/traces", body, Content_Encoding="gzip")
    assert response.status == 400
    assert Status.FromString(answer).code == 3


def test_a_gzip_bomb_gets_413(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "MAX_INFLATED_BYTES", 1 << 20)
    bomb = gzip.compress(bytes(20 << 20))
    response, answer = bench.post("/v1/traces", bomb, Content_Encoding="gzip")
    assert response.status == 413
    assert "inflates" in Status.FromString(answer).message
    assert bench.close() == []


def test_a_large_body_gets_413_without_being_read(bench: Bench) -> None:
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"
    answer = bench.raw(f"{head}Content-Length: {1 << 40}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    chunk = f"{head}Transfer-Encoding: chunked\r\n\r\n{1 << 40:x}\r\n".encode()
    assert bench.raw(chunk).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Type: text/plain\r\nContent-Length: 1", 415),
        (f"Content-Type: {PROTOBUF}\r\nContent-Encoding: br\r\nContent-Length: 1", 415),
        ("Content-Length: 1", 415),
        (f"Content-Type: {PROTOBUF}", 411),
        (f"Content-Type: {PROTOBUF}\r\nContent-Length: many", 400),
        (f"Content-Type: {PROTOBUF}\r\nContent-Length: -1", 400),
        (f"Content-Type: {PROTOBUF}\r\nContent-Length: 100", 400),
        (f"Content-Type: {PROTOBUF}\r\nTransfer-Encoding: chunked", 400),
    ],
)
def test_wrong_headers_are_refused(bench: Bench, headers: str, status: int) -> None:
    request = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n\r\nx"
    assert bench.raw(request.encode()).startswith(f"HTTP/1.1 {status} ".encode())
    assert bench.close() == []


def test_other_paths_and_methods_are_refused(bench: Bench) -> None:
    assert bench.post("/v1/profiles", b"")[0].status == 404
    for path, status in (("/v1/traces", 405), ("/", 404)):
        bench.connection.request("GET", path)
        response = bench.connection.getresponse()
        response.read()
        assert response.status == status
    assert bench.raw(b"nonsense\r\n\r\n").find(b"400") > 0


def test_logs_are_taken_and_dropped(bench: Bench) -> None:
    assert bench.post("/v1/logs", b"whatever")[0].status == 200
    assert bench.receiver.received["logs"] == 1
    assert bench.close() == []


@pytest.mark.parametrize(
    "failure", [Overloaded(), SpoolFailed(OSError(28, "No space left on device"))]
)
def test_a_disk_that_cannot_follow_gets_503_with_retry_after(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def put(record: Record) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(bench.spool, "put", put)
        response, answer = bench.post("/v1/traces", traces().SerializeToString())
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert Status.FromString(answer).code == 14
    assert sum(bench.receiver.refused.values()) == 1
    assert bench.post("/v1/traces", traces().SerializeToString())[0].status == 200


def test_bodies_that_wait_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_MAX_IN_FLIGHT_BYTES", 10)
    held, release = threading.Event(), threading.Event()
    real = bench.spool.put

    def put(record: Record) -> None:
        held.set()
        release.wait(20)
        real(record)

    monkeypatch.setattr(bench.spool, "put", put)
    other = http.client.HTTPConnection("127.0.0.1", bench.receiver.port, timeout=20)
    other.request("POST", "/v1/traces", traces().SerializeToString(), {"Content-Type": PROTOBUF})
    assert held.wait(20)
    assert bench.post("/v1/traces", traces().SerializeToString())[0].status == 503
    release.set()
    assert other.getresponse().status == 200


def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_MAX_CONNECTIONS", 1)
    bench = Bench(tmp_path)
    assert bench.post("/v1/traces", b"")[0].status == 200
    second = socket.create_connection(("127.0.0.1", bench.receiver.port), timeout=20)
    with second, contextlib.suppress(ConnectionError):
        assert second.recv(1) == b""
    assert bench.receiver.refused["too many connections"] == 1
    bench.close()


def test_a_port_in_use_is_named(bench: Bench) -> None:
    port = bench.receiver.port
    with pytest.raises(RecordError, match=f"port {port} .* in use") as caught:
        Receiver(("127.0.0.1", port), bench.spool)
    assert str(port) in (caught.value.hint or "")
    with pytest.raises(RecordError, match="cannot listen"):
        Receiver(("192.0.2.1", 0), bench.spool)


def test_the_endpoint_is_one_that_exporters_on_this_machine_can_use(tmp_path: Path) -> None:
    spool = Spool(tmp_path, on_segment=lambda _: None)
    everywhere = Receiver(("0.0.0.0", 0), spool)
    try:
        assert everywhere.endpoint == f"http://127.0.0.1:{everywhere.port}"
        assert not everywhere.is_loopback
    finally:
        everywhere.close()
        spool.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4318", ("127.0.0.1", 4318)),
        (":9", ("127.0.0.1", 9)),
        ("9", ("127.0.0.1", 9)),
        ("localhost", ("localhost", 4318)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", 4318)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["127.0.0.1:port", "127.0.0.1:99999", "a b:1", "x" * 80, ":-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        parse_address(text)


def test_an_unmodified_sdk_exports_here(bench: Bench) -> None:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    for compression in (Compression.NoCompression, Compression.Gzip):
        exporter = OTLPSpanExporter(f"{bench.receiver.endpoint}/v1/traces", compression=compression)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for number in range(600):
        with tracer.start_as_current_span(f"span {number}"):
            pass
    provider.shutdown()
    assert bench.receiver.received["spans"] == 1200
    assert not bench.receiver.refused
    names = [
        span.name
        for record in bench.close()
        for resource in ExportTraceServiceRequest.FromString(record.content()).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(names) == sorted(2 * [f"span {number}" for number in range(600)])
