"""The span processor that users put into their own service."""

from __future__ import annotations

import os
import threading

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from perfkit.otel import SpanProcessor


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: object) -> SpanExportResult:
        self.spans += spans  # type: ignore[operator]
        return SpanExportResult.SUCCESS


def provider(kept: Kept) -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(kept))
    made.add_span_processor(SpanProcessor())
    return made


def test_spans_say_their_thread_and_process() -> None:
    kept = Kept()
    tracer = provider(kept).get_tracer("test")
    native: list[int] = []

    def work() -> None:
        native.append(threading.get_native_id())
        with tracer.start_as_current_span("work"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (span,) = kept.spans
    assert dict(span.attributes or {}) == {"thread.id": native[0], "process.pid": os.getpid()}


def test_attributes_that_are_there_are_left_alone() -> None:
    kept = Kept()
    tracer = provider(kept).get_tracer("test")
    with tracer.start_as_current_span("work", attributes={"thread.id": 5, "x": 1}):
        pass
    assert dict(kept.spans[0].attributes or {})["thread.id"] == 5


def test_forked_workers_say_their_own_process() -> None:
    kept = Kept()
    made = provider(kept)
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        with made.get_tracer("test").start_as_current_span("work"):
            pass
        attributes = kept.spans[-1].attributes or {}
        os.write(write_fd, f"{attributes['process.pid']} {attributes['thread.id']}".encode())
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        assert pipe.read() == f"{pid} {pid}"
    os.waitpid(pid, 0)


def test_spans_that_are_not_sampled_cost_nothing_and_shutdown_is_quiet() -> None:
    made = TracerProvider(sampler=ALWAYS_OFF)
    processor = SpanProcessor()
    made.add_span_processor(processor)
    with made.get_tracer("test").start_as_current_span("work"):
        pass
    assert processor.force_flush()
    made.shutdown()
