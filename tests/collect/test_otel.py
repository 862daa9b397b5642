"""The span processor that users put into their own service."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from perfkit.otel import SpanProcessor


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: object) -> SpanExportResult:
        self.spans += spans
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


LOOP = """
import asyncio, json, threading, time
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from perfkit.otel import SpanProcessor, watch_event_loops

kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
provider.add_span_processor(SpanProcessor())
watch_event_loops()  # a second time does nothing
tracer = provider.get_tracer("test")
truth = {}

def busy(name):
    begin = time.time_ns()
    while time.time_ns() < begin + 2_000_000:
        pass
    truth.setdefault(name, []).append((begin, time.time_ns(), threading.get_native_id()))

async def below(name):
    busy(name)
    await asyncio.sleep(0)
    busy(name)

async def work(name):
    with tracer.start_as_current_span(name):
        for _ in range(3):
            busy(name)
            await asyncio.sleep(0)
        with tracer.start_as_current_span(name + " child"):
            busy(name + " child")
            await asyncio.sleep(0.005)
            busy(name + " child")
        await asyncio.to_thread(busy, name)
        await asyncio.gather(below(name), below(name))
        with tracer.start_span("never current"):
            await asyncio.sleep(0)

async def main():
    await asyncio.gather(*(work(f"work {number}") for number in range(4)))

asyncio.run(main())
with tracer.start_as_current_span("not on a loop"):
    pass
print(json.dumps([
    [[span.name, span.start_time, dict(span.attributes)] for span in kept.get_finished_spans()],
    truth,
]))
"""


def test_steps_on_a_loop_hold_the_code_that_ran() -> None:
    """In a process of its own: what is watched stays watched."""
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, check=True)
    spans, truth = json.loads(done.stdout)
    steps: dict[str, list[tuple[int, int, int]]] = {}
    for name, start_ns, attributes in spans:
        if name == "not on a loop":
            assert "perfkit.steps" not in attributes
            continue
        if name == "never current":
            assert attributes["perfkit.steps"] == "."
            continue
        tid, at_ns = attributes["thread.id"], start_ns
        *tokens, end = attributes["perfkit.steps"].split()
        assert end == "."
        numbers: list[int] = []
        for token in tokens:
            if token.startswith("@"):
                tid = int(token[1:])
                continue
            numbers.append(int(token))
            if len(numbers) == 2:
                begin_ns = at_ns + numbers[0] * 1000
                at_ns = begin_ns + numbers[1] * 1000
                steps.setdefault(name, []).append((begin_ns, at_ns, tid))
                numbers = []
    assert len(steps) == 8
    for name, pieces in truth.items():
        for begin_ns, end_ns, tid in pieces:
            # Times are rounded inwards to microseconds.
            assert [
                each
                for each in steps[name]
                if each[0] - 1000 <= begin_ns and end_ns <= each[1] + 1000 and each[2] == tid
            ], (name, begin_ns, end_ns)
    # On one thread never two at once.
    every = sorted((tid, begin, end) for name in steps for begin, end, tid in steps[name])
    for before, after in itertools.pairwise(every):
        assert before[0] != after[0] or after[1] >= before[2] - 1000


def test_steps_beyond_the_limit_are_said_to_be_missing() -> None:
    code = LOOP.replace("range(3)", "range(900)").replace("2_000_000", "1000")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spans, _ = json.loads(done.stdout)
    texts = [attributes["perfkit.steps"] for name, _, attributes in spans if name == "work 1"]
    assert texts[0].endswith(" +")
    assert len(texts[0].split()) == 801
