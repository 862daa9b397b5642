"""What is sent of spans that do not end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Tracer
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware

from perfkit import semconv
from perfkit.collect.zero_code import perfkit_open_spans
from perfkit.collect.zero_code.perfkit_open_spans import OpenSpans
from perfkit.otel import SpanProcessor
from tests.collect.test_otel import Kept


def watched() -> tuple[Kept, OpenSpans, Tracer]:
    kept = Kept()
    receiver = SimpleSpanProcessor(kept)
    watcher = OpenSpans([receiver])
    provider = TracerProvider()
    for processor in (receiver, watcher, SpanProcessor()):
        provider.add_span_processor(processor)
    return kept, watcher, provider.get_tracer("test")


def sent_while(
    work: Callable[[Tracer], Coroutine[Any, Any, Any]], *, until: Callable[[], None] | None = None
) -> list[ReadableSpan]:
    """Return what is sent while a task waits."""
    kept, watcher, tracer = watched()

    async def main() -> None:
        task = asyncio.create_task(work(tracer))
        for _ in range(10):
            await asyncio.sleep(0)
        watcher.send_before(time.time_ns())
        if until is not None:
            until()
        task.cancel()

    asyncio.run(main())
    return [span for span in kept.spans if span.end_time is None]


async def reserve(lock: asyncio.Lock) -> None:
    await lock.acquire()


async def blocked(tracer: Tracer) -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    with tracer.start_as_current_span("GET /leak", attributes={"x": 1}):
        await reserve(lock)


def test_the_names_are_those_that_the_analysis_reads() -> None:
    names = (perfkit_open_spans.OPEN_NS, perfkit_open_spans.AWAITS)
    assert names == (semconv.OPEN_NS, semconv.AWAITS)


def test_a_span_that_waits_is_sent_with_the_place_and_without_an_end() -> None:
    (span,) = sent_while(blocked)
    attributes = dict(span.attributes or {})
    assert span.name == "GET /leak"
    assert 0 < attributes.pop("perfkit.open_ns") < 60_000_000_000
    assert attributes.pop("x") == 1
    assert {key: value for key, value in attributes.items() if "awaits" in key} == {
        "perfkit.awaits.function": "reserve",
        "perfkit.awaits.file": __file__,
        "perfkit.awaits.line": reserve.__code__.co_firstlineno + 1,
        "perfkit.awaits.call": "Lock.acquire"
        if hasattr(reserve.__code__, "co_qualname")
        else "acquire",
    }
    (encoded,) = encode_spans([span]).resource_spans[0].scope_spans[0].spans
    assert encoded.end_time_unix_nano == 0


def test_the_place_is_inside_what_a_middleware_runs() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    async def request(tracer: Tracer) -> None:
        with tracer.start_as_current_span("GET /leak"):
            await BaseHTTPMiddleware(endpoint, dispatch)(
                {"type": "http"}, asyncio.Event().wait, asyncio.Event().wait
            )

    (span,) = sent_while(request)
    name = str((span.attributes or {})["perfkit.awaits.function"])
    assert name.rpartition(".")[2] == "endpoint"


def test_one_that_computes_has_no_place() -> None:
    kept, watcher, tracer = watched()
    with tracer.start_as_current_span("job"):
        watcher.send_before(time.time_ns())
    sent, ended = kept.spans
    assert (sent.end_time, ended.end_time is None) == (None, False)
    assert not any("awaits" in key for key in sent.attributes or {})
    assert sent.context == ended.context


def test_each_is_sent_once_and_not_when_it_is_young_or_over() -> None:
    kept, watcher, tracer = watched()
    with tracer.start_as_current_span("over"):
        pass
    began = time.time_ns()
    with tracer.start_as_current_span("open"):
        watcher.send_before(began)
        assert [span.name for span in kept.spans] == ["over"]
        watcher.send_before(time.time_ns())
        watcher.send_before(time.time_ns())
        assert [span.name for span in kept.spans] == ["over", "open"]


def test_what_cannot_be_read_now_is_sent_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, watcher, tracer = watched()
    read = perfkit_open_spans._as_it_is

    def changing(span: Any) -> ReadableSpan:
        if span.name == "changing":
            raise RuntimeError("dictionary changed size during iteration")
        return read(span)

    with tracer.start_as_current_span("changing"), tracer.start_as_current_span("still"):
        with monkeypatch.context() as patch:
            patch.setattr(perfkit_open_spans, "_as_it_is", changing)
            watcher.send_before(time.time_ns())
        assert [span.name for span in kept.spans] == ["still"]
        watcher.send_before(time.time_ns())
        assert [span.name for span in kept.spans] == ["still", "changing"]


def test_what_runs_in_a_thread_has_no_place_on_the_loop() -> None:
    go_on = threading.Event()

    async def request(tracer: Tracer) -> None:
        with tracer.start_as_current_span("GET /report"):
            await run_in_threadpool(go_on.wait, 10)

    try:
        (span,) = sent_while(request, until=go_on.set)
    finally:
        go_on.set()
    assert not any("awaits" in key for key in span.attributes or {})


def test_a_web_socket_is_meant_to_stay_open() -> None:
    kept, watcher, tracer = watched()
    with tracer.start_as_current_span("GET /live", attributes={"url.scheme": "ws"}):
        watcher.send_before(time.time_ns())
        assert kept.spans == []


def test_a_span_that_is_dropped_without_an_end_is_forgotten() -> None:
    kept, watcher, tracer = watched()
    span = tracer.start_span("lost")
    del span
    gc.collect()
    watcher.send_before(time.time_ns())
    assert kept.spans == []


def test_a_forked_process_sends_what_it_began_itself(tmp_path: Path) -> None:
    kept, watcher, tracer = watched()
    with tracer.start_as_current_span("parent"):
        pid = os.fork()
        if pid == 0:
            with tracer.start_as_current_span("child"):
                watcher.send_before(time.time_ns())
            names = [span.name for span in kept.spans if span.end_time is None]
            (tmp_path / "names").write_text(" ".join(names))
            os._exit(0)
        os.waitpid(pid, 0)
    assert (tmp_path / "names").read_text() == "child"
