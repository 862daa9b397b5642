"""Jaeger JSON: the answer of the query API (`{"data": [trace…]}`), a list of traces, or one trace.

A reference FOLLOWS_FROM becomes a link; when a span has no other reference it is also the parent,
as in Jaeger's own user interface. Traces that Jaeger's probabilistic sampler let through stand for
as many as the sampler's parameter says: the tag is on the root only, and holds for all spans.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from perfkit.batch import Batch
from perfkit.capture import CaptureWriter
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import HEAD_BYTES, Format, Source
from perfkit.importers.jaeger_document import Span, Trace, processes_of
from perfkit.importers.jaeger_spans import Spans
from perfkit.importers.rows import WallTimes
from perfkit.semconv import SAMPLE_PROBABILITY, SAMPLE_RATE

NAME = "jaeger-json"
FORMAT = Format(
    title="Jaeger JSON",
    made_by='Jaeger\'s query API or "Download JSON" in its page',
    recognised_by="spans with `traceID`, `spanID`, `operationName`",
    gives="spans, span events, span links",
    lacks="times finer than µs",
)

_BATCH_SPANS = 20_000
_LARGE_BYTES = 32 << 20


class _Answer(msgspec.Struct):
    data: list[Trace] | None = None


class _LargeTrace(msgspec.Struct):
    traceID: str | None = None
    spans: list[msgspec.Raw] | None = None
    processes: msgspec.Raw = msgspec.Raw()
    cut: bool = msgspec.field(default=False, name=json_prefix.CUT)


_answer = msgspec.json.Decoder(_Answer)
_traces = msgspec.json.Decoder(list[Trace])
_trace = msgspec.json.Decoder(Trace)
_large_trace = msgspec.json.Decoder(_LargeTrace)
_spans = msgspec.json.Decoder(list[Span])

# One trace alone has its spans, or its processes, without `data` around them.
_ONE_TRACE = re.compile(rb'^\s*\{(?:(?!"data"\s*:).)*?"(?:spans|spanID|processes)"\s*:', re.DOTALL)
_ONE_SPAN = re.compile(rb'\s*\{(?!\s*"spans")[^\[]*?"(?:spanID|operationName)"\s*:')
# Of one document no line but the first begins so.
_ANOTHER = b"\n{"
_SAMPLER = re.compile(
    "|".join(re.escape(f'"{name}"') for name in (*SAMPLE_RATE, *SAMPLE_PROBABILITY)).encode()
)
_SPAN_KEYS = [re.compile(rb'"%b"\s*:' % name) for name in (b"traceID", b"spanID", b"operationName")]


def sniff(head: bytes, path: Path) -> bool:
    """Recognise spans by Jaeger's spelling of their ids."""
    del path
    start = head.lstrip()[:1]
    return (
        start in (b"{", b"[")
        and sum(key.search(head) is not None for key in _SPAN_KEYS) >= 2
        and b'"resourceSpans"' not in head
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all traces."""
    spans, times = Spans(), WallTimes()
    nameless = False
    try:
        for place, raw in _split(source):
            try:
                sampled = _sampled(raw) if _is_large(raw) else None
                for part in _parts(raw):
                    spans.add(part, sampled)
                    nameless = nameless or (part.cut and not processes_of(part))
                    if len(spans) >= _BATCH_SPANS:
                        spans.finish(writer, times)
                        spans = Spans()
            except json_stream.BAD_JSON as error:
                source.pass_over(json_stream.refuse("Jaeger JSON", place, error))
    finally:
        spans.finish(writer, times)
        times.judge(source.name, writer)
        if nameless:
            writer.note(
                f"{source.name} is cut off before the names of services, which come last: spans "
                "bear the numbers of their processes, such as p1"
            )


def read_together(sources: Sequence[Source], writer: CaptureWriter) -> int:
    """Read small files with one set of columns; returns how many, up to the first that is damaged.

    That one is to be read by `read`, which says where, or keeps what is whole of it.
    """
    spans, times = Spans(), WallTimes()
    done = 0
    for source in sources:
        before = spans.mark()
        try:
            for trace in _all_traces(source.contents()):
                spans.add(trace)
        except json_stream.BAD_JSON:
            spans.back_to(before)
            break
        done += 1
    spans.finish(writer, times)
    others = f" or one of {done - 1} after it" if done > 1 else ""
    times.judge(f"{sources[0].name}{others}", writer)
    return done


def _all_traces(content: bytes | mmap.mmap) -> list[Trace]:
    if _ONE_TRACE.search(content[:HEAD_BYTES]):
        return [_trace.decode(content)]
    if content[:HEAD_BYTES].lstrip()[:1] == b"[":
        return _traces.decode(content)
    traces = _answer.decode(content).data
    if traces is None:
        raise msgspec.DecodeError("no traces")
    return traces


def _sampled(raw: _Text) -> float:
    """Return for how many a trace stands, where that is not known before its last span."""
    found = 1.0
    for part in _parts(raw) if _SAMPLER.search(raw) else ():
        spans = Spans()
        spans.add(part)
        found = max([found, *spans.frame(Batch())["adjusted_count"]])
    return found


_Text = msgspec.Raw | bytes | mmap.mmap


def _is_large(raw: _Text) -> bool:
    return memoryview(raw).nbytes > _LARGE_BYTES


def _parts(raw: _Text) -> Iterator[Trace]:
    """Decode a trace; a large one in parts, so that few of its spans are objects at a time."""
    if not _is_large(raw):
        yield _trace.decode(raw)
        return
    trace = _large_trace.decode(raw)
    texts = trace.spans or []
    for first in range(0, len(texts), _BATCH_SPANS):
        text = b"[%b]" % b",".join(texts[first : first + _BATCH_SPANS])
        yield Trace(trace.traceID, _spans.decode(text), trace.processes, trace.cut)


def _split(source: Source) -> Iterator[tuple[str, _Text]]:
    """Yield the text of each trace, so that only one at a time becomes objects."""
    content = source.contents()
    if _ONE_TRACE.search(content[:HEAD_BYTES]):
        if _ONE_SPAN.match(content):
            raise source.error(
                "spans one by one, as Jaeger's store in Elasticsearch has them, and no traces",
                offset=0,
                hint="take whole traces from Jaeger: curl 'http://JAEGER:16686/api/traces"
                "?service=NAME&limit=1000' -o traces.json",
            )
        if content.find(_ANOTHER) >= 0:
            yield from json_stream.records(source)
            return
        yield f"{source}, trace 1", _whole_part(source, content)
    else:
        yield from json_stream.elements(source, content, "data", partly=_may_be_partial)


def _may_be_partial(path: json_prefix.Path) -> bool:
    return path in ((), ("spans",))


def _whole_part(source: Source, content: bytes | mmap.mmap) -> bytes | mmap.mmap:
    """Return what is whole of a trace that is cut off, with `--keep-going`."""
    if source.on_damage is None or _is_json(content):
        return content
    part = json_prefix.beginning(json_prefix.until_bad_text(content), _may_be_partial)
    if part.whole or not part.text:
        return content
    json_prefix.pass_over(source, part.end, len(content))
    return part.text


def _is_json(content: bytes | mmap.mmap) -> bool:
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except json_stream.BAD_JSON:
        return False
    return True
