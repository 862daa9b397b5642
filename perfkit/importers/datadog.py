"""Datadog traces: what a tracer sends (`[[span…]…]`, `{"traces": …}`), or the page's JSON.

A tracer sends MessagePack to its agent: `/v0.4/traces` spans as they are, `/v0.5/traces` a list of
texts and spans as lists in which texts are numbers of that list.

Ids are decimal; those that a Lambda function logs are hexadecimal. Times are ns since 1970 in what
tracers send, and seconds in what the page gives.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.importers import json_prefix, json_stream, msgpack_prefix
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import Id, SpanRows, from_process, scaled
from perfkit.semconv import Value

NAME = "datadog-json"
FORMAT = Format(
    title="Datadog traces, JSON or MessagePack",
    made_by="the JSON of a trace in Datadog's page or API, `ddapm-test-agent` (`/test/traces`), or "
    "the body that a tracer sends to its agent (`/v0.4/traces`, `/v0.5/traces`)",
    recognised_by="spans with `trace_id`, `span_id`, `resource`, `service`; v0.5: its texts",
    gives="spans",
    lacks="links; kinds, where `span.kind` is absent (from `type`)",
    tried="ddtrace 4.16.0 (v0.4, v0.5, log of a Lambda function)",
)

_KINDS = {
    "web": "server",
    "http": "client",
    "sql": "client",
    "db": "client",
    "cache": "client",
    "redis": "client",
    "memcached": "client",
    "mongodb": "client",
    "cassandra": "client",
    "elasticsearch": "client",
    "worker": "consumer",
    "queue": "consumer",
}
_DATABASES = frozenset(
    {"sql", "db", "redis", "memcached", "mongodb", "cassandra", "elasticsearch", "cache"}
)
_SPAN = re.compile(rb'"(trace_id|span_id|resource|service|parent_id)"\s*:')
_NAMES = {
    "http.url": "url.full",
    "http.method": "http.request.method",
    "http.status_code": "http.response.status_code",
    "out.host": "server.address",
    "network.destination.name": "server.address",
    "network.destination.port": "server.port",
    "out.port": "server.port",
    "error.msg": "error.message",
}
_MAX_DEPTH = 3


class _Span(msgspec.Struct):
    trace_id: int | str | None = None
    span_id: int | str | None = None
    parent_id: int | str | None = None
    name: str | None = None
    resource: str | None = None
    service: str | None = None
    type: str | None = None
    start: int | float | None = None
    duration: int | float | None = None
    error: int | bool | None = None
    meta: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None


class _Numbered(msgspec.Struct, array_like=True):
    """A span of v0.5: names and tags are numbers of the list of texts."""

    service: int
    name: int
    resource: int
    trace_id: int
    span_id: int
    parent_id: int
    start: int
    duration: int
    error: int
    meta: dict[int, int]
    metrics: dict[int, float]
    type: int


class _Shown(msgspec.Struct):
    # Of a page that is cut off one more member says so: json_prefix.CUT.
    spans: dict[str, _Span | bool] | None = None


class _Page(msgspec.Struct):
    trace: _Shown | None = None


_span = msgspec.json.Decoder(_Span)
_list = msgspec.json.Decoder(list[msgspec.Raw])
_page = msgspec.json.Decoder(_Page)
_packed = msgspec.msgpack.Decoder(_Span)
_numbered = msgspec.msgpack.Decoder(_Numbered)
_texts = msgspec.msgpack.Decoder(list[str])
_v04 = msgspec.msgpack.Decoder(list[list[_Span]])
_v05 = msgspec.msgpack.Decoder(tuple[list[str], list[list[_Numbered]]])
_DAMAGED = (*json_stream.BAD_JSON, IndexError)
_ARRAY = rb"(?:[\x90-\x9f]|\xdc..|\xdd....)"
_V04_START = re.compile(_ARRAY + _ARRAY + rb"(?:[\x80-\x8f]|\xde..)[\xa4-\xa9]", re.S)
_V05_START = re.compile(rb"\x92" + _ARRAY + rb"(?:\xa0|[\xa1-\xbf]|\xd9)", re.S)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise spans by Datadog's spelling."""
    del path
    if head[:1] >= b"\x90":
        return _is_packed(head)
    found = {match[1] for match in _SPAN.finditer(head)}
    return (
        head.lstrip()[:1] in (b"{", b"[")
        and {*(b"trace_id", b"span_id", b"resource", b"service")} <= found
        and b'"start"' in head
    )


def _is_packed(head: bytes) -> bool:
    if _V04_START.match(head) is not None:
        return all(name in head for name in (b"\xa8trace_id", b"\xa7span_id", b"\xa8resource"))
    return _V05_START.match(head) is not None and b"runtime-id" in head


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all spans."""
    with SpanRows(source, writer) as rows:
        for chunk, hexadecimal in _chunks(source):
            upper = _upper_halves(chunk, hexadecimal=hexadecimal)
            for span in chunk:
                _add(rows, span, upper, hexadecimal=hexadecimal)


def _chunks(source: Source) -> Iterator[tuple[list[_Span], bool]]:
    """Yield spans that were sent together, and whether their ids are hexadecimal."""
    head = source.head()
    if head[:1] >= b"\x90":
        for spans in _unpacked(source, old=_V05_START.match(head) is None):
            yield spans, False
        return
    head = head.lstrip()
    if head[:1] == b"{" and re.match(rb'\{\s*"(?:trace|orphaned)"\s*:', head):
        page = json_stream.decode(
            source, _page, source.contents(), "Datadog JSON", str(source),
            lambda path: path in ((), ("trace",), ("trace", "spans")),
        ) or _Page()  # fmt: skip
        shown = (page.trace or _Shown()).spans or {}
        yield [span for span in shown.values() if isinstance(span, _Span)], False
        return
    logged = head[:1] == b"{"  # by a Lambda function
    partly = json_prefix.lists(head)
    for place, raw in json_stream.elements(source, source.contents(), "traces", partly=partly):
        chunk = None
        with source.record():
            chunk = list(_nested(bytes(raw), place, 0))
        if chunk is not None:
            yield chunk, logged


def _unpacked(source: Source, *, old: bool) -> Iterator[list[_Span]]:
    """Yield the chunks of a body in MessagePack."""
    content = source.contents()
    try:
        if old:
            found = _v04.decode(content)
        else:
            texts, chunks = _v05.decode(content)
            found = [[_spelled(texts, span) for span in chunk] for chunk in chunks]
    except _DAMAGED as error:
        problem = json_stream.refuse("a body for Datadog's agent", str(source), error)
        damaged: list[InputError] = []
        if source.on_damage is None:
            raise problem from error
        found = list(_whole_spans(source, content, damaged, old=old))
        if not any(found):
            raise problem from error
        for one in damaged or (problem,):
            source.pass_over(one)
    yield from found


def _whole_spans(
    source: Source, content: bytes | mmap.mmap, damaged: list[InputError], *, old: bool
) -> Iterator[list[_Span]]:
    """Yield the chunks of a damaged body without what is not whole, which is noted in `damaged`."""
    texts: list[str] = []
    begin = start = 0
    try:
        if not old:
            (begin, end), (start, _) = itertools.islice(msgpack_prefix.elements(content, 0), 2)
            texts = _texts.decode(content[begin:end])
        for begin, _ in msgpack_prefix.elements(content, start):
            yield list(_whole_of_chunk(source, content, begin, texts, damaged, old=old))
    except (*_DAMAGED, ValueError):
        damaged.append(source.error("cut off, or damaged", offset=begin))


def _whole_of_chunk(
    source: Source,
    content: bytes | mmap.mmap,
    start: int,
    texts: list[str],
    damaged: list[InputError],
    *,
    old: bool,
) -> Iterator[_Span]:
    for begin, end in msgpack_prefix.elements(content, start):
        if end is None:
            damaged.append(source.error("cut off", offset=begin))
            continue
        text = content[begin:end]
        try:
            yield _packed.decode(text) if old else _spelled(texts, _numbered.decode(text))
        except _DAMAGED as error:
            place = f"{source}, byte {begin}"
            damaged.append(json_stream.refuse("a span for Datadog's agent", place, error))


def _spelled(texts: list[str], span: _Numbered) -> _Span:
    return _Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=texts[span.name],
        resource=texts[span.resource],
        service=texts[span.service],
        type=texts[span.type],
        start=span.start,
        duration=span.duration,
        error=span.error,
        meta={texts[key]: texts[value] for key, value in span.meta.items()},
        metrics={texts[key]: value for key, value in span.metrics.items()},
    )


def _nested(raw: bytes, place: str, depth: int) -> Iterator[_Span]:
    try:
        if raw.lstrip()[:1] == b"[" and depth < _MAX_DEPTH:
            for inner in _list.decode(raw):
                yield from _nested(bytes(inner), place, depth + 1)
        else:
            yield _span.decode(raw)
    except json_stream.BAD_JSON as error:
        raise json_stream.refuse("a Datadog span", place, error) from error


def _upper_halves(chunk: list[_Span], *, hexadecimal: bool) -> dict[int, int]:
    """Return lower -> upper half of the trace ids: only the first span of a chunk says it."""
    halves: dict[int, int] = {}
    for span in chunk:
        upper = (span.meta or {}).get("_dd.p.tid")
        if isinstance(upper, str):
            lower = _number(span.trace_id, hexadecimal=hexadecimal)
            halves[lower] = _number(upper, hexadecimal=True) & (2**64 - 1)
    return halves


def _number(value: int | str | None, *, hexadecimal: bool) -> int:
    """Return an id as a number; 0 for none."""
    if isinstance(value, str):
        text = value.strip()[:64]
        base = 10 if text.isdecimal() and not hexadecimal else 16
        try:
            value = int(text, base)
        except ValueError:
            return 0
    return value if value is not None and 0 <= value < 2**128 else 0


def _add(rows: SpanRows, span: _Span, upper: dict[int, int], *, hexadecimal: bool) -> None:
    meta, metrics = dict(span.meta or {}), dict(span.metrics or {})
    trace_number = _number(span.trace_id, hexadecimal=hexadecimal)
    meta.pop("_dd.p.tid", None)
    trace_number |= upper.get(trace_number, 0) << 64
    trace: Id = (ids.signed(trace_number >> 64), ids.signed(trace_number))
    factor = 1 if isinstance(span.start, int) or (span.start or 0) > 1e12 else 10**9
    kind = str(meta.pop("span.kind", None) or _KINDS.get(span.type or "", "internal"))
    if kind not in ("server", "client", "producer", "consumer", "internal"):
        kind = "internal"
    failed = bool(span.error)
    message = meta.get("error.message") or meta.get("error.msg")
    rows.add(
        trace,
        ids.signed(_number(span.span_id, hexadecimal=hexadecimal)) or None,
        ids.signed(_number(span.parent_id, hexadecimal=hexadecimal)) or None,
        span.name or span.resource or "",
        scaled(span.start, factor),
        scaled(span.duration, factor) if span.duration is not None else None,
        from_process(
            # A call to a database may bear the name of what it calls.
            str(meta.get("_dd.base_service") or span.service or ""),
            host__name=meta.pop("_dd.hostname", None),
            service__version=meta.pop("version", None),
            deployment__environment__name=meta.pop("env", None),
        ),
        _attributes(span, meta, metrics, kind),
        kind=kind,
        status="error" if failed else "unset",
        message=str(message) if failed and message else None,
    )


def _attributes(
    span: _Span, meta: dict[str, Any], metrics: dict[str, Any], kind: str
) -> dict[str, Value]:
    base = meta.pop("_dd.base_service", None)
    attributes: dict[str, Value] = {
        _NAMES.get(key, key): value for key, value in meta.items() if not key.startswith("_dd")
    }
    if base and base != span.service and kind == "client":
        attributes.setdefault("peer.service", span.service)
    for key, value in metrics.items():
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not key.startswith(("_dd", "_sampling")):
            attributes.setdefault(_NAMES.get(key, key), value)
    attributes["process.pid"] = metrics.get("process_id") or metrics.get("system.pid")
    attributes.pop("process_id", None)
    attributes.pop("system.pid", None)
    rate = metrics.get("_dd.rule_psr") or metrics.get("_dd.agent_psr")
    if isinstance(rate, (int, float)) and 0 < rate <= 1:
        attributes["sampling.probability"] = rate
    if span.type in _DATABASES:
        attributes.setdefault("db.system", "other_sql" if span.type == "sql" else span.type)
        attributes.setdefault("db.statement", attributes.pop("sql.query", None) or span.resource)
    elif kind == "server" and "http.route" not in attributes:
        # The resource of a web span is `GET /users/:id`.
        method, _, route = (span.resource or "").partition(" ")
        if route.startswith("/") and method.isupper():
            attributes["http.route"] = route
            attributes.setdefault("http.request.method", method)
    if span.resource and span.type not in _DATABASES:
        attributes.setdefault("resource.name", span.resource)
    return attributes
