"""The span processor that users put into their own service."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest import mock

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from perfkit.otel import SpanProcessor, measure_garbage_collection, measure_thread_pools


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


def test_garbage_collection_is_measured() -> None:
    reader = InMemoryMetricReader()
    with mock.patch.object(metrics, "get_meter", MeterProvider([reader]).get_meter):
        measure_garbage_collection()
    gc.collect()
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name: {
            point.attributes["cpython.gc.generation"]: point.value
            for point in metric.data.data_points
        }
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    assert found["cpython.gc.collections"][2] == gc.get_stats()[2]["collections"]
    assert 0 < found["cpython.gc.pause.time"][2] < 60
    assert set(found) == {
        f"cpython.gc.{name}"
        for name in ("collections", "collected_objects", "uncollectable_objects", "pause.time")
    }


@contextmanager
def measured_pools() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    with (
        mock.patch.object(metrics, "get_meter", MeterProvider([reader]).get_meter),
        mock.patch.object(ThreadPoolExecutor, "submit", ThreadPoolExecutor.submit),
    ):
        measure_thread_pools()
        yield reader


def queues(reader: InMemoryMetricReader) -> dict[tuple[str, object], float]:
    """Return what was measured, by the metric's last word and the pool."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        (metric.name.rpartition(".")[2], point.attributes["executor"]): point.value
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
        if point.attributes["process.pid"] == os.getpid()
    }


def test_jobs_that_wait_for_a_thread_are_measured() -> None:
    with measured_pools() as reader, ThreadPoolExecutor(2, "small") as pool:
        go_on, both_run = threading.Event(), threading.Barrier(3)
        first = [pool.submit(lambda: (both_run.wait(), go_on.wait())) for _ in range(2)]
        both_run.wait()
        assert queues(reader) == {("time", "small"): 0.0, ("most", "small"): 0}
        began = time.perf_counter()
        jobs = [pool.submit(pow, base, 2) for base in range(4)]
        assert jobs[3].cancel()
        submitted = time.perf_counter()
        three_s = 3 * (time.perf_counter() - submitted)
        waiting = queues(reader)
        # Three have waited since then, the fourth is gone.
        assert three_s <= waiting["time", "small"] <= 4 * (time.perf_counter() - began)
        assert waiting["most", "small"] == 4
        go_on.set()
        assert [job.result() for job in jobs[:3]] == [0, 1, 4]
        assert all(job.result() for job in first)
        after = queues(reader)
        assert after["time", "small"] >= waiting["time", "small"]
        assert after["most", "small"] == 3
        # Nobody waits any more.
        assert queues(reader) == {("time", "small"): after["time", "small"], ("most", "small"): 0}


def test_a_pool_that_has_a_thread_for_each_job_has_no_queue() -> None:
    with measured_pools() as reader:
        with ThreadPoolExecutor(3, "large") as pool:
            assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]
            with pytest.raises(ZeroDivisionError):
                pool.submit(lambda: 1 // 0).result()
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(abs, 1)
        assert queues(reader) == {("time", "large"): 0.0, ("most", "large"): 0}


def test_a_job_that_is_given_in_the_middle_of_counting_another_is_no_deadlock() -> None:
    # As a finalizer or a signal handler does, which run between any two instructions.
    with measured_pools(), ThreadPoolExecutor(1, "again") as pool:
        pool.submit(abs, 1).result()
        jobs = pool.__dict__["_perfkit_jobs"]
        done: list[int] = []

        def interrupted() -> None:
            with jobs.lock, jobs.queue.lock:
                done.append(pool.submit(abs, -2).result())

        thread = threading.Thread(target=interrupted, daemon=True)
        thread.start()
        thread.join(20)
        assert done == [2]


def test_a_child_that_forks_while_a_thread_counts_goes_on() -> None:
    with measured_pools() as reader:
        pool = ThreadPoolExecutor(1, "forked")
        pool.submit(abs, 1).result()
        jobs = pool.__dict__["_perfkit_jobs"]
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with jobs.lock, jobs.queue.lock:
                held.set()
                go_on.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(20)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            # No thread of it lives here, so what counts is that the job is taken.
            pool.submit(abs, 1)
            os._exit(0 if set(queues(reader)) == {("time", "forked"), ("most", "forked")} else 1)
        go_on.set()
        thread.join()
        pool.shutdown()
        assert os.waitpid(pid, 0)[1] == 0
