"""The OTLP/gRPC receiver, with a plain gRPC client and with unmodified SDKs."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from perfkit.collect.otlp import Receiver
from perfkit.collect.spool import Overloaded
from perfkit.errors import RecordError
from perfkit.journal import Kind
from tests.collect.otlp_bench import Bench, metrics, traces


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, grpc=True, token="s3cret")
    yield bench
    bench.close()


@pytest.fixture
def channel(bench: Bench) -> Iterator[grpc.Channel]:
    assert bench.receiver.grpc is not None
    with grpc.insecure_channel(f"127.0.0.1:{bench.receiver.grpc.port}") as channel:
        yield channel


TOKEN = (("authorization", "Bearer s3cret"),)


def refusal(call: Any, request: Any, **options: Any) -> tuple[grpc.StatusCode, Status]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20, **options)
    details = dict(caught.value.trailing_metadata()).get("grpc-status-details-bin", b"")
    return caught.value.code(), Status.FromString(details)


def test_traces_metrics_and_logs_are_taken(bench: Bench, channel: grpc.Channel) -> None:
    trace, metric = traces(), metrics()
    answer = TraceServiceStub(channel).Export(trace, metadata=TOKEN, timeout=20)
    assert answer.partial_success.rejected_spans == 0
    # gRPC inflates by itself.
    MetricsServiceStub(channel).Export(
        metric, metadata=TOKEN, compression=grpc.Compression.Gzip, timeout=20
    )
    logs = logs_service_pb2.ExportLogsServiceRequest()
    logs_service_pb2_grpc.LogsServiceStub(channel).Export(logs, metadata=TOKEN, timeout=20)
    assert bench.intake.received["spans"] == 2
    assert [(record.kind, record.body) for record in bench.close()] == [
        (Kind.TRACES_PROTOBUF, trace.SerializeToString()),
        (Kind.METRICS_PROTOBUF, metric.SerializeToString()),
    ]


def test_a_bad_span_is_a_partial_success(channel: grpc.Channel) -> None:
    request = traces()
    request.resource_spans[0].scope_spans[0].spans[0].span_id = b""
    answer = TraceServiceStub(channel).Export(request, metadata=TOKEN, timeout=20)
    assert answer.partial_success.rejected_spans == 1
    assert answer.partial_success.error_message == "span without ids"


def test_what_is_refused_has_the_code_of_the_specification(
    bench: Bench, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = TraceServiceStub(channel).Export
    code, status = refusal(export, traces())
    assert (code, status.code) == (grpc.StatusCode.UNAUTHENTICATED, 16)
    raw = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
    code, status = refusal(raw, b"\xff\xff\xff", metadata=TOKEN)
    assert (code, status.code) == (grpc.StatusCode.INVALID_ARGUMENT, 3)
    other = channel.unary_unary("/opentelemetry.proto.collector.profiles.v1.P/Export")
    assert refusal(other, b"", metadata=TOKEN)[0] == grpc.StatusCode.UNIMPLEMENTED

    def submit(*_: object) -> None:
        raise Overloaded("the disk cannot follow")

    with monkeypatch.context() as patch:
        patch.setattr(bench.spool, "submit", submit)
        code, status = refusal(export, traces(), metadata=TOKEN)
    assert code == grpc.StatusCode.UNAVAILABLE
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.seconds >= 1
    assert bench.intake.refused.total() == 3
    assert bench.intake.postponed.total() == 1
    export(traces(), metadata=TOKEN, timeout=20)


def test_what_is_too_large_is_refused_also_when_it_only_inflates_so(channel: grpc.Channel) -> None:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().schema_url = "x" * (21 << 20)
    assert len(gzip.compress(request.SerializeToString())) < 1 << 20
    export = TraceServiceStub(channel).Export
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        code, _ = refusal(export, request, metadata=TOKEN, compression=compression)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_port_in_use_is_named(bench: Bench) -> None:
    assert bench.receiver.grpc is not None
    taken = ("127.0.0.1", bench.receiver.grpc.port)
    with pytest.raises(RecordError, match=f"port {taken[1]} .* in use") as caught:
        Receiver(None, bench.spool, grpc=taken)
    assert "--otlp-grpc" in (caught.value.hint or "")


def test_without_grpcio_it_says_how_to_get_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "perfkit.collect.otlp_grpc", raising=False)
    with pytest.raises(RecordError, match="needs grpcio") as caught:
        Receiver(None, bench.spool, grpc=("127.0.0.1", 0))
    assert "perfkit[grpc]" in (caught.value.hint or "")


def test_unmodified_sdks_export_traces_and_metrics_here(bench: Bench) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    where = {"endpoint": bench.receiver.endpoints[1], "insecure": True, "headers": TOKEN}
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**where)))
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(**where))])
    counter = meters.get_meter("test").create_counter("orders", unit="{order}")
    tracer = provider.get_tracer("test")
    for number in range(600):
        with tracer.start_as_current_span(f"span {number}"):
            counter.add(1, {"kind": "a" if number % 2 else "b"})
    provider.shutdown()
    meters.shutdown()
    assert bench.intake.received["spans"] == 600
    assert bench.intake.received["metrics"] == 2
    assert not bench.intake.refused
