"""Metrics for your own service: what its garbage collector does, how long jobs wait for threads.

`perfkit record --instrument -- CMD` does what follows by itself; otherwise call, once the global
meter provider is set::

    from perfkit.otel_metrics import measure_garbage_collection, measure_thread_pools

    measure_garbage_collection()
    measure_thread_pools()

This module needs `opentelemetry-api`, which your service has, and nothing else of perfkit: it may
be copied into a service.
"""

from __future__ import annotations

import functools
import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from opentelemetry import metrics

__all__ = ["measure_garbage_collection", "measure_thread_pools"]

_MAX_POOLS = 50
"""Names of thread pools that are told apart; all others are one."""


def measure_garbage_collection() -> None:
    """Export what the garbage collector does, as metrics of the global meter provider.

    `cpython.gc.collections`, `.collected_objects` and `.uncollectable_objects` are OpenTelemetry's;
    `cpython.gc.pause.time` (seconds in which everything waited for the collector) is our own. Each
    has the attribute `cpython.gc.generation`.
    """
    meter = metrics.get_meter("perfkit")
    paused_ns = [0] * len(gc.get_stats())
    began_ns = 0

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal began_ns
        if phase == "start":
            began_ns = time.perf_counter_ns()
        elif began_ns:
            paused_ns[info["generation"]] += time.perf_counter_ns() - began_ns
            began_ns = 0

    def observe(read: Callable[[int], float]) -> Any:
        return lambda _: [
            metrics.Observation(read(number), {"cpython.gc.generation": number})
            for number in range(len(paused_ns))
        ]

    gc.callbacks.append(watch)
    for name, unit, key in (
        ("collections", "{collection}", "collections"),
        ("collected_objects", "{object}", "collected"),
        ("uncollectable_objects", "{object}", "uncollectable"),
    ):
        callback = observe(lambda number, key=key: gc.get_stats()[number][key])  # type: ignore[misc]
        meter.create_observable_counter(f"cpython.gc.{name}", [callback], unit)
    callback = observe(lambda number: paused_ns[number] / 1e9)
    meter.create_observable_counter("cpython.gc.pause.time", [callback], "s")


class _Queue:
    """Jobs that wait for a thread, of all thread pools with one name.

    Its lock may be taken again by who has it: finalizers and signal handlers give jobs, too.
    """

    __slots__ = ("joined_ns", "lock", "most", "waited_ns", "waiting")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.waiting = self.most = self.waited_ns = 0
        self.joined_ns = 0
        """Sum of the moments at which those that wait joined."""

    def join(self) -> _Waiting:
        """Let one more wait from now on."""
        waiting = _Waiting(self)
        with self.lock:
            self.waiting += 1
            self.joined_ns += waiting.joined_ns
            self.most = max(self.most, self.waiting)
        return waiting

    def time_s(self) -> float:
        """Return for how many seconds jobs have waited, those that still do included."""
        with self.lock:
            until_now_ns = self.waiting * time.perf_counter_ns() - self.joined_ns
            return (self.waited_ns + until_now_ns) / 1e9

    def worst(self) -> int:
        """Return how many waited at once, at most, since the last time."""
        with self.lock:
            most, self.most = self.most, self.waiting
            return most


class _Waiting:
    """A job that waits for a thread."""

    __slots__ = ("joined_ns", "queue")

    def __init__(self, queue: _Queue) -> None:
        self.queue: _Queue | None = queue
        self.joined_ns = time.perf_counter_ns()

    def leave(self) -> None:
        """Wait no more: a thread has begun it, or it was cancelled. May be called again."""
        queue, self.queue = self.queue, None
        if queue is not None:
            with queue.lock:
                queue.waiting -= 1
                queue.joined_ns -= self.joined_ns
                queue.waited_ns += time.perf_counter_ns() - self.joined_ns


def _begin(waiting: _Waiting, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a job that has waited for a thread."""
    waiting.leave()
    return function(*args, **options)


class _Jobs:
    """How many jobs one thread pool has been given that are not done."""

    __slots__ = ("given", "lock", "queue", "threads")

    def __init__(self, queue: _Queue, threads: int) -> None:
        self.queue, self.threads = queue, threads
        self.lock = threading.RLock()
        self.given = 0

    def give(self) -> _Waiting | None:
        """Take one more; return its waiting if every thread has one already."""
        with self.lock:
            self.given += 1
            full = self.given > self.threads
        return self.queue.join() if full else None

    def done(self, waiting: _Waiting | None, _: object = None) -> None:
        """Take note that one is done, cancelled or refused."""
        with self.lock:
            self.given -= 1
        if waiting is not None:
            waiting.leave()


def measure_thread_pools() -> None:
    """Export how long jobs wait for a thread of a `ThreadPoolExecutor`, as metrics.

    `perfkit.executor.queue.time` (seconds, added up over jobs) counts a job from `submit` on, if
    all threads that the pool may have had one, until a thread begins it or it is cancelled.
    `perfkit.executor.queue.most` is how many waited at once, since the reading before. Of the
    global meter provider, with the attributes `executor` (what the threads are called, without
    their number) and `process.pid`, of every pool that was given a job since this was called.
    """
    queues: dict[str, _Queue] = {}
    submit: Any = ThreadPoolExecutor.submit

    def jobs_of(pool: ThreadPoolExecutor) -> _Jobs:
        name = pool._thread_name_prefix or ""
        name = name if name in queues or len(queues) < _MAX_POOLS else "(others)"
        queue = queues.get(name) or queues.setdefault(name, _Queue())
        jobs: _Jobs | None = pool.__dict__.get("_perfkit_jobs")
        if jobs is None or jobs.queue is not queue:  # of before a fork, where nobody frees its lock
            jobs = pool.__dict__["_perfkit_jobs"] = _Jobs(queue, pool._max_workers)
        return jobs

    @functools.wraps(submit)
    def measured_submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        jobs = jobs_of(self)
        waiting = jobs.give()
        future: Future[Any]
        try:
            if waiting is None:
                future = submit(self, fn, *args, **kwargs)
            else:
                future = submit(self, _begin, waiting, fn, *args, **kwargs)
        except BaseException:
            jobs.done(waiting)
            raise
        future.add_done_callback(functools.partial(jobs.done, waiting))
        return future

    def observe(read: Callable[[_Queue], float]) -> Any:
        return lambda _: [
            metrics.Observation(read(queue), {"executor": name, "process.pid": os.getpid()})
            for name, queue in list(queues.items())
        ]

    ThreadPoolExecutor.submit = measured_submit  # type: ignore[method-assign, assignment]
    if hasattr(os, "register_at_fork"):
        # No thread of a pool lives on in a child, so nothing waits there that did so here.
        os.register_at_fork(after_in_child=queues.clear)
    meter = metrics.get_meter("perfkit")
    meter.create_observable_counter("perfkit.executor.queue.time", [observe(_Queue.time_s)], "s")
    meter.create_observable_gauge("perfkit.executor.queue.most", [observe(_Queue.worst)], "{job}")
