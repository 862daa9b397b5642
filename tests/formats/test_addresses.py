"""Addresses differ by request: what they mean is asked once, and each span keeps its own."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from perfkit.formats.attributes import AttributeCache, Resolved, resolve_span

VALUES = st.sampled_from(
    [
        *("/a/1", "/a/2", "/a/b", "/a/1?x=1", "", "/", "http://u:p@h:1/a/1", "http://h:1/a/2"),
        *("http://h:2/a/2", "https://h:1", "a/1", "//h/a", 7, True, None, "None"),
    ]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        ["url.full", "http.url", "url.path", "http.target", "http.route", "http.method", "mine"]
    ),
    VALUES,
)


def decode(raw: bytes) -> tuple[str, Any]:
    key, value = msgspec.json.decode(raw)
    return key, value


def encoded(attributes: dict[str, Any]) -> list[bytes]:
    return [msgspec.json.encode(pair) for pair in attributes.items()]


@given(st.lists(st.tuples(st.sampled_from(["server", "client", "internal"]), ATTRIBUTES)))
@example([("server", {"http.method": "GET", "url.path": value}) for value in ("None", None)])
def test_each_span_is_read_as_if_it_were_alone(spans: list[tuple[str, dict[str, Any]]]) -> None:
    cache = AttributeCache(decode)
    for kind, attributes in spans:
        tokens, rest = cache.parted(encoded(attributes))
        found = cache.resolve((kind, "unset", None, tokens), encoded(attributes))
        left = dict(attributes)
        alone = resolve_span(kind, "unset", None, left)
        assert found.columns == alone.columns
        written = json.loads("{" + ",".join((rest | found.leftover).values()) + "}")
        assert written == left


def test_a_thousand_addresses_of_one_endpoint_are_understood_once() -> None:
    asked = 0

    def resolve(kind: str, status: str, pid: int | None, attributes: dict[str, Any]) -> Resolved:
        nonlocal asked
        asked += 1
        return resolve_span(kind, status, pid, attributes)

    cache = AttributeCache(decode, resolve=resolve)
    for number in range(1000):
        span = encoded({"http.request.method": "GET", "url.path": f"/a/{number}"})
        tokens, rest = cache.parted(span)
        columns, leftover = cache.resolve(("server", "unset", None, tokens), span)
        assert "GET /a/{id}" in columns
        assert not leftover
        assert rest == {"url.path": f'"url.path":"/a/{number}"'}
    assert asked == 1
