"""OTLP as Jaeger's v3 API and Grafana Tempo answer it, and k6's CSV."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from perfkit import ids
from perfkit.errors import InputError
from tests.importers.memory import imported

NOW_NS = 1_795_871_323_000_000_000


def span(number: int, *, in_base64: bool) -> dict[str, Any]:
    def text(raw: bytes) -> str:
        return base64.b64encode(raw).decode() if in_base64 else raw.hex()

    found: dict[str, Any] = {
        "traceId": text(bytes(range(240, 256))),
        "spanId": text(bytes([number, 255, 254, 253, 252, 251, 250, 249])),
        "name": f"op{number}",
        "kind": "SPAN_KIND_SERVER" if in_base64 else 2,
        "startTimeUnixNano": str(NOW_NS + number),
        "endTimeUnixNano": str(NOW_NS + number + 1000),
        "status": {"code": "STATUS_CODE_ERROR" if in_base64 else 2},
    }
    if number > 1:
        found["parentSpanId"] = text(bytes([1, 255, 254, 253, 252, 251, 250, 249]))
    return found


def group(*numbers: int, in_base64: bool, old: bool = False) -> dict[str, Any]:
    name = {"key": "service.name", "value": {"stringValue": "shop"}}
    inner, scope = ("scopeSpans", "scope")
    if old:
        inner, scope = ("instrumentationLibrarySpans", "instrumentationLibrary")
    spans = [span(number, in_base64=in_base64) for number in numbers]
    return {
        "resource": {"attributes": [name]},
        inner: [{scope: {"name": "lib"}, "spans": spans}],
    }


PLAIN = {"resourceSpans": [group(1, 2, in_base64=False)]}
ANSWERS: dict[str, list[Any]] = {
    "Jaeger, one answer": [{"result": PLAIN}],
    "Jaeger, in pieces": [
        {"result": {"resourceSpans": [group(number, in_base64=False)]}} for number in (1, 2)
    ],
    "Tempo": [{"batches": [group(1, 2, in_base64=True)]}],
    "Tempo of old": [{"batches": [group(1, 2, in_base64=True, old=True)]}],
    "Tempo's v2": [{"trace": {"resourceSpans": [group(1, 2, in_base64=True)]}, "metrics": {}}],
    "Tempo's v2 with batches": [{"trace": {"batches": [group(1, 2, in_base64=True)]}}],
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("indent", [None, 2])
def test_an_answer_of_a_query_api_is_the_same_as_the_document_in_it(
    name: str, indent: int | None, tmp_path: Path
) -> None:
    plain, path = tmp_path / "plain.json", tmp_path / "answer.json"
    plain.write_text(json.dumps(PLAIN))
    documents = ANSWERS[name]
    path.write_text(
        "\n".join(json.dumps(one, indent=indent if len(documents) == 1 else None)
                  for one in documents)
    )  # fmt: skip
    wanted, found = (imported(one).table("spans").sort("start_ns") for one in (plain, path))
    assert found.equals(wanted)
    assert found.height == 2
    # Both in one capture are recognised as the same.
    assert any("2 of 4 spans" in note for note in imported(plain, path).info.notes)


def test_answers_that_are_cut_off_or_hold_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    whole = json.dumps({"batches": [group(1, 2, in_base64=True)]})
    for text in (whole[:-30], '{"batches": []}', '{"result": {"resourceSpans": []}}'):
        path.write_text(text)
        with pytest.raises(InputError):
            imported(path)
    path.write_text(whole[:-30])
    assert imported(path, keep_going=True).info.rows["spans"] == 1


def test_ids_in_base64_are_those_in_hexadecimal_digits() -> None:
    for raw in (bytes(range(8)), bytes([255] * 8), b"\xfb\xef\xbe\xff" * 2):
        for text in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
            assert ids.span_id_from_text(text.decode()) == ids.span_id_from_bytes(raw)
            both = base64.b64encode(raw + raw).decode()
            assert ids.trace_id_from_text(both) == ids.trace_id_from_bytes(raw + raw)
    assert ids.span_id_from_text("!" * 11 + "=") is not None  # any text is an id


K6 = "metric_name,timestamp,metric_value,check,error,error_code,expected_response,group,method,name"
K6_COLUMNS = K6 + ",proto,scenario,service,status,url"


@pytest.mark.parametrize(
    "at",
    ["1795871323", "1795871323000", "1795871323000000", "1795871323000000000",
     "2026-11-28T13:08:43Z"],
)  # fmt: skip
def test_k6_csv_gives_its_requests(at: str, tmp_path: Path) -> None:
    path = tmp_path / "k6.csv"
    rows = [
        f"http_reqs,{at},1.000000,,,,true,,GET,http://a/x,HTTP/1.1,default,,200,http://a/x",
        f"http_req_duration,{at},12.5,,,,true,,GET,http://a/x,HTTP/1.1,default,,200,http://a/x",
        f"http_req_duration,{at},3,,,,false,,GET,http://a/y,HTTP/1.1,default,,500,http://a/y",
        f"http_req_waiting,{at},2,,,,true,,GET,http://a/x,HTTP/1.1,default,,200,http://a/x",
        f"vus,{at},7.000000,,,,,,,,,,,,",
    ]
    path.write_text("\n".join([K6_COLUMNS, *rows]) + "\n")
    writer = imported(path)
    spans = writer.table("spans").sort("duration_ns")
    assert spans["duration_ns"].to_list() == [3_000_000, 12_500_000]
    assert set(spans["start_ns"] + spans["duration_ns"]) == {NOW_NS}
    assert spans["status"].to_list() == ["error", "unset"]
    assert spans["name"].to_list() == ["GET http://a/y", "GET http://a/x"]
    metrics = writer.table("metrics")
    assert metrics.select("name", "value", "ts_ns").rows() == [("k6.vus", 7.0, NOW_NS)]
    assert any("whole seconds" in note for note in writer.info.notes) == (len(at) == 10)


def test_the_summary_of_k6_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    metrics = {"http_req_duration": {"avg": 1.0}, "http_reqs": {"count": 10, "rate": 1.0}}
    for document in ({"metrics": metrics}, {"root_group": {"name": ""}, "metrics": metrics}):
        path.write_text(json.dumps(document, indent=2))
        with pytest.raises(InputError, match="k6's summary"):
            imported(path)


def test_the_sums_of_locust_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "load_stats.csv"
    path.write_text("Type,Name,Request Count,Failure Count\nGET,/items,1000,3\n")
    with pytest.raises(InputError, match="Locust's sums"):
        imported(path)


@pytest.mark.parametrize(
    "line",
    [
        {"ts": NOW_NS / 1e9, "logger": "http.log.access", "duration": 0.125, "status": 500}
        | {"request": {"method": "GET", "host": "a", "uri": "/x?q=1", "remote_ip": "::1"}},
        {"ts": "2026-09-01T10:00:00Z", "method": "GET", "uri": "/x?q=1", "status": 500}
        | {"request_time": 0.125},
    ],
    ids=["caddy", "ts in ISO 8601"],
)
def test_access_logs_that_call_their_time_ts(tmp_path: Path, line: dict[str, object]) -> None:
    path = tmp_path / "access.log"
    path.write_text(json.dumps(line) + "\n")
    (span,) = imported(path).table("spans").to_dicts()
    assert (span["name"], span["duration_ns"]) == ("GET /x", 125_000_000)
    assert (span["status"], span["http_status"]) == ("error", 500)
