from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from perfkit.errors import InputError
from tests.importers.memory import by_name, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
START = 1_700_000_000_000_000_000


def test_the_sample() -> None:
    writer = imported(SAMPLES / "jaeger.json")
    spans = by_name(writer)
    server, producer, consumer = spans["GET /cart/42"], spans["send"], spans["receive"]
    assert server["endpoint"] == "GET /cart/{id}"
    assert (server["status"], server["http_status"]) == ("error", 503)
    assert (server["start_ns"], server["duration_ns"]) == (START, 90_000_000)
    assert (server["service"], server["instance"], server["scope"]) == ("shop", "web-1", "flask")
    assert server["parent_id"] is None
    assert producer["parent_id"] == server["span_id"]
    assert producer["trace_lo"] == server["trace_lo"] == 0xAB
    # A sampler's tag is on the root only and holds for the whole trace.
    assert {span["adjusted_count"] for span in spans.values()} == {4.0}
    # The only reference is FOLLOWS_FROM: parent and link.
    assert (consumer["parent_id"], consumer["kind"]) == (producer["span_id"], "consumer")
    assert (consumer["status"], consumer["status_message"]) == ("error", "no stock")
    assert consumer["attributes"] is None
    [link] = writer.table("span_links").to_dicts()
    assert (link["span_id"], link["linked_span_id"]) == (consumer["span_id"], producer["span_id"])
    [event] = writer.table("span_events").to_dicts()
    assert (event["name"], event["ts_ns"]) == ("retry", START + 1_000_000)
    assert json.loads(event["attributes"]) == {"event": "retry", "attempt": 2}


def span(**fields: object) -> dict[str, object]:
    whole: dict[str, object] = {"traceID": "a", "spanID": "1", "startTime": 5, "duration": 7}
    return whole | fields


def write(path: Path, spans: list[dict[str, object]]) -> Path:
    file = path / "trace.json"
    file.write_text(json.dumps({"traceID": "a", "spans": spans, "processes": {}}))
    return file


@pytest.mark.parametrize(
    ("references", "parent", "links"),
    [
        ([("CHILD_OF", "a", "9")], 9, []),
        ([("CHILD_OF", "000a", "9"), ("FOLLOWS_FROM", "a", "8")], 9, [8]),
        ([("FOLLOWS_FROM", "a", "8"), ("CHILD_OF", "a", "9")], 9, [8]),
        ([("CHILD_OF", "a", "9"), ("CHILD_OF", "a", "8")], 9, [8]),
        ([("CHILD_OF", "b", "9")], None, [9]),
        ([("FOLLOWS_FROM", "b", "9")], None, [9]),
        ([("FOLLOWS_FROM", "a", "8"), ("FOLLOWS_FROM", "a", "7")], 8, [8, 7]),
        ([("CHILD_OF", "a", "")], None, []),
    ],
)
def test_references(
    references: list[tuple[str, str, str]], parent: int | None, links: list[int], tmp_path: Path
) -> None:
    listed = [{"refType": kind, "traceID": t, "spanID": s} for kind, t, s in references]
    writer = imported(write(tmp_path, [span(references=listed)]))
    assert writer.table("spans")["parent_id"].to_list() == [parent]
    assert writer.table("span_links")["linked_span_id"].to_list() == links


def test_the_old_field_of_the_parent_is_read(tmp_path: Path) -> None:
    writer = imported(write(tmp_path, [span(parentSpanID="1f")]))
    assert writer.table("spans")["parent_id"].to_list() == [0x1F]


def test_bad_spans_are_refused_one_by_one(tmp_path: Path) -> None:
    spans = [
        span(operationName="good"),
        span(spanID=None),
        span(startTime=-3),
        span(duration=-3),
        span(startTime="soon"),
        span(startTime=1e300),
        span(tags=[{"key": "n", "type": "int64", "value": "many"}]),
        span(tags=[5]),
        span(logs=[{"timestamp": -1, "fields": []}]),
    ]
    writer = imported(write(tmp_path, spans))
    assert writer.info.rows["spans"] == 2
    assert writer.lost() == {
        "span without ids": 1,
        "span without a plausible start time": 3,
        "span that ends before it starts": 1,
        "span with a tag that cannot be decoded": 2,
        "event without a plausible time": 1,
    }


def test_lists_of_traces_and_the_query_api_are_the_same(tmp_path: Path) -> None:
    document = json.loads((SAMPLES / "jaeger.json").read_text())
    path = tmp_path / "traces.json"
    path.write_text(json.dumps(document["data"]))
    expected = imported(SAMPLES / "jaeger.json").table("spans")
    assert imported(path).table("spans").equals(expected)
    path.write_text(json.dumps(document["data"][0], indent=2))
    assert imported(path).table("spans").equals(expected)


def test_an_error_names_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "traces.json"
    path.write_text(json.dumps({"data": [{"traceID": "a", "spans": [span()]}, {"spans": 4}]}))
    with pytest.raises(InputError, match=r"traces\.json, element 2: not Jaeger JSON: .*spans"):
        imported(path, format="jaeger-json")


def test_deathstarbench(shared_data: Path) -> None:
    spans = imported(shared_data / "jaeger_json" / "deathstarbench-20-traces.json").table("spans")
    assert spans.height == 660
    assert spans.n_unique("trace_lo") == 20
    assert spans["parent_id"].null_count() == 20
    assert spans.n_unique("service") == 12
    assert spans["adjusted_count"].unique().to_list() == [5.0]
    # Every parent is there.
    key = ["trace_hi", "trace_lo", "parent_id"]
    parents = spans.select("trace_hi", "trace_lo", pl.col("span_id").alias("parent_id"))
    children = spans.filter(pl.col("parent_id").is_not_null())
    assert children.join(parents, on=key, how="anti").is_empty()
    # Against a reading by Python's own JSON.
    raw = json.loads((shared_data / "jaeger_json" / "deathstarbench-20-traces.json").read_text())
    assert spans["duration_ns"].sum() == sum(
        span["duration"] * 1000 for trace in raw["data"] for span in trace["spans"]
    )


def test_the_cases_of_crisp(shared_data: Path) -> None:
    for path in sorted((shared_data / "jaeger_json").glob("crisp-*.json")):
        raw = json.loads(path.read_text())
        spans = imported(path).table("spans")
        assert spans.height == sum(len(trace["spans"]) for trace in raw["data"])
        assert spans["start_ns"].to_list() == [
            span["startTime"] * 1000 for trace in raw["data"] for span in trace["spans"]
        ]
