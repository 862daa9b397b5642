"""What the formats of spans mean, case by case; their samples are in test_golden.py."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from perfkit.errors import InputError
from tests.importers.memory import MemoryWriter, by_name, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
NOW_US = 1_795_871_323_000_000


def of(tmp_path: Path, document: object, **options: object) -> MemoryWriter:
    path = tmp_path / "input.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return imported(path, **options)


def zipkin(name: str, service: str, **members: object) -> dict[str, object]:
    shared = {"traceId": "1", "timestamp": NOW_US, "duration": 10, "name": name}
    return {**shared, "localEndpoint": {"serviceName": service}, **members}


def test_zipkin_halves_of_a_call_that_share_an_id(tmp_path: Path) -> None:
    """
    shop   |-- call a (id 2) ---|
    stock    |- serve a (id 2, shared) -|
    stock       |- query (parent 2) -|
    shop        |- retry (parent 2) -|
    """
    spans = [
        zipkin("root", "shop", id="1", kind="SERVER"),
        zipkin("serve", "stock", id="2", parentId="1", kind="SERVER", shared=True),
        zipkin("query", "stock", id="3", parentId="2"),
        zipkin("retry", "shop", id="4", parentId="2"),
        zipkin("call", "shop", id="2", parentId="1", kind="CLIENT"),
        zipkin("lonely", "far", id="9", parentId="1", kind="SERVER", shared=True),
    ]
    named = by_name(of(tmp_path, spans))
    assert len(named) == 6
    assert named["call"]["parent_id"] == named["root"]["span_id"] == 1
    assert named["serve"]["parent_id"] == named["call"]["span_id"] == 2
    assert named["query"]["parent_id"] == named["serve"]["span_id"]
    assert named["retry"]["parent_id"] == named["call"]["span_id"]
    assert named["lonely"]["span_id"] == 9  # its client's half was not reported
    # Lists of traces say the same.
    assert of(tmp_path, [spans]).table("spans").equals(of(tmp_path, spans).table("spans"))


def test_zipkin_spans_without_time_are_refused_and_counted(tmp_path: Path) -> None:
    writer = of(tmp_path, [zipkin("a", "s", id="1"), {"traceId": "1", "id": "2", "kind": "CLIENT"}])
    assert writer.lost() == {"span without a plausible start time": 1}


def test_times_in_another_unit_than_the_format_says_are_spoken_of(tmp_path: Path) -> None:
    writer = of(tmp_path, [zipkin("a", "s", id="1", timestamp=NOW_US // 1000)])
    assert any("may be in another unit" in note for note in writer.info.notes)
    assert not of(tmp_path, [zipkin("a", "s", id="1")]).info.notes


def test_a_list_that_is_cut_off_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    text = json.dumps([zipkin(f"n{n}", "s", id=str(n + 1)) for n in range(5)])
    with pytest.raises(InputError, match=r"input\.json, byte \d+: cut off"):
        of(tmp_path, text[:-30])
    writer = of(tmp_path, text[:-30], keep_going=True)
    assert writer.info.rows["spans"] == 4
    [note] = [note for note in writer.info.notes if "cut off" in note]
    at = int(note.split("byte ")[1].split(":")[0])
    assert text[at:].lstrip(", ").startswith('{"traceId"')


def event(phase: str, name: str, ts: float, **members: object) -> dict[str, object]:
    return {"ph": phase, "name": name, "ts": ts, "pid": 1, "tid": 2, **members}


def tree(writer: MemoryWriter) -> dict[str, object]:
    """Return name -> name of the parent."""
    spans = writer.table("spans")
    names = dict(zip(spans["span_id"], spans["name"], strict=True))
    return {row["name"]: names.get(row["parent_id"]) for row in spans.to_dicts()}


def test_chrome_slices_nest_by_time_and_thread(tmp_path: Path) -> None:
    """
    thread 2  |------- a -------|  |- d -|
                |- b -| |- c -|
    thread 3    |- e -|
    """
    writer = of(
        tmp_path,
        [
            event("B", "a", NOW_US),
            event("X", "c", NOW_US + 50, dur=40),
            event("B", "b", NOW_US + 10),
            event("E", "b", NOW_US + 40),
            event("E", "a", NOW_US + 100),
            event("X", "d", NOW_US + 100, dur=5),
            event("X", "e", NOW_US + 10, dur=5, tid=3),
            event("i", "mark", NOW_US + 20),
            event("i", "nowhere", NOW_US + 500),
            event("C", "memory", NOW_US, args={"heap": 5, "text": "x"}),
            event("s", "arrow", NOW_US + 900, id=1),
        ],
    )
    assert tree(writer) == {"a": None, "b": "a", "c": "a", "d": None, "e": None}
    spans = writer.table("spans")
    assert spans.filter(pl.col("name") == "c")["start_ns"].item() == (NOW_US + 50) * 1000
    assert spans.n_unique("trace_lo") == 3
    [mark] = writer.table("span_events").to_dicts()
    assert mark["span_id"] == spans.filter(pl.col("name") == "b")["span_id"].item()
    [heap] = writer.table("metrics").to_dicts()
    assert (heap["name"], heap["value"], heap["instance"]) == ("memory", 5.0, "pid 1")
    assert writer.lost() == {
        "end of a flow outside of every slice": 1,
        "instant outside of every slice": 1,
    }


def test_chrome_slices_that_are_not_closed_and_a_list_that_is_not(tmp_path: Path) -> None:
    text = json.dumps([event("B", "a", 5), event("B", "b", 6), event("E", "b", 9)])
    for cut in (text, text[:-1], text[:-1] + ","):
        writer = of(tmp_path, cut, started_at_ns=10**18)
        assert tree(writer) == {"a": None, "b": "a"}
        lengths = dict(writer.table("spans").select("name", "duration_ns").iter_rows())
        assert lengths == {"a": None, "b": 3000}
        assert writer.table("spans")["start_ns"].min() == 10**18
    with pytest.raises(InputError, match="cut off"):
        of(tmp_path, text[:-9], started_at_ns=10**18)


def test_sentry_events_of_every_shape_are_the_same(tmp_path: Path) -> None:
    lines = (SAMPLES / "sentry.envelope").read_text().splitlines()
    event = json.loads(lines[2])
    expected = imported(SAMPLES / "sentry.envelope").table("spans")
    for text in (json.dumps(event), json.dumps(event, indent=2), json.dumps([event])):
        assert of(tmp_path, text).table("spans").equals(expected)


def sentry_span(number: int, parent: int, op: str, said: str, **data: object) -> dict[str, object]:
    at = 1_700_000_000.0 + number / 10
    span = {"span_id": f"{number:016x}", "parent_span_id": f"{parent:016x}", "op": op}
    times = {"start_timestamp": at, "timestamp": at + 0.05}
    return {**span, **times, "description": said, "data": data}


def sentry_event(*spans: dict[str, object], **members: object) -> dict[str, object]:
    trace = {"trace_id": "a" * 32, "span_id": f"{1:016x}", "op": "http.server"}
    times = {"start_timestamp": 1_700_000_000.0, "timestamp": 1_700_000_009.0}
    event = {"spans": list(spans), "transaction": "GET /shelf", "contexts": {"trace": trace}}
    return {**event, **times, **members}


def test_sentry_spans_whose_parent_was_dropped_are_below_their_transaction(tmp_path: Path) -> None:
    spans = [
        sentry_span(2, 1, "function", "kept"),
        sentry_span(3, 2, "function", "below"),
        sentry_span(4, 77, "function", "orphan"),
        sentry_span(5, 5, "function", "its own"),
    ]
    named = by_name(of(tmp_path, sentry_event(*spans)))
    above = {name: (row["parent_id"], row["parent_inferred"]) for name, row in named.items()}
    assert above == {
        "GET /shelf": (None, False),
        "kept": (1, False),
        "below": (2, False),
        "orphan": (1, True),
        "its own": (1, True),
    }


def test_sentry_says_who_made_the_spans_what_they_ask_and_which_tool(tmp_path: Path) -> None:
    parts = {"pathname": "/items/7", "search": "?full=1"}
    spans = [
        sentry_span(2, 1, "http.client", "GET http://shop/items", url=parts),
        sentry_span(
            3, 1, "gen_ai.execute_tool", "execute_tool find", **{"gen_ai.tool.input": "{}"}
        ),
    ]
    named = by_name(of(tmp_path, sentry_event(*spans, sdk={"name": "sentry.php.laravel"})))
    assert {row["scope"] for row in named.values()} == {"sentry.php.laravel"}
    asked = named["GET http://shop/items"]
    assert json.loads(str(asked["attributes"]))["url.full"] == "/items/7?full=1"
    tool = named["execute_tool find"]
    assert (tool["tool"], tool["tool_arguments"]) == ("find", "{}")


def test_a_sentry_event_is_known_though_a_long_text_comes_first(tmp_path: Path) -> None:
    long = sentry_span(2, 1, "function", "long", text="word " * 20_000)
    event = sentry_event(long)
    assert of(tmp_path, event).info.rows["spans"] == 2


def test_detectors_events(shared_data: Path, tmp_path: Path) -> None:
    cases = sorted((shared_data / "detectors").glob("*.json"))
    assert cases
    for case in cases:
        event = json.loads(case.read_text())["event"]
        writer = of(tmp_path, event, format="sentry-json", started_at_ns=10**18)
        assert writer.info.rows["spans"] >= len(event["spans"])


def test_datadog_ids_are_128_bits_where_the_chunk_says_so_and_pages_are_read(
    tmp_path: Path,
) -> None:
    span = {"name": "n", "resource": "GET /a", "service": "s", "type": "web", "error": 0}
    sent = [[{**span, "trace_id": 255, "span_id": 10, "parent_id": 0, "start": NOW_US * 1000,
              "duration": 1000, "meta": {"_dd.p.tid": "6b0ad2e200000000"}, "metrics": {}},
             {**span, "trace_id": 255, "span_id": 11, "parent_id": 10, "start": NOW_US * 1000,
              "duration": 1000}]]  # fmt: skip
    spans = of(tmp_path, sent).table("spans")
    assert spans["trace_hi"].to_list() == [0x6B0AD2E200000000] * 2
    assert spans["trace_lo"].to_list() == [255, 255]
    page = {"trace": {"root_id": "10", "spans": {"10": {
        **span, "trace_id": "255", "span_id": "10", "parent_id": "0", "start": NOW_US / 1e6,
        "duration": 0.25}}}}  # fmt: skip
    [shown] = of(tmp_path, page).table("spans").to_dicts()
    assert (shown["span_id"], shown["duration_ns"]) == (10, 250_000_000)
    assert (shown["start_ns"], shown["endpoint"]) == (NOW_US * 1000, "GET /a")
    # A Lambda function logs them in hexadecimal.
    logged = {"traces": [[{**span, "trace_id": "0000000000000010", "span_id": "0000000000000011",
                           "start": NOW_US * 1000, "duration": 1}]]}  # fmt: skip
    [shown] = of(tmp_path, logged).table("spans").to_dicts()
    assert (shown["trace_lo"], shown["span_id"]) == (16, 17)


def test_xray_of_the_command_line_tool(tmp_path: Path) -> None:
    segment = (SAMPLES / "xray.jsonl").read_text().strip()
    segments = [{"Id": "8b6da771a01951dd", "Document": segment}]
    answer = {"Traces": [{"Id": "1-6b0ad25d-3f40de50753d2c550ebc7a38", "Segments": segments}]}
    expected = imported(SAMPLES / "xray.jsonl").table("spans")
    assert of(tmp_path, answer).table("spans").equals(expected)
    assert of(tmp_path, f"[{segment}]").table("spans").equals(expected)


def test_skywalking_of_the_query_api(tmp_path: Path) -> None:
    span = {"traceId": "t", "segmentId": "s", "spanId": 0, "parentSpanId": -1, "refs": [],
            "serviceCode": "shop", "serviceInstanceName": "i", "startTime": NOW_US // 1000,
            "endTime": NOW_US // 1000 + 5, "endpointName": "/a", "type": "Entry", "peer": "",
            "component": "Flask", "isError": True, "layer": "Http", "tags": []}  # fmt: skip
    inner = {**span, "spanId": 1, "parentSpanId": 0, "type": "Exit", "peer": "b:1"}
    named = of(tmp_path, {"data": {"trace": {"spans": [span, inner]}}}).table("spans").to_dicts()
    assert named[1]["parent_id"] == named[0]["span_id"]
    assert (named[0]["kind"], named[0]["status"], named[1]["peer"]) == ("server", "error", "b:1")


@pytest.mark.parametrize("name", ["zipkin_v2", "chrome_trace"])
def test_real_files(name: str, shared_data: Path) -> None:
    for path in sorted((shared_data / name).iterdir()):
        writer = imported(path, started_at_ns=10**18)
        assert writer.info.rows["spans"] > 0, path
        assert not [why for why in writer.lost() if why.startswith("span ")], path


def links(writer: MemoryWriter) -> list[tuple[str, str]]:
    """Return (name, name of what it links to)."""
    names = dict(writer.table("spans").select("span_id", "name").rows())
    found = writer.table("span_links").select("span_id", "linked_span_id").rows()
    return sorted((names[one], names[other]) for one, other in found)


def test_chrome_flows_become_links_to_where_they_come_from(tmp_path: Path) -> None:
    """
    thread 2  |--- post ---|     |- later -|
                |- inner -|s1,s2
    thread 3            f1|-- run --|   |- next -|
    thread 4       |----- f2 around -----|
    """
    writer = of(
        tmp_path,
        [
            event("X", "post", NOW_US, dur=100),
            event("X", "inner", NOW_US + 20, dur=60),
            event("X", "run", NOW_US + 150, dur=100, tid=3),
            event("X", "next", NOW_US + 300, dur=10, tid=3),
            event("X", "around", NOW_US + 10, dur=400, tid=4),
            event("X", "later", NOW_US + 500, dur=10),
            event("s", "task", NOW_US + 50, id=1, cat="c"),
            event("f", "task", NOW_US + 140, id=1, cat="c", tid=3),  # the next slice: run
            event("s", "task", NOW_US + 90, id=2, cat="c"),  # post: inner is over
            event("f", "task", NOW_US + 200, id=2, cat="c", tid=4, bp="e"),  # around
            event("t", "steps", NOW_US + 305, id=1, cat="c", tid=3),  # its beginning is missing
            event("f", "steps", NOW_US + 499, id=1, cat="c"),
            event("f", "task", NOW_US + 900, id=9, cat="c"),  # after the last slice
        ],
    )
    assert links(writer) == [("around", "post"), ("later", "next"), ("run", "inner")]
    assert writer.lost() == {"end of a flow outside of every slice": 1}


def test_chrome_slices_that_say_their_flows_themselves(tmp_path: Path) -> None:
    writer = of(
        tmp_path,
        [
            event("X", "first", NOW_US, dur=10, bind_id="0x1", flow_out=True),
            event("X", "middle", NOW_US + 20, dur=9, bind_id="0x1", flow_in=True, flow_out=True),
            event("X", "last", NOW_US + 40, dur=10, tid=3, bind_id="0x1", flow_in=True),
            event("X", "other", NOW_US + 60, dur=10, bind_id="0x2", flow_in=True),
        ],
    )
    assert links(writer) == [("last", "middle"), ("middle", "first")]
