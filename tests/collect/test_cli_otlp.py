"""`perfkit record --otlp` as its users run it, with programs that export by unmodified SDKs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perfkit.capture import Capture
from tests.collect.programs import PYTHON, script
from tests.collect.test_cli_record import perfkit

_EXPORTS = """
import sys
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
orders = meters.get_meter("test").create_counter("orders")
tracer = provider.get_tracer("test")
for number in range(1000):
    with tracer.start_as_current_span("step"):
        orders.add(1)
provider.shutdown()
meters.shutdown()
"""


@pytest.mark.parametrize(
    ("protocol", "listen"),
    [
        ("http", ("--otlp", "127.0.0.1:0")),
        ("http", ("--otlp", "0.0.0.0:0", "--otlp-grpc", "127.0.0.1:0")),
        ("grpc", ("--otlp-grpc", "127.0.0.1:0")),
    ],
)
def test_spans_and_metrics_come_with_a_token_that_is_never_shown(
    tmp_path: Path, protocol: str, listen: tuple[str, ...]
) -> None:
    command = (PYTHON, script(tmp_path, _EXPORTS), protocol)
    options = ("--no-stacks", "--no-metrics", "-o", "x.perfkit")
    done = perfkit(
        *("record", *listen, "--otlp-token=s3cretT0ken", *options, "--", *command),
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    capture = Capture.open(tmp_path / "x.perfkit")
    assert capture.info.rows["spans"] == 1000
    [orders] = capture.table("metrics").collect().to_dicts()
    assert (orders["name"], orders["value"]) == ("orders", 1000.0)
    assert "--otlp-token=***" in capture.info.command
    assert capture.info.lost == []
    everything = b"".join(p.read_bytes() for p in capture.path.rglob("*") if p.is_file())
    assert b"s3cretT0ken" not in everything + done.stderr.encode()
    if "0.0.0.0:0" in listen:
        assert any("with a token" in note for note in capture.info.notes)


_KNOWS_NOTHING = """
from opentelemetry import trace

tracer = trace.get_tracer("test")
for number in range(100):
    with tracer.start_as_current_span("step"):
        pass
"""


def test_an_instrumented_program_brings_the_token(tmp_path: Path) -> None:
    options = ("--instrument", "--otlp-token=s3cretT0ken", "--no-stacks", "--no-metrics")
    done = perfkit(
        *("record", *options, "-o", "x.perfkit", "--"),
        *(PYTHON, script(tmp_path, _KNOWS_NOTHING)),
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    capture = Capture.open(tmp_path / "x.perfkit")
    assert capture.table("spans").collect()["name"].to_list() == ["step"] * 100
    assert capture.info.lost == []
    everything = b"".join(p.read_bytes() for p in capture.path.rglob("*") if p.is_file())
    assert b"s3cretT0ken" not in everything + done.stderr.encode()


def test_listening_wide_without_a_token_is_warned_of(tmp_path: Path) -> None:
    options = ("--otlp", "0.0.0.0:0", "--no-metrics", "--no-stacks", "-o", "x.perfkit")
    done = perfkit("record", *options, "--", PYTHON, "-c", "pass", directory=tmp_path)
    assert done.returncode == 0
    assert "warning: other machines can send OTLP without a token" in done.stderr
    info = Capture.open(tmp_path / "x.perfkit").info
    assert any("without a token" in note for note in info.notes)


def test_a_token_that_cannot_be_one_is_refused_without_being_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PERFKIT_OTLP_TOKEN", "two words")
    done = perfkit("record", "--otlp", "127.0.0.1:0", directory=tmp_path)
    assert done.returncode == 2
    assert "bearer token" in done.stderr
    assert "two words" not in done.stderr
    assert list(tmp_path.iterdir()) == []
