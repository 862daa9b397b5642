"""Receives from the OpenTelemetry SDK of Node.js, unmodified, with its batch exporters."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from perfkit.capture import Capture
from tests.collect.test_cli_record import perfkit

pytestmark = pytest.mark.real

_PACKAGES = (
    "@opentelemetry/api@1",
    "@opentelemetry/exporter-metrics-otlp-proto@0.223",
    "@opentelemetry/exporter-trace-otlp-grpc@0.223",
    "@opentelemetry/exporter-trace-otlp-http@0.223",
    "@opentelemetry/exporter-trace-otlp-proto@0.223",
    "@opentelemetry/sdk-metrics@2",
    "@opentelemetry/sdk-node@0.223",
)

# Everything by its defaults: BatchSpanProcessor, and the address from the environment.
_PROGRAM = """
const kind = process.argv[2];
const { NodeSDK } = require('@opentelemetry/sdk-node');
const { trace, metrics, SpanKind, SpanStatusCode } = require('@opentelemetry/api');
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-' + kind);
const { OTLPMetricExporter } = require('@opentelemetry/exporter-metrics-otlp-proto');
const { PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');
const sdk = new NodeSDK({
  serviceName: 'shop-' + kind,
  traceExporter: new OTLPTraceExporter(),
  metricReaders: kind === 'grpc' ? [] : [
    new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter() })],
});
sdk.start();
const tracer = trace.getTracer('test');
const orders = metrics.getMeter('test').createCounter('orders');
async function main() {
  for (let i = 0; i < 1000; i++) {
    const span = tracer.startSpan('order', {
      kind: SpanKind.SERVER,
      attributes: { 'http.route': '/orders/{id}', 'http.request.method': 'GET', n: i } });
    if (i % 100 === 0) {
      span.recordException(new Error('naïve'));
      span.setStatus({ code: SpanStatusCode.ERROR, message: 'out of stock' });
    }
    span.end();
    orders.add(1);
    if (i % 200 === 0) await new Promise(done => setTimeout(done, 20));
  }
  await sdk.shutdown();
}
main();
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the SDK into a folder of its own; skip where that cannot be done."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no node, or no npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text(json.dumps({"private": True}))
    command = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *_PACKAGES)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip("the registry of npm did not answer in time")
    if done.returncode:
        pytest.skip(f"npm install failed: {done.stderr.strip().splitlines()[-1:]}")
    (folder / "program.js").write_text(_PROGRAM)
    return folder


@pytest.mark.parametrize("kind", ["proto", "http", "grpc"])
def test_spans_and_metrics_of_node_arrive_whole(node: Path, tmp_path: Path, kind: str) -> None:
    """`proto` is protobuf over HTTP, `http` is JSON over HTTP."""
    listen = "--otlp-grpc" if kind == "grpc" else "--otlp"
    options = (
        listen,
        "127.0.0.1:0",
        "--no-stacks",
        "--no-metrics",
        "-o",
        str(tmp_path / "x.perfkit"),
    )
    done = perfkit("record", *options, "--", "node", "program.js", kind, directory=node)
    assert done.returncode == 0, done.stderr
    capture = Capture.open(tmp_path / "x.perfkit")
    assert capture.info.lost == []
    spans = capture.table("spans").collect()
    assert spans.height == 1000
    assert set(spans["service"]) == {f"shop-{kind}"}
    assert set(spans["endpoint"]) == {"GET /orders/{id}"}
    assert sorted(json.loads(text)["n"] for text in spans["attributes"]) == list(range(1000))
    assert spans.filter(status="error", status_message="out of stock").height == 10
    events = capture.table("span_events").collect()
    assert events.height == 10
    assert "naïve" in events["attributes"][0]
    if kind != "grpc":
        metrics = capture.table("metrics").collect().filter(name="orders")
        assert metrics["value"].max() == 1000.0
