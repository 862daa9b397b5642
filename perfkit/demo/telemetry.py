"""OpenTelemetry for both services: providers, exporters and the instrumentation of libraries.

The standard environment variables are in force: `OTEL_EXPORTER_OTLP_ENDPOINT` (nothing is exported
without it), `OTEL_SERVICE_NAME`, `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_METRIC_EXPORT_INTERVAL` and the
others that the SDK reads.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable

from opentelemetry import context, metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from starlette.applications import Starlette

EXPORT_TIMEOUT_S = 5
"""A collector that is away delays the end of the process by this, once for each signal."""

DEFAULTS = {
    # The stable names of the HTTP and database conventions instead of the former ones.
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database",
    # The SDK's own 5 s and 60 s are long for a run of 20 s.
    "OTEL_BSP_SCHEDULE_DELAY": "1000",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
}


class ThreadProcessor(SpanProcessor):
    """Notes on every span the thread that started it, by the number that the system gives it.

    Profilers name threads by that number, so that stacks can be laid beside spans.
    """

    def on_start(self, span: Span, parent_context: context.Context | None = None) -> None:
        """Set `thread.id` and `thread.name`."""
        span.set_attribute("thread.id", threading.get_native_id())
        span.set_attribute("thread.name", threading.current_thread().name)


def configure(service_name: str) -> Callable[[], None]:
    """Set the global providers up and return the function that flushes and ends them.

    `service_name` is used unless `OTEL_SERVICE_NAME` says otherwise. Call this before an engine or
    a client is made.
    """
    for name, value in {**DEFAULTS, "OTEL_SERVICE_NAME": service_name}.items():
        os.environ.setdefault(name, value)
    resource = Resource.create(
        {"process.pid": os.getpid(), "service.instance.id": str(uuid.uuid4())},
    )
    tracer_provider = TracerProvider(resource=resource)
    tracer_provider.add_span_processor(ThreadProcessor())
    readers: list[MetricReader] = []
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        span_exporter = OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)
        tracer_provider.add_span_processor(BatchSpanProcessor(span_exporter))
        metric_exporter = OTLPMetricExporter(timeout=EXPORT_TIMEOUT_S)
        readers.append(PeriodicExportingMetricReader(metric_exporter))
    meter_provider = MeterProvider(metric_readers=readers, resource=resource)
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(meter_provider)
    instrument_libraries()

    def shutdown() -> None:
        tracer_provider.shutdown()
        meter_provider.shutdown()

    return shutdown


def instrument_libraries() -> None:
    """Instrument the SQLAlchemy engines and the httpx clients that are made from now on."""
    SQLAlchemyInstrumentor().instrument()
    HTTPXClientInstrumentor().instrument()


def instrument_app(app: Starlette) -> None:
    """Instrument a Starlette application, so that every request has a server span."""
    StarletteInstrumentor.instrument_app(app)
