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
# A span: links begin with ids too, but have no parent, name, kind or time.
_ID = rb'\s*:\s*"[^"\\]*+"\s*,\s*'
_START = re.compile(
    rb'\{\s*"(traceId)"' + _ID + rb'"spanId"' + _ID + rb'(?:"traceState"' + _ID + rb")?"
    rb'(?:"flags"\s*:\s*\d+\s*,\s*)?"(?:parentSpanId|name|kind|startTimeUnixNano)"'
    rb'|"(resource|scope)"\s*:\s*(?=\{)'
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[][{}"]', re.DOTALL)
_MAX_RECORD_BYTES = 1 << 20
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


def spans(content: Content) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, document) of the spans that are whole; of a damaged one what can be told.

    Raises InputError after a thousand damaged ones.
    """
    resource = scope = b"{}"
    waiting: list[bytes] = []
    at = begin = damaged = 0
    while (mark := _START.search(content, at)) is not None:
        start = mark.start() if mark[1] else mark.end()
        text = _balanced(content, start)
        good = text is not None and _is_json(text)
        at = start + len(text) if good and text is not None else mark.end()
        if not good:
            damaged += 1
            if damaged > _MAX_DAMAGED:
                raise InputError("damaged in more than a thousand places")
            if mark[1]:
                yield start, content[start : start + _MAX_SHOWN]
            continue
        if (not mark[1] or len(waiting) >= _TOGETHER) and waiting:
            yield begin, _document(resource, scope, waiting)
            waiting = []
        if mark[2] == b"resource":
            resource, scope = text or b"{}", b"{}"
        elif mark[2]:
            scope = text or b"{}"
        else:
            begin = begin if waiting else start
            waiting.append(text or b"")
    if waiting:
        yield begin, _document(resource, scope, waiting)


def _balanced(content: Content, start: int) -> bytes | None:
    depth = 0
    for token in _TOKEN.finditer(content, start, min(len(content), start + _MAX_RECORD_BYTES)):
        what = token[0]
        if what in (b"{", b"["):
            depth += 1
        elif what in (b"}", b"]"):
            depth -= 1
        elif what == b'"':
            return None
        if not depth:
            return content[start : token.end()]
    return None


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except _BAD_JSON:
        return False
    return otlp_wire.spans_from_json([msgspec.Raw(text)])[1] is None


def _document(resource: bytes, scope: bytes, waiting: list[bytes]) -> bytes:
    return b'{"resourceSpans":[{"resource":%b,"scopeSpans":[{"scope":%b,"spans":[%b]}]}]}' % (
        resource,
        scope,
        b",".join(waiting),
    )
