"""Sends spans that do not end: a request that hangs would be in no trace.

A span that has been open for ten seconds is sent once as it is, without an end: with how long it
has been open, and the place where its task waits. perfkit takes the one that comes later, with an
end, in its stead. Only for exporters of perfkit's own: others take a span without an end for a
broken one.

Imports nothing of perfkit, which may be in another environment; runs on Python 3.9 and later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sysconfig
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

AFTER_S = 10.0
"""So long a span is open before it is sent (house; most calls have answered or failed by then)."""
OPEN_NS = "perfkit.open_ns"
AWAITS = "perfkit.awaits."
_EVERY_S = 1.0
_MAX_FRAMES = 500
_MIDDLEWARE = "call_next"
_TO_THREAD = "run_in_threadpool"
_STANDARD = os.path.join(sysconfig.get_path("stdlib"), "")
_INSTALLED = ("site-packages", "dist-packages")


class OpenSpans(SpanProcessor):
    """Sends what is open for long to other processors, as if it had ended."""

    def __init__(self, receivers: Sequence[SpanProcessor]) -> None:
        """Start to watch, here and in every process that is forked."""
        self._receivers = receivers
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # What was open at a fork goes on in the parent.
        self._open: dict[int, weakref.ref[Any]] = {}
        threading.Thread(target=self._watch, name="perfkit-open-spans", daemon=True).start()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Keep a span in sight."""
        if span.is_recording():
            # Held weakly: a span that nobody ends must not stay in memory.
            self._open[span.context.span_id] = weakref.ref(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Lose sight of it."""
        if span.context is not None:
            self._open.pop(span.context.span_id, None)

    def _watch(self) -> None:
        while True:
            time.sleep(_EVERY_S)
            self.send_before(time.time_ns() - int(AFTER_S * 1e9))

    def send_before(self, before_ns: int) -> None:
        """Send the open spans that began before a time, each once."""
        for span_id, reference in self._open.copy().items():
            span = reference()
            if span is None:
                self._open.pop(span_id, None)
            elif span.start_time <= before_ns:
                # The program may change it while it is read; the next look is in a second.
                with contextlib.suppress(Exception):
                    self._send(span_id, span)

    def _send(self, span_id: int, span: Any) -> None:
        sent = None if _lasts(span) else _as_it_is(span)
        if self._open.pop(span_id, None) is not None and sent is not None:
            for receiver in self._receivers:
                receiver.on_end(sent)


def _lasts(span: Any) -> bool:
    """Return whether a span is that of a WebSocket, which is meant to stay open."""
    attributes = span.attributes or {}
    return any(attributes.get(key) in ("ws", "wss") for key in ("url.scheme", "http.scheme"))


def _as_it_is(span: Any) -> ReadableSpan:
    open_ns = time.time_ns() - span.start_time
    place = _place(_frames_of(span))
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={**(span.attributes or {}), OPEN_NS: open_ns, **place},
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _frames_of(span: Any) -> list[FrameType]:
    """Return the frames in which the task of a span waits, from the outermost; none if it runs."""
    steps: Any = getattr(span, "_perfkit_steps", None)  # of perfkit's other processor
    frames = list(_frames(getattr(steps, "task", None)))
    if any(frame.f_code.co_name == _MIDDLEWARE for frame in frames):
        # Starlette's BaseHTTPMiddleware runs what is inside it in another task.
        frames = list(_frames(steps.other)) or frames
    return frames


def _place(frames: Sequence[FrameType]) -> dict[str, str | int]:
    """Return the innermost place in code that is no library's, and what is awaited in the end.

    None where Starlette runs a function without `async` in a thread: that has a stack of its own.
    """
    if not frames or any(frame.f_code.co_name == _TO_THREAD for frame in frames):
        return {}
    own = [frame for frame in frames if not _is_library(frame.f_code.co_filename)]
    frame, last = (own or frames)[-1], frames[-1]
    place: dict[str, str | int] = {
        AWAITS + "function": _name(frame.f_code),
        AWAITS + "file": frame.f_code.co_filename,
        AWAITS + "line": frame.f_lineno or frame.f_code.co_firstlineno,
    }
    if last is not frame:
        place[AWAITS + "call"] = _name(last.f_code)
    return place


def _is_library(file: str) -> bool:
    return file.startswith(_STANDARD) or any(name in file.split(os.sep) for name in _INSTALLED)


def _frames(task: Any) -> Iterator[FrameType]:
    """Yield the frames of a task's coroutine and of what it awaits."""
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) and not task.done() else None
    for _ in range(_MAX_FRAMES):
        for frame, awaits in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom")):
            found = getattr(coroutine, frame, None)
            if found is not None:
                yield found
                coroutine = getattr(coroutine, awaits)
                break
        else:
            return


def _name(code: CodeType) -> str:
    return getattr(code, "co_qualname", code.co_name).replace("<locals>.", "")


def watch(provider: Any) -> None:
    """Send open spans to the exporters that a provider of the SDK has now."""
    present: Iterable[SpanProcessor] = provider._active_span_processor._span_processors
    provider.add_span_processor(OpenSpans(tuple(present)))
