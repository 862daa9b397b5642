"""Chrome's Trace Event Format, for https://ui.perfetto.dev, chrome://tracing and speedscope.

A service is a process and its spans lie in lanes: a span is under its parent where they nest, and
in a lane of its own where siblings overlap, because the format can only draw what nests. A sampled
process has one row a thread. Times are µs since the first of them; `otherData` says when that was.
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from perfkit import __version__
from perfkit.errors import InputError
from perfkit.exporters.base import Source
from perfkit.exporters.threads import Thread, threads
from perfkit.ids import span_hex, trace_hex

NAME = "chrome"
SUFFIX = ".trace.json"
TITLE = "trace events, for ui.perfetto.dev and chrome://tracing"
VIEWS: tuple[str, ...] = ()
TABLES = False

_FIRST_SERVICE = 1 << 30
"""Numbers of the processes that stand for services; no real process has them."""
_EVENTS_A_PIECE = 10_000
_SPAN = (
    *("row", "parent_row", "start_ns", "end_ns", "service", "name", "category", "status"),
    *("trace_hi", "trace_lo", "span_id", "endpoint", "tool", "peer", "db_statement", "open"),
)
_ARGUMENTS = ("status", "endpoint", "tool", "peer", "db_statement")


def export(source: Source) -> Iterator[bytes]:
    """Yield the document."""
    spans = source.tables["tree"].select(_SPAN).collect()
    sampled = threads(source.tables)
    if spans.is_empty() and not sampled:
        raise InputError(
            "there is nothing to draw: no spans, and no stack samples with times",
            hint="loosen the filters, or record with --otlp (spans) and --pid (stacks)",
        )
    starts = [int(spans["start_ns"].min())] if spans.height else []  # type: ignore[arg-type]
    origin_ns = min([*starts, *(thread.origin_ns for thread in sampled)])
    events = itertools.chain(_of_spans(spans, origin_ns), _of_threads(sampled, source, origin_ns))
    head = {
        "exporter": f"perfkit {__version__}",
        "capture": source.name,
        "origin_unix_ns": str(origin_ns),
    }
    yield b'{"displayTimeUnit":"ms","otherData":' + msgspec.json.encode(head) + b',"traceEvents":['
    first = True
    while piece := list(itertools.islice(events, _EVENTS_A_PIECE)):
        yield (b"" if first else b",\n") + b",\n".join(map(msgspec.json.encode, piece))
        first = False
    yield b"]}\n"


def _of_spans(spans: pl.DataFrame, origin_ns: int) -> Iterator[dict[str, Any]]:
    services = {name: number for number, name in enumerate(spans["service"].unique().sort())}
    for name, number in services.items():
        yield from _named("process", _FIRST_SERVICE + number, 0, f"{name} (requests)")
    # Parents first where starts are equal, which is what the order of rows is.
    ordered = spans.sort("start_ns", "row")
    lanes = _Lanes()
    for span in ordered.iter_rows(named=True):
        pid = _FIRST_SERVICE + services[span["service"]]
        place = (span["row"], span["parent_row"], span["start_ns"], span["end_ns"])
        arguments = {name: span[name] for name in _ARGUMENTS if span[name] is not None}
        arguments["trace_id"] = trace_hex(span["trace_hi"], span["trace_lo"])
        arguments["span_id"] = span_hex(span["span_id"])
        if span["open"]:
            arguments["open"] = "had not ended when the capture did"
        yield {
            "ph": "X",
            "name": span["name"] or "(no name)",
            "cat": span["category"],
            "pid": pid,
            "tid": lanes.lane(pid, *place),
            "ts": (span["start_ns"] - origin_ns) / 1000,
            "dur": (span["end_ns"] - span["start_ns"]) / 1000,
            "args": arguments,
        }


class _Lanes:
    """Gives each span, in the order of starts, a lane in which it is within its parent or alone.

    A loop, because where a span goes depends on where all before it went.
    """

    def __init__(self) -> None:
        self._lane_of: dict[int, tuple[int, int]] = {}
        self._open: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """(process, lane) -> (row, end) of the spans that are open, the innermost last."""
        self._free: dict[int, list[tuple[int, int]]] = {}
        """Process -> heap of (end of the outermost span, lane)."""
        self._lanes: dict[int, int] = {}

    def lane(self, pid: int, row: int, parent: int | None, start: int, end: int) -> int:
        """Return the lane of a span."""
        place = self._lane_of.get(parent) if parent is not None else None
        if place is None or place[0] != pid or not self._fits(place, parent, start, end):
            place = (pid, self._unused(pid, start, end))
            self._open[place] = []
        self._open[place].append((row, end))
        self._lane_of[row] = place
        return place[1]

    def _fits(self, place: tuple[int, int], parent: int | None, start: int, end: int) -> bool:
        """Whether the parent is what is open in a lane now, and lasts long enough."""
        stack = self._open[place]
        while stack and stack[-1][0] != parent and stack[-1][1] <= start:
            stack.pop()
        return bool(stack) and stack[-1][0] == parent and stack[-1][1] >= end

    def _unused(self, pid: int, start: int, end: int) -> int:
        free = self._free.setdefault(pid, [])
        if free and free[0][0] <= start:
            _, lane = heapq.heappop(free)
        else:
            lane = self._lanes[pid] = self._lanes.get(pid, 0) + 1
        heapq.heappush(free, (end, lane))
        return lane


def _of_threads(sampled: list[Thread], source: Source, origin_ns: int) -> Iterator[dict[str, Any]]:
    if not sampled:
        return
    frames = _frames(source.tables["code_tree"].collect())
    for pid in dict.fromkeys(thread.pid or 0 for thread in sampled):
        yield from _named("process", pid, 0, f"pid {pid} (code)" if pid else "code")
    for number, thread in enumerate(sampled):
        tid = thread.tid if thread.tid is not None else number
        yield from _named("thread", thread.pid or 0, tid, thread.name)
        yield from _of_thread(thread, tid, frames, thread.origin_ns - origin_ns)


def _of_thread(
    thread: Thread, tid: int, frames: dict[int, list[tuple[str, str, str]]], shift_ns: int
) -> list[dict[str, Any]]:
    """Return one event for each function and as long as it stayed on the stack, callers first.

    In whole µs, so that a function ends exactly when its caller does.
    """
    place = {"ph": "X", "pid": thread.pid or 0, "tid": tid}
    events: list[tuple[int, int, dict[str, Any]]] = []
    now: list[tuple[str, str, str]] = []
    begun: list[int] = []
    reached = 0
    stretches = zip(thread.stacks, thread.starts_ns, thread.lengths_ns, strict=True)
    for stack_id, start_ns, length_ns in itertools.chain(stretches, [(None, 2**62, 0)]):
        then = frames.get(stack_id, []) if stack_id is not None else []
        start = (start_ns + shift_ns) // 1000
        kept = _shared(now, then) if start == reached else 0
        for depth in range(kept, len(now)):
            if reached > begun[depth]:
                name, category, where = now[depth]
                event = {**place, "name": name, "cat": category, "ts": begun[depth]}
                event |= {"dur": reached - begun[depth], "args": {"where": where}}
                events.append((begun[depth], depth, event))
        begun = begun[:kept] + [start] * (len(then) - kept)
        now, reached = then, (start_ns + length_ns + shift_ns) // 1000
    return [event for _, _, event in sorted(events, key=lambda one: one[:2])]


def _shared(now: list[tuple[str, str, str]], then: list[tuple[str, str, str]]) -> int:
    count = 0
    for one, other in zip(now, then, strict=False):
        if one != other:
            break
        count += 1
    return count


def _frames(code: pl.DataFrame) -> dict[int, list[tuple[str, str, str]]]:
    """Return stack -> (function, category, place) from the root to the leaf."""
    paths: list[list[tuple[str, str, str]]] = []
    rows = code.select("parent_id", "function", "category", "file", "line").iter_rows()
    for parent, function, category, file, line in rows:
        where = f"{file}:{line}" if line else file or ""
        own = (function or "(unknown)", category or "", where)
        paths.append([*(paths[parent] if parent is not None else ()), own])
    return dict(zip(code["stack_id"], paths, strict=True))


def _named(what: str, pid: int, tid: int, name: str) -> Iterator[dict[str, Any]]:
    shared = {"ph": "M", "pid": pid, "tid": tid, "ts": 0}
    yield {**shared, "name": f"{what}_name", "args": {"name": name}}
