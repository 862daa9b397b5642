"""A span processor for your own service: says which thread and which process ran each span.

perfkit joins the code that py-spy saw to the requests that were served by thread and time. For that
a span must say on which operating system thread it began. Add to your OpenTelemetry set-up::

    from opentelemetry.sdk.trace import TracerProvider
    from perfkit.otel import SpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())        # before or after your exporter
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

It sets `thread.id` (the operating system's thread id, as py-spy shows it) and `process.pid`, unless
the span has them already, and costs about a microsecond a span. Both are read anew for each span,
so they stay right in workers that were forked after the set-up.

This module needs `opentelemetry-sdk`, which your service has, and nothing else of perfkit.
"""

from __future__ import annotations

import os
import threading

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace import SpanProcessor as _Base

__all__ = ["SpanProcessor"]


class SpanProcessor(_Base):
    """Sets `thread.id` and `process.pid` on every span when it starts."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the attributes; spans that are not recorded are left alone."""
        if not span.is_recording():
            return
        present = span.attributes or {}
        if "thread.id" not in present:
            span.set_attribute("thread.id", threading.get_native_id())
        if "process.pid" not in present:
            span.set_attribute("process.pid", os.getpid())

    def on_end(self, span: ReadableSpan) -> None:
        """Do nothing."""

    def shutdown(self) -> None:
        """Do nothing: nothing is held."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: nothing is held."""
        return True
