"""Chrome's trace events as spans: Chromium, Perfetto's JSON, PyTorch's kineto, and many others.

Slices of one thread nest by their times, and so do asynchronous ones of one id; a slice that lies
in no other is the root of a trace of its own. Counters become metrics, instants events of the slice
around them, flow arrows links to where they come from. V8's profiles (`ProfileChunk`) become
samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.attributes import json_text
from perfkit.formats.spans import MIN_TIME_NS, Origin
from perfkit.importers import json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.chrome_flows import Flows, Placed
from perfkit.importers.chrome_profile import Profiles
from perfkit.importers.rows import Id, MetricRows, SpanRows, an_id, anchor, from_process, scaled
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

_US = 1000
_MAX_DEPTH = 512
_MAX_TEXTS = 100_000
_MAX_ARGUMENT_BYTES = 4096
_EVENT = re.compile(rb'"ph"\s*:\s*"[A-Za-z(){}]')
_BEGINS = re.compile(rb'\{\s*"(?:ph|ts|name|cat|pid|tid|dur|id|args)"\s*:')
_BYTE = re.compile(r", byte (\d+)$")
_BASE = re.compile(rb'"baseTimeNanoseconds"\s*:\s*(\d{1,19})\b')
_METADATA = ("M",)
_INSTANTS = ("i", "I", "R", "n")
_FLOWS = ("s", "t", "f")
_SKIPPED = ("P", "O", "N", "D", "v", "V", "c", "(", ")", "T", "p")
_PROFILES = ("Profile", "ProfileChunk")
Number = int | float | str | None


class _Event(msgspec.Struct):
    ph: str = ""
    ts: Number = None
    dur: Number = None
    pid: int | str | None = None
    tid: int | str | None = None
    name: str | None = None
    cat: str | None = None
    id: int | str | None = None
    id2: Any = None
    bp: str | None = None
    bind_id: int | str | None = None
    flow_in: bool | None = None
    flow_out: bool | None = None
    args: msgspec.Raw = msgspec.Raw(b"")


_event = msgspec.json.Decoder(_Event)

_Track = tuple[Any, ...]
"""What nests by times: the slices of one thread, or of one asynchronous id."""


@dataclass(slots=True)
class _Slice:
    start: int
    end: int | None
    name: str
    category: str | None
    args: msgspec.Raw
    """As they are in the file; there are millions of slices, and all must be there to be nested."""
    order: int
    bound: _Event | None = None
    """The event, when an arrow begins or ends in it."""
    more: msgspec.Raw | None = None
    """Arguments at its end."""


@dataclass
class _Trace:
    slices: dict[_Track, list[_Slice]] = field(default_factory=dict)
    open: dict[_Track, list[_Slice]] = field(default_factory=dict)
    instants: dict[_Track, list[_Slice]] = field(default_factory=dict)
    counters: list[tuple[int, _Event]] = field(default_factory=list)
    processes: dict[Any, str] = field(default_factory=dict)
    threads: dict[tuple[Any, Any], str] = field(default_factory=dict)
    texts: dict[str | None, str | None] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    profiles: Profiles = field(default_factory=Profiles)
    flows: Flows = field(default_factory=Flows)
    first: int | None = None
    last: int = 0

    def text(self, text: str | None) -> str | None:
        """Return the one text that is equal: names repeat, and are not kept a million times."""
        return self.texts.setdefault(text, text) if len(self.texts) < _MAX_TEXTS else text

    def drop(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


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
    trace = _Trace()
    problem: Exception | None = None
    try:
        for place, raw in json_stream.elements(source, content, "traceEvents"):
            try:
                _take(trace, _event.decode(raw))
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


def _take_rest(trace: _Trace, content: Any, error: InputError) -> None:
    """Take the events after a damage: each that is whole and has a phase."""
    match = _BYTE.search(str(error.where))
    for text in json_stream.after(content, int(match[1]), _BEGINS) if match else ():
        try:
            event = _event.decode(text)
        except json_stream.BAD_JSON:
            continue
        if event.ph and event.ts is not None:
            _take(trace, event)


def _unclosed(content: Any, error: InputError) -> bool:
    """Whether a list has all its events whole, and no end."""
    match = _BYTE.search(str(error.where))
    at = int(match[1]) if match else len(content)
    return "cut off" in str(error) and content[at : at + 64].strip() in (b"", b",")


def _base_ns(content: Any) -> int:
    match = _BASE.search(content)
    return int(match[1]) if match else 0


def _take(trace: _Trace, event: _Event) -> None:
    phase = event.ph
    if phase in _METADATA:
        name = _decoded(event.args).get("name")
        if event.name == "process_name" and name:
            trace.processes[event.pid] = str(name)
        elif event.name == "thread_name" and name:
            trace.threads[event.pid, event.tid] = str(name)
        return
    profiled = phase == "P" and event.name in _PROFILES
    if not profiled and (phase in _SKIPPED or not phase):
        trace.drop("sample or other event that is no slice")
        return
    ts = scaled(event.ts, _US)
    if ts is None or abs(ts) > 4 * 10**18:
        trace.drop("event without a plausible time")
        return
    trace.first = ts if trace.first is None else min(trace.first, ts)
    trace.last = max(trace.last, ts)
    if profiled:
        refusal = trace.profiles.take(event.pid, event.tid, event.id, event.name or "",
                                     _decoded(event.args))  # fmt: skip
        if refusal is not None:
            trace.drop(refusal)
        return
    track = _track(event)
    if phase in _FLOWS:
        key = (event.cat, event.name, _id(event))
        trace.flows.take(track, ts, phase, key, enclosing=event.bp == "e")
        return
    bound = event if event.bind_id is not None and (event.flow_in or event.flow_out) else None
    slice_ = _Slice(ts, None, trace.text(event.name) or "", trace.text(event.cat), event.args,
                    len(trace.counters), bound)  # fmt: skip
    if phase == "X":
        duration = scaled(event.dur if event.dur is not None else 0, _US)
        if duration is None or not 0 <= duration < 4 * 10**18:
            trace.drop("event with an implausible duration")
            return
        slice_.end = ts + duration
        trace.last = max(trace.last, slice_.end)
        trace.slices.setdefault(track, []).append(slice_)
    elif phase in ("B", "b", "S"):
        trace.open.setdefault(track, []).append(slice_)
        trace.slices.setdefault(track, []).append(slice_)
    elif phase in ("E", "e", "F"):
        _close(trace, track, ts, event)
    elif phase in _INSTANTS:
        trace.instants.setdefault(track, []).append(slice_)
    elif phase == "C":
        trace.counters.append((ts, event))
    else:
        trace.drop("event of an unknown phase")


def _track(event: _Event) -> _Track:
    if event.ph in ("b", "e", "n", "S", "F"):
        return ("async", event.pid, event.cat, _id(event))
    return ("thread", event.pid, event.tid)


def _id(event: _Event) -> Any:
    """Return an event's id; the local one of a process together with that."""
    if event.id2 is None:
        return event.id
    local = isinstance(event.id2, dict) and "local" in event.id2
    return (event.pid if local else None, json_text(event.id2))


def _close(trace: _Trace, track: _Track, ts: int, event: _Event) -> None:
    """End the innermost open slice, or the one of the event's name when another is innermost."""
    stack = trace.open.get(track)
    if not stack:
        trace.drop("end of a slice that did not begin")
        return
    at = len(stack) - 1
    if event.name:
        at = next((n for n in range(at, -1, -1) if stack[n].name == event.name), at)
    slice_ = stack.pop(at)
    if ts < slice_.start:
        slice_.end = slice_.start
        trace.drop("slice that ends before it starts, taken as of no length")
    else:
        slice_.end = ts
    slice_.more = event.args


def _write(trace: _Trace, source: Source, writer: CaptureWriter, base_ns: int) -> None:
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


def _origin(trace: _Trace, pid: Any) -> Origin:
    name = trace.processes.get(pid)
    return from_process(name or f"process {pid}", process__pid=an_id(pid))


def _nest(
    rows: SpanRows,
    trace: _Trace,
    track: _Track,
    slices: list[_Slice],
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


def _order(one: _Slice) -> tuple[int, int]:
    return one.start, -(one.end if one.end is not None else 2**62)


def _events(
    rows: SpanRows,
    instants: list[_Slice],
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


def _arguments(one: _Slice) -> dict[str, Value]:
    args = _decoded(one.args)
    if one.more is not None:
        args |= _decoded(one.more)
    return {f"args.{key}": _bounded(value) for key, value in args.items() if value not in ("", [])}


def _decoded(args: msgspec.Raw) -> dict[str, Any]:
    """Return the arguments of an event; none where they are no object."""
    try:
        found = msgspec.json.decode(args) if args else None
    except json_stream.BAD_JSON:
        return {}
    return found if isinstance(found, dict) else {}


def _bounded(value: Any) -> Value:
    if isinstance(value, (dict, list)):
        value = json_text(value)
    return value[:_MAX_ARGUMENT_BYTES] if isinstance(value, str) else value


def _count(metrics: MetricRows, trace: _Trace, ts_ns: int, event: _Event) -> None:
    pairs: Iterable[tuple[str, Any]] = _decoded(event.args).items()
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
