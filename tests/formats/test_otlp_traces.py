from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perfkit import model
from perfkit.errors import InputError
from perfkit.formats import attributes, otlp
from perfkit.parts import conform
from tests.formats.build_otlp import as_json, json_safe, requests, slow_spans

SAMPLES = Path(__file__).resolve().parent.parent / "importers" / "samples"
START = 1_700_000_000_000_000_000
LEFT_OUT = "attributes that cannot be decoded"


def rows_of(batch: Any, table: str = "spans") -> list[dict[str, Any]]:
    return conform(model.BY_NAME[table], batch.tables.get(table, {})).to_dicts()


@given(requests())
def test_spans_are_those_of_the_slow_and_obvious_reading(
    request: ExportTraceServiceRequest,
) -> None:
    batch = otlp.traces_from_protobuf(request.SerializeToString())
    expected = slow_spans(request)
    found = rows_of(batch)
    sent = sum(len(part.spans) for group in request.resource_spans for part in group.scope_spans)
    refused = sum(n for reason, n in batch.rejected.items() if reason.startswith("span "))
    assert len(found) == len(expected) == sent - refused
    for row, slow in zip(found, expected, strict=True):
        written = row.pop("attributes")
        row.pop("resource")
        assert (json.loads(written) if written else {}) == json_safe(slow.pop("attributes"))
        assert row == slow


@given(requests())
def test_json_and_protobuf_of_the_same_spans_give_the_same_batch(
    request: ExportTraceServiceRequest,
) -> None:
    # Protobuf's JSON leaves out what has its default value and writes 64-bit integers as text.
    from_protobuf = otlp.traces_from_protobuf(request.SerializeToString())
    assert otlp.traces_from_json(as_json(request)) == from_protobuf


def test_the_sample_has_every_feature_read_right() -> None:
    batch = otlp.traces_from_json((SAMPLES / "otlp.json").read_bytes())
    assert batch.rejected == {}
    server, query, unfinished = rows_of(batch)
    assert server["endpoint"] == "POST /orders/{id}"
    assert (server["service"], server["instance"], server["pid"]) == ("shop", "web-1:41", 41)
    assert (server["kind"], server["status"], server["http_status"]) == ("server", "ok", 200)
    assert server["start_ns"] == START
    assert server["duration_ns"] == 250_000_000
    assert server["adjusted_count"] == 4.0  # th:c keeps one in four
    assert json.loads(server["attributes"]) == {
        "http.route": "/orders/{id}",
        "load": "NaN",
        "blob": "aGk=",
        "nested": {"list": [True, -(2**63), None]},
        "w3c.tracestate": "ot=th:c",
    }
    assert json.loads(server["resource"]) == {
        "host.name": "web-1",
        "deployment.environment.name": "test",
        "otel.scope.version": "1.2",
    }
    assert query["parent_id"] == server["span_id"]
    assert (query["trace_hi"], query["trace_lo"]) == (server["trace_hi"], server["trace_lo"])
    assert (query["peer"], query["db_system"]) == ("db:5432", "postgresql")
    assert query["db_statement"] == "SELECT * FROM orders WHERE id = 7"
    assert (query["status"], query["status_message"]) == ("error", "timed out")
    assert unfinished["duration_ns"] is None
    [event] = rows_of(batch, "span_events")
    assert (event["span_id"], event["name"]) == (query["span_id"], "exception")
    assert json.loads(event["attributes"]) == {"exception.type": "Timeout"}
    [link] = rows_of(batch, "span_links")
    assert (link["span_id"], link["linked_span_id"]) == (query["span_id"], 0xA1)


def pair(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def span(**fields: Any) -> bytes:
    whole = {
        "traceId": "01" * 16,
        "spanId": "02" * 8,
        "startTimeUnixNano": START,
        "endTimeUnixNano": START + 1,
    }
    return json.dumps(
        {"resourceSpans": [{"scopeSpans": [{"spans": [whole | fields, whole]}]}]}
    ).encode()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"traceId": ""}, "span without ids"),
        ({"traceId": "00" * 16}, "span without ids"),
        ({"spanId": None}, "span without ids"),
        ({"spanId": "00" * 8}, "span without ids"),
        ({"startTimeUnixNano": 0}, "span without a plausible start time"),
        ({"startTimeUnixNano": None}, "span without a plausible start time"),
        ({"startTimeUnixNano": 2**64 - 1}, "span without a plausible start time"),
        ({"startTimeUnixNano": -5}, "span without a plausible start time"),
        ({"endTimeUnixNano": START - 1}, "span that ends before it starts"),
        ({"endTimeUnixNano": START + 400 * 86_400 * 10**9}, "span longer than a year"),
        ({"startTimeUnixNano": "soon"}, "span whose time is no number"),
        ({"endTimeUnixNano": 1e400}, None),
    ],
)
def test_a_bad_span_is_refused_and_the_others_are_kept(
    fields: dict[str, Any], reason: str | None
) -> None:
    if reason is None:
        with pytest.raises(InputError):
            otlp.traces_from_json(span(**fields))
        return
    batch = otlp.traces_from_json(span(**fields))
    assert batch.rejected == {reason: 1}
    assert batch.rows("spans") == 1


@pytest.mark.parametrize(
    ("fields", "column", "value"),
    [
        ({"kind": "SPAN_KIND_CONSUMER"}, "kind", "consumer"),
        ({"kind": 5}, "kind", "consumer"),
        ({"kind": 99}, "kind", "unspecified"),
        ({"kind": None}, "kind", "unspecified"),
        ({"startTimeUnixNano": f"{START}"}, "start_ns", START),
        ({"status": None}, "status", "unset"),
        ({"status": {"code": "STATUS_CODE_ERROR"}}, "status", "error"),
        ({"attributes": None, "events": None, "links": None}, "attributes", None),
        ({"unknown": {"to": ["us"]}}, "name", ""),
        (
            {"attributes": [pair("a", intValue="1"), pair("a", boolValue=True)]},
            *("attributes", '{"a":true}'),
        ),
    ],
)
def test_json_may_be_written_in_several_ways(
    fields: dict[str, Any], column: str, value: object
) -> None:
    assert rows_of(otlp.traces_from_json(span(**fields)))[0][column] == value


def test_the_spelling_of_the_proto_file_and_the_old_names_of_scopes_are_read() -> None:
    modern = (SAMPLES / "otlp.json").read_text()
    snake, old = modern, modern
    for camel in (
        *("resourceSpans", "scopeSpans", "traceId", "spanId", "parentSpanId", "traceState"),
        *("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "stringValue", "intValue"),
        *("boolValue", "doubleValue", "bytesValue", "kvlistValue", "arrayValue"),
    ):
        name = "".join(f"_{char.lower()}" if char.isupper() else char for char in camel)
        snake = snake.replace(f'"{camel}"', f'"{name}"')
    old = old.replace('"scopeSpans"', '"instrumentationLibrarySpans"')
    old = old.replace('"scope"', '"instrumentationLibrary"')
    expected = otlp.traces_from_json(modern.encode())
    assert snake != modern
    assert otlp.traces_from_json(snake.encode()) == expected
    assert otlp.traces_from_json(old.encode()) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b'{"a":1}', b'{"resourceSpans":5}', b"\xff\xfe", b"[" * 100_000,
        b'{"resourceMetrics":[]}', b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":7}]}]}]}',
        b'{"resourceSpans":[{"resource":7,"scopeSpans":[{"spans":[{}]}]}]}',
    ],
)  # fmt: skip
def test_what_is_no_otlp_json_is_an_error(body: bytes) -> None:
    with pytest.raises(InputError):
        otlp.traces_from_json(body)


@pytest.mark.parametrize("body", [b"GET / HTTP/1.1", b"{}", b"\x0a\xff", b"\x12\x00", b"\x00"])
def test_what_is_no_otlp_protobuf_is_an_error(body: bytes) -> None:
    with pytest.raises(InputError):
        otlp.traces_from_protobuf(body)


def test_an_empty_request_is_valid() -> None:
    assert otlp.traces_from_protobuf(b"").tables == {}
    assert otlp.traces_from_json(b" {} ").tables == {}
    assert otlp.metrics_from_json(b"{}").tables == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"key": "a", "value": {"intValue": "x"}},
        {"key": 5},
        {"key": "a", "value": {"bytesValue": "a"}},
    ],
)
def test_attributes_that_cannot_be_decoded_cost_no_span(bad: dict[str, Any]) -> None:
    good = pair("http.route", stringValue="/a")
    more = [bad, pair("k", stringValue="v"), bad]
    event = {"timeUnixNano": START, "attributes": more}
    link = {"traceId": "03" * 16, "spanId": "04" * 8, "attributes": [bad]}
    fields = {"kind": 2, "attributes": [good, *more], "events": [event], "links": [link]}
    batch = otlp.traces_from_json(span(**fields))
    assert batch.rejected == {LEFT_OUT: 5}
    assert [row["endpoint"] for row in rows_of(batch)] == ["/a", None]
    assert [row["attributes"] for row in rows_of(batch)] == ['{"k":"v","http.route":"/a"}', None]
    assert rows_of(batch, "span_events")[0]["attributes"] == '{"k":"v"}'
    assert rows_of(batch, "span_links")[0]["attributes"] is None


def test_of_an_attribute_that_is_no_text_is_kept_what_can_be_read() -> None:
    request = ExportTraceServiceRequest()
    part = request.resource_spans.add().scope_spans.add()
    for number in (1, 2):
        part.spans.add(
            trace_id=b"t" * 16, span_id=bytes([number] * 8), start_time_unix_nano=START
        ).attributes.add(key="name").value.string_value = "good" if number == 1 else "evil"
    body = request.SerializeToString().replace(b"evil", b"\xff\xff\xff\xff")
    batch = otlp.traces_from_protobuf(body)
    assert batch.rejected == {}
    assert [json.loads(row["attributes"]) for row in rows_of(batch)] == [
        {"name": "good"},
        {"name": "\ufffd" * 4},
    ]


def test_of_nested_text_is_kept_what_can_be_read() -> None:
    request = ExportTraceServiceRequest()
    added = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=START)
    )
    value = added.attributes.add(key="evil").value
    value.array_value.values.add().string_value = "evil"
    value.array_value.values.add().bytes_value = b"\xff"
    inner = value.array_value.values.add().kvlist_value.values.add(key="evil")
    inner.value.int_value = 7
    body = request.SerializeToString().replace(b"evil", b"\xffx\xffx")
    batch = otlp.traces_from_protobuf(body)
    text = "\ufffdx\ufffdx"
    assert batch.rejected == {}
    assert json.loads(rows_of(batch)[0]["attributes"]) == {text: [text, "/w==", {text: 7}]}


def test_what_the_sender_dropped_is_counted() -> None:
    batch = otlp.traces_from_json(span(droppedAttributesCount=3, droppedLinksCount=1))
    assert batch.rejected == {
        "attributes that the sender had dropped": 3,
        "links that the sender had dropped": 1,
    }


def test_the_caches_stay_within_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "CACHE_ENTRIES", 8)
    monkeypatch.setattr(attributes, "CACHE_ENTRY_BYTES", 100)
    request = ExportTraceServiceRequest()
    part = request.resource_spans.add().scope_spans.add()
    for number in range(200):
        one = part.spans.add(trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8, "big"))
        one.start_time_unix_nano = START
        for key, text in (
            ("db.query.text", f"SELECT {number % 30}" + " " * (number % 7) * 20),
            ("http.route", f"/r{number % 10}"),
            ("unique", str(number)),
        ):
            one.attributes.add(key=key).value.string_value = text
    batch = otlp.traces_from_protobuf(request.SerializeToString())
    expected = slow_spans(request)
    assert [row["db_statement"] for row in rows_of(batch)] == [e["db_statement"] for e in expected]
    cache = otlp.PROTOBUF.attributes
    assert len(cache) <= 8 + 1
    assert len(cache._resolved) <= 8


def test_real_bodies_are_read_whole(shared_data: Path) -> None:
    sent = got = 0
    for path in sorted((shared_data / "contextforge" / "otlp").glob("*.pb")):
        body = path.read_bytes()
        request = ExportTraceServiceRequest.FromString(body)
        expected = slow_spans(request)
        batch = otlp.traces_from_protobuf(body)
        assert batch == otlp.traces_from_json(as_json(request))
        assert batch.rejected == {}
        for row, slow in zip(rows_of(batch), expected, strict=True):
            assert json.loads(row.pop("attributes") or "{}") == slow.pop("attributes")
            row.pop("resource")
            assert row == slow
        got += batch.rows("spans")
        sent += len(expected)
    assert got == sent == 4793
