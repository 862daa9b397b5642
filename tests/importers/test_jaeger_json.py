from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit import ids
from perfkit.errors import InputError
from perfkit.formats.spans import problem
from perfkit.importers import base, jaeger_json
from tests.importers.memory import MemoryWriter, by_name, imported

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
        span(logs=[{"timestamp": 5, "fields": [{"key": "event", "value": "e"}, {"key": 5}]}]),
    ]
    writer = imported(write(tmp_path, spans))
    assert writer.info.rows["spans"] == 5
    assert writer.table("span_events").select("name", "attributes").rows() == [
        ("e", '{"event":"e"}')
    ]
    assert writer.lost() == {
        "span without ids": 1,
        "span without a plausible start time": 3,
        "span that ends before it starts": 1,
        "tags that cannot be decoded": 3,
        "event without a plausible time": 1,
    }


def test_a_tag_of_a_process_that_cannot_be_read_costs_no_span(tmp_path: Path) -> None:
    bad = {"serviceName": "shop", "tags": [{"key": "pid", "type": "int64", "value": "many"}]}
    spans = [span(processID="p1"), span(spanID="2", processID="p2")]
    trace = {"traceID": "a", "spans": spans, "processes": {"p1": {"serviceName": "a"}, "p2": bad}}
    path = tmp_path / "traces.json"
    path.write_text(json.dumps({"data": [trace, trace | {"traceID": "b"}]}))
    writer = imported(path)
    assert sorted(writer.table("spans")["service"]) == ["a", "a", "shop", "shop"]
    assert writer.lost() == {"tags that cannot be decoded": 2}


def test_lists_of_traces_and_the_query_api_are_the_same(tmp_path: Path) -> None:
    document = json.loads((SAMPLES / "jaeger.json").read_text())
    path = tmp_path / "traces.json"
    path.write_text(json.dumps(document["data"]))
    expected = imported(SAMPLES / "jaeger.json").table("spans")
    assert imported(path).table("spans").equals(expected)
    path.write_text(json.dumps(document["data"][0], indent=2))
    assert imported(path).table("spans").equals(expected)


@pytest.mark.parametrize("files", [1, 3])
def test_times_in_another_unit_are_spoken_of_once(files: int, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(files)]
    for number, path in enumerate(paths, 1):
        spans = [span(traceID=f"{number}", startTime=1_764_450_000_123)]  # ms
        path.write_text(json.dumps({"data": [{"spans": spans, "processes": {}}]}))
    (note,) = imported(*paths).info.notes
    assert note.startswith("0.json")
    assert "1970-01-21" in note
    assert "another unit" in note


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


def test_each_span_has_the_process_that_is_in_it(tmp_path: Path) -> None:
    own = [span(spanID=str(n), process={"serviceName": f"s{n}"}) for n in (1, 2)]
    spans = imported(write(tmp_path, own)).table("spans")
    assert spans["service"].to_list() == ["s1", "s2"]


IDS = st.sampled_from(["1", "a3", "0x1f", "", "0", "00000000000000ff", "zz", "f" * 16, "e" * 17])
TIMES = st.sampled_from([5, 1000, 2.5, "7", "soon", -1, 1e300, 2**62, 2**70])
TAGS = st.lists(
    st.sampled_from(
        [
            {"key": "span.kind", "type": "string", "value": "server"},
            {"key": "sampler.type", "type": "string", "value": "probabilistic"},
            {"key": "sampler.param", "type": "float64", "value": 0.25},
            {"key": "x", "type": "int64", "value": "12"},
            {"key": "x", "type": "int64", "value": "many"},
            {"key": "y", "type": "bool", "value": True},
        ]
    ),
    max_size=3,
)
LINKED = st.fixed_dictionaries(
    {"refType": st.sampled_from(["CHILD_OF", "FOLLOWS_FROM"]), "spanID": IDS},
    optional={"traceID": st.sampled_from(["a", "0a", "b"])},
)
ANY_SPANS = st.lists(
    st.fixed_dictionaries(
        {"spanID": IDS, "startTime": TIMES},
        optional={
            "traceID": st.sampled_from(["a", "b", ""]),
            "duration": TIMES | st.none(),
            "references": st.lists(LINKED, max_size=2),
            "parentSpanID": IDS,
            "tags": TAGS,
            "processID": st.sampled_from(["p1", "p2"]),
        },
    ),
    max_size=6,
)


def microseconds(value: Any) -> int:
    try:
        return value * 1000 if isinstance(value, int) else round(float(value) * 1000)
    except (ValueError, OverflowError):
        return -1


def by_hand(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what columns should say of the spans of a trace, one span after the other."""
    found = []
    for one in trace["spans"]:
        trace_id = ids.trace_id_from_text(one.get("traceID") or trace["traceID"])
        span_id = ids.span_id_from_text(one["spanID"])
        start_ns = microseconds(one["startTime"])
        length = one.get("duration")
        duration_ns = None if length is None else microseconds(length)
        end_ns = None if duration_ns is None else start_ns + duration_ns
        good = [tag for tag in one.get("tags", ()) if tag["value"] != "many"]
        tags = {tag["key"]: tag["value"] for tag in good}
        if problem(trace_id, span_id, start_ns, end_ns) is not None:
            continue
        parents: dict[str, list[int]] = {"CHILD_OF": [], "FOLLOWS_FROM": []}
        for reference in one.get("references", ()):
            target = ids.span_id_from_text(reference["spanID"])
            of = reference.get("traceID")
            if target and (of is None or ids.trace_id_from_text(of) == trace_id):
                parents[reference["refType"]].append(target)
        own = ids.span_id_from_text(one.get("parentSpanID"))
        parent_id = [*parents["CHILD_OF"], *parents["FOLLOWS_FROM"], own][0]
        sampled = tags.get("sampler.type") == "probabilistic" and "sampler.param" in tags
        rest = {"x": 12, "y": True}
        found.append(
            {
                "trace_lo": trace_id[1],
                "span_id": span_id,
                "parent_id": parent_id,
                "start_ns": start_ns,
                "duration_ns": duration_ns,
                "kind": tags.get("span.kind", "unspecified"),
                "service": {"p1": "shop"}.get(one.get("processID"), "unknown_service"),
                "adjusted_count": 4.0 if sampled else 1.0,
                "rest": {key: value for key, value in rest.items() if key in tags},
            }
        )
    most = max((one["adjusted_count"] for one in found), default=1.0)
    return [one | {"adjusted_count": most} for one in found]


@settings(max_examples=60)
@given(st.lists(ANY_SPANS, min_size=1, max_size=3))
def test_columns_say_what_each_span_says(traces: list[list[dict[str, Any]]]) -> None:
    documents = [
        {"traceID": "a", "spans": spans, "processes": {"p1": {"serviceName": "shop"}}}
        for spans in traces
    ]
    expected = [row for document in documents for row in by_hand(document)]
    texts = [json.dumps({"data": [document]}).encode() for document in documents]
    whole = json.dumps({"data": documents}).encode()
    for contents in (texts, [whole], [whole, b"{"]):
        writer = MemoryWriter()
        sources = [base.Source(Path("x.json"), content=content) for content in contents]
        damaged = contents.count(b"{")
        assert jaeger_json.read_together(sources, writer) == len(contents) - damaged
        rows = writer.table("spans").to_dicts()
        told = [json.loads(row["attributes"] or "{}") for row in rows]
        for row, rest in zip(rows, told, strict=True):
            row["rest"] = {key: rest[key] for key in ("x", "y") if key in rest}
        assert [
            {key: row[key] for key in one} for row, one in zip(rows, expected, strict=True)
        ] == (expected)
