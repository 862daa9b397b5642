"""A receiver on a free port, bodies to send to it, and what it wrote."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from perfkit.collect.otlp import Receiver
from perfkit.collect.spool import Spool
from perfkit.journal import Record, read_segment
from tests.formats.build_otlp import as_json

PROTOBUF, JSON = "application/x-protobuf", "application/json"
START_NS = 1_700_000_000_000_000_000


def traces() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    times = {"start_time_unix_nano": START_NS, "end_time_unix_nano": START_NS + 1000}
    scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="one", kind=2, **times)
    scope.spans.add(trace_id=b"t" * 16, span_id=b"r" * 8, name="two", **times)
    return request


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="load")
    metric.gauge.data_points.add(time_unix_nano=START_NS, as_double=0.5)
    return request


class Bench:
    """A receiver on a free port, and what it wrote."""

    def __init__(self, directory: Path, *, grpc: bool = False, token: str | None = None) -> None:
        self.closed = False
        self.segments: list[Path] = []
        self.spool = Spool(directory, on_segment=self.segments.append)
        anywhere = ("127.0.0.1", 0)
        self.receiver = Receiver(anywhere, self.spool, grpc=anywhere if grpc else None, token=token)
        self.intake = self.receiver.intake
        assert self.receiver.http is not None
        self.port = self.receiver.http.port
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def post(
        self, path: str, body: bytes, media_type: str = PROTOBUF, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("POST", path, body, {"Content-Type": media_type, **named})
        response = self.connection.getresponse()
        return response, response.read()

    def export(self, path: str, request: Message, media_type: str = PROTOBUF) -> tuple[int, Any]:
        """Send a message; returns the HTTP status and the Export…ServiceResponse."""
        body = request.SerializeToString() if media_type == PROTOBUF else as_json(request)
        response, answer = self.post(path, body, media_type)
        expected = ExportTraceServiceResponse if "traces" in path else ExportMetricsServiceResponse
        if media_type == PROTOBUF:
            return response.status, expected.FromString(answer)
        return response.status, json_format.Parse(answer, expected())

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
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
