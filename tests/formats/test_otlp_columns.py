"""The fast reading of many bodies, against the reading of one span after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perfkit import model
from perfkit.errors import InputError
from perfkit.formats import otlp, otlp_columns, wire_walk
from perfkit.formats.wire_fields import LENGTH, Field, fields
from perfkit.formats.wire_walk import Buffer, NotPlain, distinct
from perfkit.parts import conform
from tests.formats.build_otlp import requests as requests_of

START_NS = 1_700_000_000_000_000_000
OTHERS = ("span_events", "span_links")


def slowly(bodies: list[bytes]) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, int]]:
    rows: list[dict[str, Any]] = []
    others: dict[str, list[Any]] = {name: [] for name in OTHERS}
    rejected: dict[str, int] = {}
    for body in bodies:
        batch = otlp.traces_from_protobuf(body)
        rows += conform(model.SPANS, batch.tables.get("spans", {})).to_dicts()
        for name in OTHERS:
            others[name] += conform(model.BY_NAME[name], batch.tables.get(name, {})).to_dicts()
        for reason, count in batch.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    return rows, others, rejected


def fast(bodies: list[bytes]) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, int]]:
    spans = otlp_columns.traces(bodies)
    assert spans.frame.schema == model.SPANS.schema
    others = {
        name: conform(model.BY_NAME[name], spans.others.tables.get(name, {})).to_dicts()
        for name in OTHERS
    }
    return spans.frame.to_dicts(), others, spans.others.rejected


# To draw a request takes five times as long as to read it.
@settings(max_examples=40, deadline=None)
@given(st.lists(requests_of(), min_size=1, max_size=3))
def test_many_bodies_are_read_as_one_by_one(requests: list[ExportTraceServiceRequest]) -> None:
    bodies = [request.SerializeToString() for request in requests]
    assert fast(bodies) == slowly(bodies)


def request_of(*spans: dict[str, Any]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number, members in enumerate(spans, 1):
        plain = {
            "trace_id": b"t" * 16,
            "span_id": number.to_bytes(8, "big"),
            "start_time_unix_nano": START_NS,
            "end_time_unix_nano": START_NS + 5,
        }
        scope.spans.add(**(plain | members))
    return request


def attribute(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"string_value": value}}


@pytest.mark.parametrize(
    "spans",
    [
        [],
        [{}],
        [{"name": "x" * 3000, "attributes": [attribute("k", "v" * 2_000_000)]}],
        [{"attributes": [attribute(f"k{n}", "v") for n in range(200)]}],
        [{"attributes": [attribute("k", "1"), attribute("l", "2"), attribute("k", "3")]}, {}],
        [{"attributes": [attribute("w3c.tracestate", "mine")], "trace_state": "a=b"}],
        [{"attributes": [attribute("SampleRate", "5")], "trace_state": "ot=rv:1"}],
        [{"attributes": [attribute("SampleRate", "5")], "trace_state": "ot=th:8"}],
        [{"status": {"message": "ignored"}}, {"status": {"code": 2, "message": "why"}}],
        [{"dropped_attributes_count": 3, "dropped_links_count": 2**31}, {}],
        [{"attributes": [attribute("db.statement", f"SELECT {n}" + " " * 9000)]} for n in (1, 2)],
        [{"kind": kind, "attributes": [attribute("http.route", "/a")]} for kind in (1, 2, 2, 3)],
        [{"attributes": [attribute("http.route", "/a"), attribute("http.route", "/b")]}, {}],
        [{"attributes": [attribute("http.route", "/b"), attribute("http.route", "/a")]}, {}],
        [{"events": [{"name": "e", "time_unix_nano": START_NS}], "links": [{}]}, {"span_id": b""}],
        [{"span_id": b"", "events": [{"name": "e", "time_unix_nano": START_NS}]}],
        [{"end_time_unix_nano": 0}, {"start_time_unix_nano": 5}, {"flags": 257}],
    ],
)  # fmt: skip
def test_particular_spans(spans: list[dict[str, Any]]) -> None:
    bodies = [request_of(*spans).SerializeToString()]
    got = list(otlp_columns.read(bodies))
    rows = [row for frame, _ in got for row in frame.to_dicts()]
    for _, batch in got:
        rows += conform(model.SPANS, batch.tables.get("spans", {})).to_dicts()
    expected, _, rejected = slowly(bodies)
    assert rows == expected
    assert [batch.rejected for _, batch in got if batch.rejected] == [rejected] * bool(rejected)


def replaced(old: bytes, new: bytes) -> bytes:
    body = request_of(
        {"name": "abcd", "trace_state": "efgh", "status": {"code": 2, "message": "ijkl"}},
        {
            "attributes": [attribute("key", "mnop")],
            "events": [{"name": "qrst", "time_unix_nano": 9}],
        },
    ).SerializeToString()
    assert old in body
    return body.replace(old, new)


@pytest.mark.parametrize("text", [b"abcd", b"efgh", b"ijkl", b"mnop", b"qrst"])
def test_of_what_is_not_utf8_is_kept_what_can_be_read(text: bytes) -> None:
    body = replaced(text, b"a\xff\xfdc")
    rows, others, rejected = fast([body])
    assert (rows, others, rejected) == slowly([body])
    assert "a\ufffd\ufffdc" in str(rows) + str(others)
    assert rejected == {}


def test_an_attribute_of_a_resource_or_a_scope_that_cannot_be_decoded_costs_no_span() -> None:
    request = request_of({}, {})
    group = request.resource_spans[0]
    for owner in (group.resource, group.scope_spans[0].scope):
        for key, value in (("evil", "1"), ("service.name", "shop")):
            owner.attributes.add(key=key).value.string_value = value
    # The value has a field that is longer than the value.
    evil = b"evil\x12\x03\n\x01"
    body = request.SerializeToString()
    assert body.count(evil) == 2
    body = body.replace(evil, b"evil\x12\x03\n\x07")
    rows, others, rejected = fast([body, body])
    assert (rows, others, rejected) == slowly([body, body])
    assert [row["service"] for row in rows] == ["shop"] * 4
    assert rejected == {"attributes that cannot be decoded": 4}


def test_attributes_that_cannot_be_decoded_cost_no_span() -> None:
    attributes = [attribute("evil", "1"), attribute("http.route", "/a"), attribute("evil", "2")]
    event = {"name": "e", "time_unix_nano": START_NS, "attributes": attributes}
    spans = [{"attributes": attributes, "events": [event]}, {}, {"span_id": b""}]
    spans[2]["attributes"] = attributes
    # The value has a field that is longer than the value.
    body = (
        request_of(*spans).SerializeToString().replace(b"evil\x12\x03\n\x01", b"evil\x12\x03\n\x07")
    )
    rows, others, rejected = fast([body])
    assert (rows, others, rejected) == slowly([body])
    assert [row["endpoint"] for row in rows] == ["/a", None]
    assert [row["attributes"] for row in rows] == ['{"http.route":"/a"}', None]
    assert rejected == {"attributes that cannot be decoded": 4, "span without ids": 1}


def test_a_damaged_resource_without_a_span_is_refused() -> None:
    good = request_of({}).SerializeToString()
    bad = b"\x0a\x06\x0a\x02\x0a\x7f\x12\x00"  # its attribute is longer than it
    for body in (good + bad, bad):
        with pytest.raises(InputError):
            slowly([body])
        with pytest.raises(InputError):
            list(otlp_columns.read([good, body]))


def test_a_bad_body_does_not_spoil_the_others() -> None:
    good = request_of({}, {}).SerializeToString()
    odd = request_of({"trace_id": b"short"}).SerializeToString()
    got = list(otlp_columns.read([good, odd, good]))
    total = sum(frame.height + batch.rows("spans") for frame, batch in got)
    assert total == 5
    with pytest.raises(InputError):
        list(otlp_columns.read([good, b"\xff\xff"]))


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 60), st.binary(max_size=3))
def test_damaged_bytes_are_read_as_protobuf_reads_them_or_left_to_it(
    noise: bytes, at: int, patch: bytes
) -> None:
    whole = request_of({"attributes": [attribute("k", "v")]}, {"name": "n"}).SerializeToString()
    for body in (noise, whole[:at] + patch + whole[at + len(patch) :]):
        try:
            got = fast([body])
        except NotPlain:
            continue
        assert got == slowly([body])


def test_real_bodies(shared_data: Path) -> None:
    paths = sorted((shared_data / "contextforge" / "otlp").glob("*.pb"))
    bodies = [path.read_bytes() for path in paths]
    assert fast(bodies) == slowly(bodies)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=300))
@example([])
def test_equal_values_get_equal_numbers(values: list[int]) -> None:
    numbers, firsts = distinct(np.array(values, dtype=np.uint64))
    assert [values[firsts[number]] for number in numbers] == values
    assert len(set(values)) == len(firsts)


@given(st.lists(st.binary(max_size=40) | st.binary(min_size=1020, max_size=1030), max_size=40))
def test_equal_parts_have_equal_hashes(parts: list[bytes]) -> None:
    buffer = Buffer(parts)
    hashes = buffer.hashes(buffer.starts, buffer.ends - buffer.starts)
    numbers, _ = distinct(hashes)
    for one, number in zip(parts, numbers, strict=True):
        for other, same in zip(parts, numbers, strict=True):
            assert (one == other) == (number == same)


def test_messages_of_very_many_fields_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_walk, "_MAX_STEPS", 10)
    body = request_of({"attributes": [attribute("k", "v")] * 20}).SerializeToString()
    with pytest.raises(NotPlain):
        otlp_columns.traces([body])
    [(frame, batch)] = otlp_columns.read([body])
    assert (frame.height, batch.rows("spans")) == (0, 1)
    assert isinstance(frame, pl.DataFrame)


def fields_of(message: bytes) -> list[bytes]:
    whole = Field(0, LENGTH, 0, 0, len(message))
    return [message[field.start : field.end] for field in fields(message, whole)]


def enclosed(number: int, value: bytes, *, long: bool = False) -> bytes:
    """Write a field with a length; with `long` the length takes more bytes than it must."""
    length = len(value)
    size = bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])
    if long:
        size = size[:-1] + bytes([size[-1] | 0x80, 0])
    return bytes([number << 3 | LENGTH]) + size + value


@settings(deadline=None)
@given(st.data())
def test_fields_may_come_in_any_order(data: st.DataObject) -> None:
    attributes = [attribute(f"k{n}", str(n)) for n in range(3)]
    request = request_of({"name": "a", "attributes": attributes, "kind": 2, "flags": 257}, {})
    spans = request.resource_spans[0].scope_spans[0].spans
    split = [fields_of(span.SerializeToString()) for span in spans]
    raws = [b"".join(data.draw(st.permutations(parts))) for parts in split]
    long = data.draw(st.booleans())
    listed = [enclosed(2, raw, long=long) for raw in raws]
    other = data.draw(st.sampled_from([[], [b"\x1a\x01s"], [enclosed(1, b"\x0a\x01n")]]))
    scope = b"".join(data.draw(st.permutations([*listed, *other])))
    body = enclosed(1, enclosed(2, scope))
    rows, _, rejected = slowly([body])
    got = list(otlp_columns.read([body, body]))
    read = [row for frame, _ in got for row in frame.to_dicts()]
    for _, batch in got:
        read += conform(model.SPANS, batch.tables.get("spans", {})).to_dicts()
    assert (read, rejected) == (rows * 2, {})


def test_spans_between_others_and_with_odd_lengths_are_left_to_protobuf() -> None:
    span = request_of({}).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    plain, odd = enclosed(2, span), enclosed(2, span, long=True)
    name = enclosed(1, b"\x0a\x01n")
    assert len(fast([enclosed(1, enclosed(2, name + plain * 2))])[0]) == 2
    for scope in (plain + name + plain, odd, plain + odd):
        with pytest.raises(NotPlain):
            otlp_columns.traces([enclosed(1, enclosed(2, scope))])
