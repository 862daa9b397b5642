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
from typing import Any

import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from perfkit.bodies import decode
from perfkit.collect import http_server, intake
from perfkit.collect.otlp import Receiver, parse_address
from perfkit.collect.spool import Overloaded, Spool, SpoolFailed
from perfkit.errors import RecordError, UsageError
from perfkit.journal import Kind, Record
from tests.collect.otlp_bench import JSON, PROTOBUF, START_NS, Bench, metrics, traces


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
    received = dict(bench.intake.received)
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


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"trace_id": b""}, "span without ids"),
        ({"span_id": bytes(8)}, "span without ids"),
        ({"end_time_unix_nano": START_NS - 1}, "span that ends before it starts"),
        ({"start_time_unix_nano": 0}, "span without a plausible start time"),
        (
            {"start_time_unix_nano": START_NS // 1000, "end_time_unix_nano": START_NS // 1000 + 1},
            "span whose start is not in nanoseconds since 1970",
        ),
        ({"end_time_unix_nano": 2 * START_NS}, "span longer than a year"),
    ],
)
def test_spans_that_cannot_be_taken_are_a_partial_success(
    bench: Bench, media_type: str, change: dict[str, Any], why: str
) -> None:
    request = traces()
    for name, value in change.items():
        setattr(request.resource_spans[0].scope_spans[0].spans[0], name, value)
    status, answer = bench.export("/v1/traces", request, media_type)
    assert status == 200
    assert (answer.partial_success.rejected_spans, answer.partial_success.error_message) == (1, why)
    assert bench.intake.received["spans"] == 1
    # The compaction refuses the same, and counts it.
    [record] = bench.close()
    assert decode(record).rejected == {why: 1}


def test_a_body_full_of_nothing_good_is_a_partial_success_too(bench: Bench) -> None:
    request = traces()
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.span_id = b""
    status, answer = bench.export("/v1/traces", request)
    assert (status, answer.partial_success.rejected_spans) == (200, 2)


def test_text_that_is_not_utf8_costs_no_span(bench: Bench) -> None:
    request = traces()
    attribute = request.resource_spans[0].scope_spans[0].spans[1].attributes.add(key="evil")
    attribute.value.string_value = "abcd"
    body = request.SerializeToString().replace(b"abcd", b"\xff\xfe\xfd\xfc")
    response, answer = bench.post("/v1/traces", body)
    assert (response.status, answer) == (200, b"")
    assert bench.intake.received["spans"] == 2
    [record] = bench.close()
    batch = decode(record)
    assert (batch.rows("spans"), batch.rejected) == (2, {})
    assert "\ufffd" * 4 in batch.tables["spans"]["attributes"][1]


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
def test_a_huge_attribute_is_kept(bench: Bench, media_type: str) -> None:
    request = traces()
    attribute = request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="long")
    attribute.value.string_value = "x" * 1_000_000
    status, answer = bench.export("/v1/traces", request, media_type)
    assert (status, answer) == (200, ExportTraceServiceResponse())
    [record] = bench.close()
    assert len(decode(record).tables["spans"]["attributes"][0]) > 1_000_000


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
def test_metric_points_that_cannot_be_taken_are_a_partial_success(
    bench: Bench, media_type: str
) -> None:
    request = metrics()
    points = request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    points.add(time_unix_nano=5, as_double=1)
    points.add(time_unix_nano=START_NS, as_double=float("inf"))
    status, answer = bench.export("/v1/metrics", request, media_type)
    assert status == 200
    assert answer.partial_success.rejected_data_points == 2
    assert "not in nanoseconds" in answer.partial_success.error_message
    assert bench.intake.received["metrics"] == 1


def test_the_latency_of_requests_is_watched(bench: Bench) -> None:
    for media_type in (PROTOBUF, JSON):
        bench.export("/v1/traces", traces(), media_type)
    assert bench.intake.latency.quantile(0.5) == pytest.approx(1000, rel=0.02)
    assert bench.intake.latency.recent_quantile(0.5, 2) is not None
    assert bench.intake.latency.recent_quantile(0.5, 3) is None


def test_only_the_right_token_is_taken(tmp_path: Path) -> None:
    bench = Bench(tmp_path, token="s3cret")
    body = traces().SerializeToString()
    for given in (
        None,
        "s3cret",
        "Bearer wrong",
        "Basic s3cret",
        "Bearer s3cret2",
        "Bearer sécret",
    ):
        headers = {} if given is None else {"Authorization": given.encode().decode("latin-1")}
        response, answer = bench.post("/v1/traces", body, **headers)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert Status.FromString(answer).code == 16
        assert b"s3cret" not in answer
    assert bench.post("/v1/traces", body, Authorization="Bearer s3cret")[0].status == 200
    assert bench.intake.refused.total() == 6
    assert "s3cret" not in str(bench.intake.refused)
    assert len(bench.close()) == 1


def test_a_stranger_cannot_make_us_read_a_body(tmp_path: Path) -> None:
    bench = Bench(tmp_path, token="s3cret")
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"
    answer = bench.raw(f"{head}Content-Length: {1 << 20}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 401 ")
    bench.close()


def test_gzip_of_many_members_is_refused(bench: Bench) -> None:
    body = gzip.compress(b"") * 100_000
    assert bench.post("/v1/traces", body, Content_Encoding="gzip")[0].status == 400
    assert (
        bench.post("/v1/traces", gzip.compress(b"") * 50, Content_Encoding="gzip")[0].status == 200
    )


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
    monkeypatch.setattr(intake, "MAX_INFLATED_BYTES", 1 << 20)
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
    answer = bench.raw(chunk + bytes(intake.MAX_BODY_BYTES + 1))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert f"{intake.MAX_BODY_BYTES} bytes".encode() in answer


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
    assert bench.intake.received["logs"] == 1
    assert bench.close() == []


@pytest.mark.parametrize(
    "failure", [Overloaded(), SpoolFailed(OSError(28, "No space left on device"))]
)
def test_a_disk_that_cannot_follow_gets_503_with_retry_after(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def submit(*_: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(bench.spool, "submit", submit)
        response, answer = bench.post("/v1/traces", traces().SerializeToString())
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert Status.FromString(answer).code == 14
    assert bench.intake.postponed.total() == 1
    assert not bench.intake.refused
    assert bench.post("/v1/traces", traces().SerializeToString())[0].status == 200


def test_bodies_that_wait_are_bounded(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    held_disk: tuple[threading.Event, threading.Event],
) -> None:
    monkeypatch.setattr(intake, "_MAX_IN_FLIGHT_BYTES", 10)
    asked, go_on = held_disk
    other = http.client.HTTPConnection("127.0.0.1", bench.port, timeout=20)
    other.request("POST", "/v1/traces", traces().SerializeToString(), {"Content-Type": PROTOBUF})
    assert asked.wait(20)
    assert bench.post("/v1/traces", traces().SerializeToString())[0].status == 503
    go_on.set()
    assert other.getresponse().status == 200
    assert bench.post("/v1/traces", traces().SerializeToString())[0].status == 200


def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 1)
    bench = Bench(tmp_path)
    assert bench.post("/v1/traces", b"")[0].status == 200
    second = socket.create_connection(("127.0.0.1", bench.port), timeout=20)
    with second, contextlib.suppress(ConnectionError):
        answer = second.recv(1000)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: 1\r\n" in answer
    assert bench.intake.postponed == {"503 Service Unavailable: too many connections": 1}
    bench.close()


def test_a_port_in_use_is_named(bench: Bench) -> None:
    port = bench.port
    with pytest.raises(RecordError, match=f"port {port} .* in use") as caught:
        Receiver(("127.0.0.1", port), bench.spool)
    assert str(port) in (caught.value.hint or "")
    with pytest.raises(RecordError, match="cannot listen"):
        Receiver(("192.0.2.1", 0), bench.spool)


def test_the_endpoint_is_one_that_exporters_on_this_machine_can_use(tmp_path: Path) -> None:
    spool = Spool(tmp_path, on_segment=lambda _: None)
    everywhere = Receiver(("0.0.0.0", 0), spool)
    try:
        assert everywhere.http is not None
        assert everywhere.endpoints == [f"http://127.0.0.1:{everywhere.http.port}"]
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
        exporter = OTLPSpanExporter(
            f"{bench.receiver.endpoints[0]}/v1/traces", compression=compression
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for number in range(600):
        with tracer.start_as_current_span(f"span {number}"):
            pass
    provider.shutdown()
    assert bench.intake.received["spans"] == 1200
    assert not bench.intake.refused
    names = [
        span.name
        for record in bench.close()
        for resource in ExportTraceServiceRequest.FromString(record.content()).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(names) == sorted(2 * [f"span {number}" for number in range(600)])
