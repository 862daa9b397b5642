"""The check of a body before it is acknowledged, beside the decoder whose refusals it foretells."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1 import trace_pb2

from perfkit.collect import intake
from perfkit.errors import InputError
from perfkit.formats import otlp, otlp_check
from perfkit.formats.spans import MAX_DURATION_NS, MAX_TIME_NS, MIN_TIME_NS

AT_NS = 1_795_871_323_000_000_000
GOOD = {"trace_id": b"\0" * 15 + b"\1", "span_id": b"\1" + b"\0" * 7, "name": "a", "kind": 2,
        "start_time_unix_nano": AT_NS, "end_time_unix_nano": AT_NS + 5}  # fmt: skip
FAR_NS = [MAX_TIME_NS - 1, MAX_TIME_NS, MAX_TIME_NS + 1, 2**63 - 1, 2**63, 2**64 - 1]
ODD = st.fixed_dictionaries(
    {},
    optional={
        "trace_id": st.sampled_from([b"", b"\0" * 16, b"\0" * 8 + b"\7" * 8, b"\1" + b"\0" * 15]),
        "span_id": st.sampled_from([b"", b"\0" * 8, b"\0" * 7 + b"\1", b"\xff" * 8]),
        "kind": st.integers(0, 5),
        "start_time_unix_nano": st.sampled_from(
            [0, 1, MIN_TIME_NS - 1, MIN_TIME_NS, AT_NS + 6, *FAR_NS]
        ),
        "end_time_unix_nano": st.sampled_from(
            [0, AT_NS + MAX_DURATION_NS, AT_NS + MAX_DURATION_NS + 1, *FAR_NS]
        ),
    },
)
SPANS = st.lists(st.builds(lambda odd: {**GOOD, **odd}, st.one_of(st.just({}), ODD)), max_size=4)


def body_of(scopes: list[list[dict[str, object]]]) -> bytes:
    """Write a request with a resource for every two scopes."""
    data = trace_pb2.TracesData()
    for number, spans in enumerate(scopes):
        if number % 2 == 0:
            data.resource_spans.add().resource.attributes.add(key="service.name")
        scope = data.resource_spans[-1].scope_spans.add()
        scope.scope.name = f"scope {number}"
        for span in spans:
            added = scope.spans.add(**span)
            added.attributes.add(key="k").value.string_value = "v"
            added.status.code = 1
    return data.SerializeToString()


@given(st.lists(SPANS, max_size=4))
@example([[GOOD, GOOD], [], [GOOD]])
@example([[{**GOOD, "trace_id": b"\1" + b"\0" * 15, "span_id": b"\1" + b"\0" * 7}, GOOD]])
@example([[{**GOOD, "start_time_unix_nano": MAX_TIME_NS, "end_time_unix_nano": MAX_TIME_NS}]])
@example([[{**GOOD, "start_time_unix_nano": MAX_TIME_NS - 1, "end_time_unix_nano": 2**63 - 1}]])
@example([[{**GOOD, "start_time_unix_nano": 2**63 - 1, "end_time_unix_nano": 2**63}]])
@example([[{**GOOD, "start_time_unix_nano": 2**64 - 1, "end_time_unix_nano": AT_NS}]])
@settings(max_examples=150)
def test_what_is_taken_is_what_the_decoder_takes(scopes: list[list[dict[str, object]]]) -> None:
    body = body_of(scopes)
    found, batch = otlp_check.request_durations(body), otlp.traces_from_protobuf(body)
    if found is not None:
        assert not batch.rejected
        assert found.spans == batch.rows("spans")
        assert sorted(found.requests_ns) == sorted(intake._durations_of(batch))
    else:
        unended = None in batch.tables["spans"]["duration_ns"] if batch.tables else False
        assert batch.rejected or unended


def test_columns_are_of_all_spans_or_of_none() -> None:
    columns = otlp_check.span_columns(body_of([[GOOD], [{**GOOD, "kind": 3}, GOOD]]))
    assert list(columns.kinds) == [2, 3, 2]
    for absent in ({"kind": 0}, {"span_id": b""}, {"end_time_unix_nano": 0}):
        assert otlp_check.span_columns(body_of([[GOOD, {**GOOD, **absent}]])) is None
    # A span without anything is one, too.
    body = body_of([[GOOD]])
    assert otlp_check.span_columns(body + b"\x0a\x04\x12\x02\x12\x00") is None
    assert otlp_check.request_durations(body + b"\x0a\x04\x12\x02\x12\x00") is None


def test_what_protobuf_refuses_in_a_span_is_refused_in_columns() -> None:
    body = body_of([[{**GOOD, "name": "name"}]])
    # The second is a span whose name is longer than the span.
    for damaged in (body[:-1], body.replace(b"\x04name", b"\x7fname")):
        assert otlp_check.span_columns(damaged) is None
        assert otlp_check.request_durations(damaged) is None
        with pytest.raises(InputError):
            otlp.traces_from_protobuf(damaged)


def test_what_is_no_text_costs_no_span_and_a_damaged_resource_all() -> None:
    body = body_of([[GOOD, {**GOOD, "name": "name"}]])
    key = b"\x0a\x01k"
    assert body.count(key) == 2
    damaged = body.replace(key, b"\x0a\x01\xff", 1)
    batch = otlp.traces_from_protobuf(damaged)
    assert batch.rows("spans") == 2
    assert batch.tables["spans"]["attributes"] == ['{"\ufffd":"v"}', '{"k":"v"}']
    assert otlp_check.request_durations(damaged) == otlp_check.Durations(2, [5, 5])
    for part in (b"service.name", b"scope 0", b"name"):
        odd = body.replace(part, b"\xff" * len(part))
        assert otlp_check.request_durations(odd) == otlp_check.Durations(2, [5, 5])
        assert otlp.traces_from_protobuf(odd).rows("spans") == 2
    # An attribute of the resource, a scope's name, that are longer than what they are in.
    for good, bad in ((b"\x0a\x0e\x0a\x0c", b"\x0a\x7f\x0a\x0c"), (b"\x07scope 0", b"\x7fscope 0")):
        assert body.count(good) == 1
        worse = body.replace(good, bad)
        assert otlp_check.request_durations(worse) is None
        with pytest.raises(InputError):
            otlp.traces_from_protobuf(worse)
