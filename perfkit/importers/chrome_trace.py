"""Chrome's trace events as spans: Chromium, Perfetto's JSON, PyTorch's kineto, and many others.

Slices of one thread nest by their times, and so do asynchronous ones of one id; a slice that lies
in no other is the root of a trace of its own. Counters become metrics, instants events of the slice
around them, flow arrows links to where they come from. V8's profiles (`ProfileChunk`) become
samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.attributes import json_text
from perfkit.formats.spans import MIN_TIME_NS, Origin
from perfkit.importers import json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.chrome_events import Event, Slice, Trace, Track, decode, decoded
from perfkit.importers.chrome_flows import Placed
from perfkit.importers.rows import Id, MetricRows, SpanRows, an_id, anchor, from_process
from perfkit.semconv import Value

NAME = "chrome-trace"
FORMAT = Format(
    title="Chrome trace events",
    made_by="Chromium's tracing, Perfetto (JSON), PyTorch's profiler, clang, viztracer",
    recognised_by="events with `ph` and `ts`, in a list or in `traceEvents`",
    gives="spans (slices), span events (instants), span links (flows), metrics (counters), samples "
    "(V8's profiles)",
    lacks="wall-clock times in most (`--started-at`); which slice waits for which; status",
    tried="viztracer 1.1.1, Node 20.20.2, Chromium 156",
)

_MAX_DEPTH = 512
_MAX_ARGUMENT_BYTES = 4096
_EVENT = re.compile(rb'"ph"\s*:\s*"[A-Za-z(){}]')
_BEGINS = re.compile(rb'\{\s*"(?:ph|ts|name|cat|pid|tid|dur|id|args)"\s*:')
_BYTE = re.compile(r", byte (\d+)$")
_BASE = re.compile(rb'"baseTimeNanoseconds"\s*:\s*(\d{1,19})\b')


def sniff(head: bytes, path: Path) -> bool:
    """Recognise events by their phase and time."""
    del path
    return (
        head.lstrip()[:1] in (b"{", b"[")
        and (b'"traceEvents"' in head or _EVENT.search(head) is not None)
        and (b'"traceEvents"' in head or b'"ts"' in head)
        and b'"cat":"py-spy"' not in head.replace(b" ", b"")
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all events."""
    content = source.contents()
    trace = Trace()
    problem: Exception | None = None
    try:
        for place, raw in json_stream.elements(source, content, "traceEvents"):
            try:
                trace.take(decode(raw))
            except json_stream.BAD_JSON as error:
                source.pass_over(json_stream.refuse("a trace event", place, error))
    except InputError as error:
        # The closing bracket may be missing: the format's own description allows it.
        if not _unclosed(content, error) or not trace.slices:
            problem = error
            _take_rest(trace, content, error)
    _write(trace, source, writer, _base_ns(content))
    if content.find(b'"stackFrames"') >= 0 and content.find(b'"samples"') >= 0:
        writer.note(f"{source.name} has samples of stacks beside its events: they are left out")
    if problem is not None:
        raise problem


def _take_rest(trace: Trace, content: Any, error: InputError) -> None:
    """Take the events after a damage: each that is whole and has a phase."""
    match = _BYTE.search(str(error.where))
    for text in json_stream.after(content, int(match[1]), _BEGINS) if match else ():
        try:
            event = decode(text)
        except json_stream.BAD_JSON:
            continue
        if event.ph and event.ts is not None:
            trace.take(event)


def _unclosed(content: Any, error: InputError) -> bool:
    """Whether a list has all its events whole, and no end."""
    match = _BYTE.search(str(error.where))
    at = int(match[1]) if match else len(content)
    return "cut off" in str(error) and content[at : at + 64].strip() in (b"", b",")


def _base_ns(content: Any) -> int:
    match = _BASE.search(content)
    return int(match[1]) if match else 0


def _write(trace: Trace, source: Source, writer: CaptureWriter, base_ns: int) -> None:
    for reason, count in trace.left_out.items():
        writer.lose("rejected", count, reason)
    if trace.first is None:
        return
    offset_ns = base_ns
    if trace.first + base_ns < MIN_TIME_NS:
        begin_ns = anchor(source, writer, trace.last - trace.first)
        offset_ns = begin_ns - trace.first
    origins: dict[Any, Origin] = {}
    with SpanRows(source, writer) as rows:
        for track, slices in trace.slices.items():
            own = origins.get(track[1])
            if own is None:
                own = origins[track[1]] = _origin(trace, track[1])
            unique = f"{track} {trace.first} {len(slices)} {source.content_name}"
            placed = _nest(rows, trace, track, slices, own, offset_ns, unique)
            if trace.flows.on(track):
                for _ in range(trace.flows.place(track, placed)):
                    rows.reject("end of a flow outside of every slice")
        for (trace_id, span_id), source_span in trace.flows.arrows():
            rows.link(trace_id, span_id, *source_span)
    trace.profiles.write(source, writer, offset_ns, trace.threads)
    with MetricRows(source, writer) as metrics:
        for ts, event in trace.counters:
            _count(metrics, trace, ts + offset_ns, event)


def _origin(trace: Trace, pid: Any) -> Origin:
    name = trace.processes.get(pid)
    return from_process(name or f"process {pid}", process__pid=an_id(pid))


def _nest(
    rows: SpanRows,
    trace: Trace,
    track: Track,
    slices: list[Slice],
    own: Origin,
    offset_ns: int,
    unique: str,
) -> list[Placed]:
    """Write the slices of a track, each under the smallest that encloses it.

    Returns where they are, if arrows begin or end there.
    """
    placed: list[Placed] = []
    flows = trace.flows.on(track)
    instants = sorted(trace.instants.get(track, ()), key=lambda one: one.start)
    at = 0
    thread = an_id(track[2]) if track[0] == "thread" else None
    thread_name = trace.threads.get((track[1], track[2])) if track[0] == "thread" else None
    around: list[tuple[int, Id, int]] = []  # end, trace, span id
    for number, one in enumerate(sorted(slices, key=_order)):
        end = one.end if one.end is not None else trace.last
        while around and (around[-1][0] <= one.start or around[-1][0] < end):
            at = _events(rows, instants, at, around, around[-1][0], offset_ns)
            around.pop()
        at = _events(rows, instants, at, around, one.start, offset_ns)
        span_id = ids.span_id_from_text(f"span {number} {unique}")
        assert span_id is not None
        if around and len(around) < _MAX_DEPTH:
            trace_id, parent_id = around[-1][1], around[-1][2]
        else:
            trace_id, parent_id = ids.trace_id_from_text(f"trace {number} {unique}"), None
        duration_ns = one.end - one.start if one.end is not None else None
        attributes: dict[str, Value] = {
            "thread.id": thread,
            "thread.name": thread_name,
            "category": one.category,
            **_arguments(one),
        }
        start_ns = one.start + offset_ns
        good = rows.add(trace_id, span_id, parent_id, one.name, start_ns, duration_ns, own,
                        attributes, kind="internal")  # fmt: skip
        if good and flows:
            placed.append(Placed(one.start, end, (trace_id, span_id)))
        if good and one.bound is not None:
            trace.flows.bind(
                ("bind", one.bound.bind_id), one.start, (trace_id, span_id),
                into=bool(one.bound.flow_in), out=bool(one.bound.flow_out),
            )  # fmt: skip
        around.append((end, trace_id, span_id))
    while around:
        at = _events(rows, instants, at, around, around[-1][0], offset_ns)
        around.pop()
    if at < len(instants):
        rows.reject("instant outside of every slice")
    return placed


def _order(one: Slice) -> tuple[int, int]:
    return one.start, -(one.end if one.end is not None else 2**62)


def _events(
    rows: SpanRows,
    instants: list[Slice],
    at: int,
    around: list[tuple[int, Id, int]],
    before: int,
    offset_ns: int,
) -> int:
    """Write the instants up to a time into the innermost slice; returns how far it came."""
    while at < len(instants) and instants[at].start <= before:
        one = instants[at]
        at += 1
        if not around:
            rows.reject("instant outside of every slice")
            continue
        _, trace_id, span_id = around[-1]
        rows.event(trace_id, span_id, one.start + offset_ns, one.name, _arguments(one))
    return at


def _arguments(one: Slice) -> dict[str, Value]:
    args = decoded(one.args)
    if one.more is not None:
        args |= decoded(one.more)
    return {f"args.{key}": _bounded(value) for key, value in args.items() if value not in ("", [])}


def _bounded(value: Any) -> Value:
    if isinstance(value, (dict, list)):
        value = json_text(value)
    return value[:_MAX_ARGUMENT_BYTES] if isinstance(value, str) else value


def _count(metrics: MetricRows, trace: Trace, ts_ns: int, event: Event) -> None:
    pairs: Iterable[tuple[str, Any]] = decoded(event.args).items()
    service = trace.processes.get(event.pid)
    for key, value in _numbers(pairs):
        attributes: dict[str, Value] = {"series": key}
        instance = f"pid {event.pid}"
        metrics.add(ts_ns, event.name or "counter", "1", value, service=service,
                    instance=instance, attributes=attributes)  # fmt: skip


def _numbers(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    for key, value in pairs:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            yield key, float(value)
