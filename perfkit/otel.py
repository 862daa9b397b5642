"""A span processor for your own service: says on which thread, and when, the code of a span ran.

perfkit joins the code that py-spy saw to the requests that were served, by process, thread and
time. `perfkit record --instrument -- CMD` does what follows by itself; otherwise add to your
OpenTelemetry set-up::

    from opentelemetry.sdk.trace import TracerProvider
    from perfkit.otel import SpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())        # before or after your exporter
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

Every span gets `thread.id` (the operating system's thread id, as py-spy shows it) and
`process.pid`, unless it has them already. Both are read anew for each span, so they stay right in
workers that were forked after the set-up.

On an event loop many spans are open on one thread at once. There every span also gets
`perfkit.steps`: the intervals in which it was the current span of the code that ran, as
`watch_event_loops` sees them. In microseconds, pairs of the gap since the end of the one before
(at first since the span's start) and the length; `@TID` says that those which follow are of another
thread, to which the event loop gave the work. It ends with a full stop; with `+` when there were
more intervals.

This module needs `opentelemetry-sdk`, which your service has, and nothing else of perfkit: it may
be copied into a service.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, Token
from typing import Any

from opentelemetry import context as _context
from opentelemetry import trace
from opentelemetry.context.context import Context, _RuntimeContext
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace import SpanProcessor as _Base

__all__ = ["SpanProcessor", "watch_event_loops"]

STEPS = "perfkit.steps"
_MAX_STEPS = 400
# Steps of one span that follow each other so closely are one: between them only the loop worked.
_LOOP_NS = 20_000


class SpanProcessor(_Base):
    """Sets `thread.id`, `process.pid` and, on event loops, `perfkit.steps`."""

    def __init__(self) -> None:
        """Also calls `watch_event_loops`."""
        watch_event_loops()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Set the attributes; spans that are not recorded are left alone."""
        if not span.is_recording():
            return
        present = span.attributes or {}
        if "thread.id" not in present:
            span.set_attribute("thread.id", threading.get_native_id())
        if "process.pid" not in present:
            span.set_attribute("process.pid", os.getpid())
        if _Thread.here().depth:
            _Steps.of(span)
            _watch_anyio()

    def on_end(self, span: ReadableSpan) -> None:
        """Do nothing."""

    def shutdown(self) -> None:
        """Do nothing: nothing is held."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: nothing is held."""
        return True


class _Steps:
    """The intervals in which one span was current."""

    __slots__ = ("begins", "ends", "full", "other", "task", "tids")

    def __init__(self) -> None:
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.tids: list[int] = []
        self.full = False
        self.task = asyncio.current_task()
        self.other: Any = None
        """The task that ran last for the span, of those that did not begin it."""

    @classmethod
    def of(cls, span: Any) -> None:
        """Collect the intervals of a span until it ends."""
        span._perfkit_steps = cls()
        # An ended span takes no attributes, and processors hear of the end only afterwards.
        span.end = functools.partial(_end, span)

    def add(self, tid: int, begin_ns: int, end_ns: int, *, joins: bool) -> None:
        """Add an interval; `joins`: nothing else had a step on the thread since the last one."""
        ends = self.ends
        if joins and ends and self.tids[-1] == tid and begin_ns - ends[-1] < _LOOP_NS:
            ends[-1] = end_ns
        elif len(ends) >= _MAX_STEPS:
            self.full = True
        else:
            self.begins.append(begin_ns)
            ends.append(end_ns)
            self.tids.append(tid)

    def text(self, start_ns: int, tid: int) -> str:
        """Return the value of the attribute; times count from `start_ns`."""
        parts, before_us = [], 0
        # Those of several threads come in any order.
        for begin, end, where in sorted(zip(self.begins, self.ends, self.tids, strict=True)):
            # Rounded inwards, so that steps of two spans never overlap.
            begin_us, end_us = -((start_ns - begin) // 1000), (end - start_ns) // 1000
            if end_us <= begin_us:
                continue
            if where != tid:
                parts.append(f"@{where}")
                tid = where
            parts.append(f"{begin_us - before_us} {end_us - begin_us}")
            before_us = end_us
        return " ".join([*parts, "+" if self.full else "."])


def _end(span: Any, end_time: int | None = None) -> None:
    """Stand in for `Span.end` of a span whose intervals are collected."""
    thread = _Thread.here()
    if thread.span is span:
        thread.switch(span)  # writes the interval that is open
    steps: _Steps | None = span.__dict__.pop("_perfkit_steps", None)
    span.__dict__.pop("end", None)
    if steps is not None and span.is_recording():
        tid = (span.attributes or {}).get("thread.id")
        if isinstance(tid, int) and span.start_time:
            span.set_attribute(STEPS, steps.text(span.start_time, tid))
    span.end(end_time)


class _Thread:
    """What runs on one thread."""

    __slots__ = ("depth", "last", "since_ns", "span", "tid")

    def __init__(self) -> None:
        self.tid = threading.get_native_id()
        self.depth = 0
        """Whether a step of a loop runs that we saw begin."""
        self.span: Any = None
        """The current span."""
        self.since_ns = 0
        self.last = 0
        """Identity of the span that was current before; 0 when other code ran since."""

    @staticmethod
    def here() -> _Thread:
        """Return the one of this thread."""
        try:
            return _threads.here  # type: ignore[no-any-return]
        except AttributeError:
            _threads.here = here = _Thread()
            return here

    def switch(self, span: Any) -> None:
        """Make another span current, or none."""
        before = self.span
        now_ns = time.time_ns()
        if before is not None:
            steps = getattr(before, "_perfkit_steps", None)
            if steps is not None and now_ns >= self.since_ns:
                steps.add(self.tid, self.since_ns, now_ns, joins=self.last == id(before))
            self.last = id(before)
        self.span = span
        self.since_ns = now_ns


_threads = threading.local()
_current: ContextVar[Any] = ContextVar("perfkit_current_span", default=None)
_watched: set[type] = set()


def watch_event_loops() -> None:
    """See which span is current when an event loop goes from one task to another.

    Python tells nobody of that. So `call_soon`, by which asyncio and uvloop schedule every step of
    a task, gets a frame of ours around each step, and OpenTelemetry's runtime context tells us of
    spans that become current within a step. Work that is given to a thread (`run_in_executor`,
    `asyncio.to_thread`, `anyio.to_thread.run_sync`, and with it the functions without `async` of
    FastAPI and Starlette) goes on for the same span. May be called again.

    Not seen: tasks that start eagerly (Python 3.12, by request only), and greenlets.
    """
    runtime = getattr(_context, "_RUNTIME_CONTEXT", None)
    if runtime is None or isinstance(runtime, _Runtime):
        return
    _context._RUNTIME_CONTEXT = _Runtime(runtime)
    _watch(asyncio.BaseEventLoop)


class _Runtime(_RuntimeContext):
    """OpenTelemetry's runtime context, with an eye on it."""

    def __init__(self, inner: _RuntimeContext) -> None:
        self._inner = inner
        self.get_current = inner.get_current  # type: ignore[method-assign]

    def attach(self, context: Context) -> Token[Context]:
        token = self._inner.attach(context)
        _notice()
        return token

    def get_current(self) -> Context:
        return self._inner.get_current()

    def detach(self, token: Token[Context]) -> None:
        try:
            self._inner.detach(token)
        finally:
            _notice()


def _notice() -> None:
    """Take note of what is the current span now."""
    span: Any = trace.get_current_span()
    if span is trace.INVALID_SPAN:
        span = None
    _current.set(span)
    thread = _Thread.here()
    if not thread.depth:
        loop = asyncio._get_running_loop()
        if loop is not None:
            # Of a step that we did not see begin we would not see the end either.
            _watch(type(loop))
            return
    if span is not thread.span:
        thread.switch(span)


def _step(callback: Callable[..., Any], *args: Any) -> None:
    """Run one step of a loop."""
    thread, span = _Thread.here(), _current.get()
    outer = thread.span
    thread.depth += 1
    if span is not outer:
        thread.switch(span)
    if span is None:
        thread.last = 0
    elif (steps := getattr(span, "_perfkit_steps", None)) is not None:
        task = getattr(callback, "__self__", None)
        if task is not steps.task and isinstance(task, asyncio.Task):
            steps.other = task
    try:
        callback(*args)
    finally:
        thread.depth -= 1
        if thread.span is not outer:
            thread.switch(outer)


def _carried(span: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Run on another thread what a span gave to it."""
    thread = _Thread.here()
    thread.switch(span)
    try:
        return function(*args)
    finally:
        thread.switch(None)


def _watch(loop_class: type) -> None:
    """Put our frame around what loops of this class run."""
    if loop_class in _watched or any(base in _watched for base in loop_class.__mro__[1:]):
        return
    _watched.add(loop_class)
    call_soon, run_in_executor = loop_class.call_soon, loop_class.run_in_executor  # type: ignore[attr-defined]

    @functools.wraps(call_soon)
    def watched_call_soon(self: Any, callback: Any, *args: Any, context: Any = None) -> Any:
        return call_soon(self, _step, callback, *args, context=context)

    @functools.wraps(run_in_executor)
    def watched_run_in_executor(self: Any, executor: Any, func: Any, *args: Any) -> Any:
        span = _current.get()
        if span is None or not (executor is None or isinstance(executor, ThreadPoolExecutor)):
            return run_in_executor(self, executor, func, *args)
        return run_in_executor(self, executor, _carried, span, func, *args)

    with contextlib.suppress(TypeError):  # a class that cannot be changed is not watched
        loop_class.call_soon = watched_call_soon  # type: ignore[attr-defined]
        loop_class.run_in_executor = watched_run_in_executor  # type: ignore[attr-defined]


def _watch_anyio() -> None:
    module: Any = sys.modules.get("anyio.to_thread")
    if module is None or module in _watched:
        return
    _watched.add(module)
    run_sync = module.run_sync

    @functools.wraps(run_sync)
    async def watched_run_sync(func: Any, *args: Any, **options: Any) -> Any:
        span = _current.get()
        if span is None:
            return await run_sync(func, *args, **options)
        return await run_sync(_carried, span, func, *args, **options)

    module.run_sync = watched_run_sync


if hasattr(os, "register_at_fork"):
    # The thread that forked lives on in the child under another number.
    os.register_at_fork(after_in_child=lambda: _threads.__dict__.clear())
