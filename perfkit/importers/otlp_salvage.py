"""What is whole in a damaged OTLP message or document: for `--keep-going`.

Protobuf has lengths and no marks, so that what follows a wrong length is lost; of a message that is
cut off every span before is whole. In JSON the spans after a damage are found by how they begin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from perfkit.errors import InputError
from perfkit.formats import otlp_wire
from perfkit.formats.wire_fields import LENGTH, Content, CutOffError, Field, field, fields
from perfkit.importers import json_stream

_DEPTH = 2  # resource, scope; below are spans or metrics


def complete(content: Content, start: int, end: int) -> bytes:
    """Return the whole fields of a group that is cut off, as a message; empty when there are none.

    `start` is where the group's field begins.
    """
    try:
        group = field(content, start, end)
    except CutOffError:
        return b""
    if (group.number, group.wire_type) != (1, LENGTH):
        return b""
    return _delimited(1, _whole(content, group.value, min(group.end, end), _DEPTH))


def _whole(content: Content, at: int, end: int, depth: int) -> bytes:
    out = b""
    while at < end:
        try:
            found = field(content, at, end)
        except CutOffError:
            break
        if found.end <= end:
            out += content[found.start : found.end]
        elif depth > 1 and (found.number, found.wire_type) == (2, LENGTH):
            out += _delimited(2, _whole(content, found.value, end, depth - 1))
        at = found.end
    return out


def singly(content: Content, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, message) for each span or metric: a message with it alone."""
    for group in fields(content, Field(0, LENGTH, start, start, end)):
        parts = list(fields(content, group))
        around = [one for one in parts if (one.number, one.wire_type) != (2, LENGTH)]
        resource = b"".join(content[one.start : one.end] for one in around)
        for part in parts:
            if part in around:
                continue
            inner = list(fields(content, part))
            scope = b"".join(content[one.start : one.end] for one in inner if one.number != 2)
            for one in inner:
                if one.number == 2:
                    record = _delimited(2, scope + content[one.start : one.end])
                    yield one.start, _delimited(1, resource + record)


def _delimited(number: int, message: bytes) -> bytes:
    length, out = len(message), bytearray([number << 3 | LENGTH])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out) + message


_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TEXT = rb'\s*:\s*"(?:[^"\\]|\\.)*+"\s*,\s*'
# A metric, or a span: links begin with ids too, but have no parent, name, kind or time.
_ID = rb'\s*:\s*"[^"\\]*+"\s*,\s*'
_START = re.compile(
    rb'\{\s*"(traceId)"' + _ID + rb'"spanId"' + _ID + rb'(?:"traceState"' + _ID + rb")?"
    rb'(?:"flags"\s*:\s*\d+\s*,\s*)?"(?:parentSpanId|name|kind|startTimeUnixNano)"'
    rb'|"(resource|scope)"\s*:\s*(?=\{)'
    rb'|\{\s*"(name)"' + _TEXT + rb'(?:"(?:description|unit)"' + _TEXT + rb"){0,2}+"
    rb'"(?:gauge|sum|histogram|exponentialHistogram|exponential_histogram|summary)"\s*:\s*\{'
)
_MAX_DAMAGED = 1000
_TOGETHER = 1000
_MAX_SHOWN = 200


def problem(content: Content, *, large: bool) -> InputError | None:
    """Say why a document is not OTLP JSON; null for a good one. Of a large one spans may be bad."""
    try:
        if large:
            otlp_wire.split_json(content)
        else:
            otlp_wire.load_json(bytes(content))
    except InputError as error:
        return error
    return None


def records(content: Content) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, document) of whole spans and metrics; of a damaged one what can be told.

    Raises InputError after a thousand damaged ones.
    """
    resource = scope = b"{}"
    waiting: list[bytes] = []
    kind = b"traceId"
    at = begin = damaged = 0
    while (mark := _START.search(content, at)) is not None:
        record = mark[1] or mark[3]
        start = mark.start() if record else mark.end()
        text = json_stream.balanced(content, start)
        good = text is not None and _is_json(text, span=mark[1] is not None)
        at = start + len(text) if good and text is not None else mark.end()
        if not good:
            damaged += 1
            if damaged > _MAX_DAMAGED:
                raise InputError("damaged in more than a thousand places")
            if record:
                yield start, content[start : start + _MAX_SHOWN]
            continue
        if waiting and (record != kind or len(waiting) >= _TOGETHER):
            yield begin, _document(kind, resource, scope, waiting)
            waiting = []
        if mark[2] == b"resource":
            resource, scope = text or b"{}", b"{}"
        elif mark[2]:
            scope = text or b"{}"
        else:
            begin, kind = begin if waiting else start, record
            waiting.append(text or b"")
    if waiting:
        yield begin, _document(kind, resource, scope, waiting)


def _is_json(text: bytes, *, span: bool) -> bool:
    try:
        msgspec.json.decode(text)
    except _BAD_JSON:
        return False
    return not span or otlp_wire.spans_from_json([msgspec.Raw(text)])[1] is None


def _document(kind: bytes, resource: bytes, scope: bytes, waiting: list[bytes]) -> bytes:
    outer, inner, name = (
        (b"resourceSpans", b"scopeSpans", b"spans")
        if kind == b"traceId"
        else (b"resourceMetrics", b"scopeMetrics", b"metrics")
    )
    return b'{"%b":[{"resource":%b,"%b":[{"scope":%b,"%b":[%b]}]}]}' % (
        outer,
        resource,
        inner,
        scope,
        name,
        b",".join(waiting),
    )
