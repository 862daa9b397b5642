"""The commands: start, telemetry over OTLP, a clean end, and one line for what goes wrong."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette

from perfkit.demo import measure
from perfkit.demo.gateway import main
from perfkit.demo.problems import PROBLEMS
from perfkit.demo.processes import ServiceError, running
from perfkit.demo.serving import serve

from .harness import AGENT

CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "check-stock", "arguments": {"sku": "sku-1"}},
}


@contextmanager
def collector() -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """Take OTLP over HTTP; yields the endpoint and, for each path, the bodies received."""
    bodies: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/metrics": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            bodies[self.path].append(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def text_attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def test_everything_is_exported_before_the_processes_end() -> None:
    with collector() as (endpoint, bodies):
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "HTTP_PROXY": "http://127.0.0.1:1",  # Must not be used on this machine.
            "OTEL_BSP_SCHEDULE_DELAY": "60000",  # Only the end of the process flushes.
            "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        }
        with running("perfkit.demo.backend", environment=environment) as backend:
            options = ("--backend-url", backend.url, "--mend", "all")
            environment["OTEL_SERVICE_NAME"] = "my-gateway"
            with running("perfkit.demo.gateway", *options, environment=environment) as gateway:
                for _ in range(5):
                    httpx.post(f"{gateway.url}/tools/invoke", json=CALL, headers=AGENT)
                assert not bodies["/v1/traces"]
                for process, ending in (
                    (gateway.process, signal.SIGTERM),
                    (backend.process, signal.SIGINT),
                ):
                    process.send_signal(ending)
                    assert process.wait(20) == 0
                pids = {"my-gateway": gateway.process.pid, "tool-backend": backend.process.pid}

    spans_of: dict[str, list[Any]] = {"my-gateway": [], "tool-backend": []}
    for body in bodies["/v1/traces"]:
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = text_attributes(part.resource.attributes)
            assert resource["process.pid"] == pids[resource["service.name"]]
            for scope in part.scope_spans:
                spans_of[resource["service.name"]] += scope.spans
    spans = spans_of["my-gateway"]
    names = [span.name for span in spans]
    assert "SELECT gateway.db" in names
    assert names.count("POST /tools/invoke") == 5
    assert names.count("tools/call check-stock") == 5
    assert all(text_attributes(span.attributes)["thread.id"] > 0 for span in spans)
    callers = {span.span_id for span in spans if span.name == "GET"}
    answers = [span for span in spans_of["tool-backend"] if span.name.endswith("{subject}")]
    assert {span.parent_span_id for span in answers} == callers
    assert len(callers) == 5

    metrics = {}
    for body in bodies["/v1/metrics"]:
        for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for meter in measured.scope_metrics:
                metrics.update({metric.name: metric for metric in meter.metrics})
    assert {
        "http.server.request.duration",
        "http.client.request.duration",
        "mcp.server.operation.duration",
        "db.client.connections.usage",
        "db.client.connection.count",
        "db.client.connection.max",
    } <= metrics.keys()
    sizes = {
        text_attributes(point.attributes)["db.client.connection.pool.name"]: point.as_int
        for point in metrics["db.client.connection.max"].sum.data_points
    }
    assert sizes == {"store": 8, "inventory": 8}


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=60
    )


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            serve(Starlette(), port, ready_file=None)
    assert ended.value.code == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port"
    )


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--data-dir", "/dev/null/x", "cannot use the data directory /dev/null/x: Not a dir"),
        ("--database-url", "sqlite:////nowhere/x.db", "cannot use the database: "),
    ],
)
def test_a_place_that_cannot_be_used_is_told_in_one_line(
    option: str, value: str, complaint: str
) -> None:
    ended = run("perfkit.demo.gateway", "--backend-url", "http://127.0.0.1:1", option, value)
    assert ended.returncode == 1
    assert ended.stderr.startswith(complaint)
    assert ended.stderr.count("\n") == 1


def test_an_unknown_problem_is_a_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--backend-url", "http://127.0.0.1:1", "--mend", "cash"])
    assert ended.value.code == 2
    assert "there is no problem 'cash': choose from cache, pool" in capsys.readouterr().err


def test_a_service_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(ServiceError, match="there is no problem 'x'"),
        running("perfkit.demo.gateway", "--backend-url", "http://127.0.0.1:1", "--only", "x"),
    ):
        pass


@pytest.mark.parametrize(
    ("module", "arguments", "missing"),
    [
        ("gateway", ["--backend-url", "http://127.0.0.1:1"], "starlette"),
        ("gateway", ["--backend-url", "http://127.0.0.1:1"], "opentelemetry"),
        ("backend", [], "uvicorn"),
        ("load", ["--url", "http://127.0.0.1:1"], "httpx"),
    ],
)
def test_a_missing_package_is_told_in_one_line(
    module: str, arguments: list[str], missing: str
) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from perfkit.demo import {module}\n"
        f"{module}.main({arguments!r})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "pip install 'perfkit[demo]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_measuring_tells_what_mending_saves() -> None:
    def summary(total_ms: float) -> dict[str, Any]:
        tool = {"p50_ms": total_ms / 2, "p95_ms": total_ms, "total_ms": total_ms}
        return {"total_ms": 1000, "rss_growth_mib": 7.4, "tools": {"plan-trip": tool}}

    problems = {problem.name: problem for problem in PROBLEMS}
    assert measure.rows(problems["serial"], summary(400), summary(150)) == [
        "| serial | plan-trip | 200 / 400 ms | 75 / 150 ms | 25.0% |"
    ]
    assert measure.rows(problems["leak"], summary(400), summary(150)) == [
        "| leak | growth of resident memory | 7 MiB | 7 MiB | |"
    ]
    assert measure.resident_mib(os.getpid()) > 1
