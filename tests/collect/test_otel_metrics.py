"""What a program measures of its garbage collector and its thread pools is what happened there."""

from __future__ import annotations

import gc
import os
import signal
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

from perfkit.otel_metrics import measure_garbage_collection, measure_thread_pools


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
