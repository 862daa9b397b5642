"""OTLP as query APIs answer it: Jaeger's v3 API and Grafana Tempo's, one member around the same."""

from __future__ import annotations

import re

import msgspec

from perfkit.importers.json_stream import BAD_JSON

_GROUPS = rb'"(?:resourceSpans|resource_spans)"\s*:'
_START = re.compile(
    rb'\s*\{\s*(?:"(?:result|trace)"\s*:\s*\{\s*(?:' + _GROUPS + rb'|"batches"\s*:\s*\[)'
    rb'|"batches"\s*:\s*\[\s*(?:\]|\{\s*"(?:resource|scopeSpans|instrumentationLibrarySpans)"))'
)


_NOTHING = msgspec.Raw()


class _Answer(msgspec.Struct):
    result: msgspec.Raw = _NOTHING
    trace: msgspec.Raw = _NOTHING
    batches: msgspec.Raw = _NOTHING


_answer = msgspec.json.Decoder(_Answer)


def is_answer(text: bytes) -> bool:
    """Whether a text begins as such an answer: `result` (Jaeger), `batches` or `trace` (Tempo)."""
    return _START.match(text) is not None


def unwrapped(text: bytes) -> bytes:
    """Return the OTLP document in an answer; a text that is none, or is damaged, as it is."""
    if not is_answer(text):
        return text
    try:
        answer = _answer.decode(text)
        inside = bytes(answer.result) or bytes(answer.trace)
        batches = bytes(_answer.decode(inside).batches if inside else answer.batches)
    except BAD_JSON:
        return text
    return b'{"resourceSpans":%b}' % batches if batches else inside
