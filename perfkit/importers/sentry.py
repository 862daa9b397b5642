"""Sentry transactions: event JSON, a list of events, one a line, or envelopes as SDKs send them.

Profiles in envelopes become samples; what else is in them is counted.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.formats import times
from perfkit.formats.spans import Origin
from perfkit.importers import json_prefix, json_stream, sentry_profile
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import Id, SpanRows, from_process
from perfkit.semconv import Value

NAME = "sentry-json"
FORMAT = Format(
    title="Sentry transactions and profiles",
    made_by="the JSON of a transaction in Sentry's page, or the envelopes that an SDK sends",
    recognised_by="an event with `start_timestamp`, `spans` and `contexts`, or an envelope",
    gives="spans, samples (profiles in envelopes, versions 1 and 2)",
    lacks="kinds and peers (from `op` and `data`); events and links; times finer than µs",
    tried="sentry-sdk 2.75.0",
)

Time = int | float | str | None


class _Context(msgspec.Struct):
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    op: str | None = None
    status: str | None = None
    data: dict[str, Any] | None = None


class _Contexts(msgspec.Struct):
    trace: _Context | None = None


class _Span(msgspec.Struct):
    span_id: str | None = None
    parent_span_id: str | None = None
    trace_id: str | None = None
    op: str | None = None
    description: str | None = None
    status: str | None = None
    start_timestamp: Time = None
    timestamp: Time = None
    data: dict[str, Any] | None = None
    tags: Any = None


class _Sdk(msgspec.Struct):
    name: str | None = None


class _Event(msgspec.Struct):
    type: str | None = None
    event_id: str | None = None
    transaction: str | None = None
    start_timestamp: Time = None
    timestamp: Time = None
    contexts: _Contexts | None = None
    spans: list[_Span] | None = None
    request: dict[str, Any] | None = None
    server_name: str | None = None
    release: str | None = None
    environment: str | None = None
    project: int | str | None = None
    sdk: _Sdk | None = None


_event = msgspec.json.Decoder(_Event)
_KEYS = (b'"start_timestamp"', b'"spans"', b'"contexts"')
_ENVELOPE = re.compile(rb'\{[^\n]*\}\n\{[^\n]*"type"\s*:\s*"(transaction|profile|profile_chunk)"')
_ITEM = re.compile(rb'\{[^{}]{0,400}"type"\s*:\s*"(\w{1,40})"[^{}]{0,400}\}')
_ITEMS_READ = ("transaction", "profile", "profile_chunk")
_SPAN_KEYS = (b'"start_timestamp"', b'"span_id"', b'"op"')
_FAILURES = ("ok", "cancelled", "unknown", "unset", "")
_CLIENT_OPS = ("http.client", "db", "cache", "grpc.client", "rpc", "redis")
_TOOL_SPAN = "execute_tool "
_NAMES = {
    "http.method": "http.request.method",
    "method": "http.request.method",
    "url": "url.full",
    "http.response.status_code": "http.response.status_code",
    "status_code": "http.response.status_code",
    "reason": "http.response.reason",
}


def sniff(head: bytes, path: Path) -> bool:
    """Recognise an event with spans."""
    del path
    return head.lstrip()[:1] in (b"{", b"[") and (
        all(key in head for key in _KEYS)
        or _ENVELOPE.match(head) is not None
        or (b'"type":"transaction"' in head.replace(b" ", b"") and _KEYS[0] in head)
        # One long text in the first spans, and the rest comes too late to be seen.
        or (b'"spans"' in head and all(key in head for key in _SPAN_KEYS))
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all transactions."""
    left_out: dict[str, int] = {}
    with SpanRows(source, writer) as rows:
        for place, raw in _documents(source, left_out):
            if isinstance(raw, bytes) and sentry_profile.is_profile(raw):
                sentry_profile.read(source, writer, place, raw)
                continue
            event = json_stream.decode(
                source, _event, raw, "a Sentry event", place, _may_be_partial
            )
            if event is not None:
                _add(rows, event)
    for kind, count in left_out.items():
        writer.lose("item of an envelope", count, f"it is a {kind}, which perfkit does not read")


def _documents(source: Source, left_out: dict[str, int]) -> Iterator[tuple[str, Any]]:
    head = source.head().lstrip()
    if head[:1] == b"[":
        yield from json_stream.elements(source, source.contents(), partly=_may_be_partial)
        return
    first = next(source.lines(), (0, b""))[1].rstrip()
    if not first.endswith(b"}") or first.count(b"{") < first.count(b"}"):
        yield str(source), source.contents()
        return
    for place, line in json_stream.lines(source):
        if line.lstrip()[:1] != b"{":
            continue
        if _KEYS[0] in line or sentry_profile.is_profile(line):
            yield place, line
        elif (item := _ITEM.fullmatch(line)) is not None:  # the header of an item
            kind = item[1].decode()
            if kind not in _ITEMS_READ:
                left_out[kind] = left_out.get(kind, 0) + 1


def _may_be_partial(path: json_prefix.Path) -> bool:
    return path in ((), ("spans",))


def _ns(value: Time) -> int | None:
    if isinstance(value, str):
        return times.from_text(value)
    if isinstance(value, bool) or value is None or not abs(value) < 9e9:
        return None
    return round(value * 1e6) * 1000  # to the µs: a float of seconds says no more


def _add(rows: SpanRows, event: _Event) -> None:
    context = (event.contexts or _Contexts()).trace or _Context()
    spans = event.spans or ()
    theirs = (span.trace_id for span in spans if span.trace_id)
    text = context.trace_id or next(theirs, event.event_id)
    trace: Id = ids.trace_id_from_text(text) if text else (0, 0)
    source = from_process(
        str(event.project) if event.project else "sentry",
        service__instance__id=event.server_name,
        service__version=event.release,
        deployment__environment__name=event.environment,
    )
    source = dataclasses.replace(source, scope=event.sdk.name if event.sdk else None)
    request = event.request or {}
    attributes: dict[str, Value] = {
        "http.request.method": request.get("method"),
        "url.full": request.get("url"),
    }
    op = context.op or ""
    root_id = ids.span_id_from_text(context.span_id or event.event_id)
    kind = "consumer" if op.startswith("queue") else "server"
    name = event.transaction or op
    if kind == "server" and name:
        method, _, route = name.partition(" ")
        attributes["http.route"] = route if method.isupper() and route else name
        if method.isupper() and route:
            attributes["http.request.method"] = method
    _one(rows, trace, root_id, context.parent_span_id, name, source, event, attributes, kind,
         context.status, context.data)  # fmt: skip
    known = {context.span_id, *(span.span_id for span in spans)}
    for number, span in enumerate(spans):
        own_id = ids.span_id_from_text(span.span_id or f"{text} {number}")
        op = span.op or ""
        # All spans of an event are below its transaction, also where one between was dropped.
        lost = span.parent_span_id not in known or span.parent_span_id == span.span_id
        _one(rows, trace, own_id, context.span_id if lost else span.parent_span_id,
             span.description or op, source, span, _described(span, op), _kind(op),
             span.status, span.data, op=op, inferred=lost)  # fmt: skip


def _kind(op: str) -> str:
    if op.startswith("queue.publish"):
        return "producer"
    if op.startswith(("queue", "http.server")):
        return "consumer" if op.startswith("queue") else "server"
    return "client" if op.startswith(_CLIENT_OPS) else "internal"


def _described(span: _Span, op: str) -> dict[str, Value]:
    """Say what the description of a span means, which depends on its `op`."""
    text = span.description or ""
    if op.startswith(("db", "redis")):
        data = span.data or {}
        if "db.system" in data or "db.system.name" in data:
            return {"db.query.text": text or None}
        system = op.partition(".")[2].partition(".")[0]
        if op.startswith("redis"):
            system = "redis"
        elif system in ("", "sql", "query"):
            system = "other_sql"
        return {"db.system.name": system, "db.query.text": text or None}
    if op.startswith("http.client"):
        method, _, url = text.partition(" ")
        if method.isalpha() and url:
            recorded = _address((span.data or {}).get("url"))
            return {"http.request.method": method.upper(), "url.full": recorded or url}
    if op == "gen_ai.execute_tool" and text.startswith(_TOOL_SPAN):
        return {
            "gen_ai.tool.name": (span.data or {}).get("gen_ai.tool.name") or text[len(_TOOL_SPAN) :]
        }
    return {}


def _address(url: Value) -> str | None:
    """Return the URL that the data of a span has as text, or in parts as browsers have it."""
    if isinstance(url, dict):
        return f"{url.get('pathname') or ''}{url.get('search') or ''}" or None
    return url if isinstance(url, str) else None


def _one(
    rows: SpanRows,
    trace: Id,
    own_id: int | None,
    parent: str | None,
    name: str,
    source: Origin,
    timed: _Event | _Span,
    attributes: dict[str, Value],
    kind: str,
    status: str | None,
    data: dict[str, Any] | None,
    op: str | None = None,
    inferred: bool = False,
) -> None:
    start_ns, end_ns = _ns(timed.start_timestamp), _ns(timed.timestamp)
    for key, value in (data or {}).items():
        attributes.setdefault(_NAMES.get(key, key), value)
    if op:
        attributes["sentry.op"] = op
    failed = status is not None and status not in _FAILURES
    parent_id = ids.span_id_from_text(parent)
    rows.add(
        trace,
        own_id,
        parent_id if parent_id != own_id else None,
        name,
        start_ns,
        end_ns - start_ns if end_ns is not None and start_ns is not None else None,
        source,
        attributes,
        kind=kind,
        status="error" if failed else "unset",
        message=status if failed else None,
        inferred=inferred,
    )
