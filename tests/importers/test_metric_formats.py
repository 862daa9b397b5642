"""What the formats of metrics, logs and load tests mean; their samples are in test_golden.py."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from perfkit.errors import InputError
from perfkit.importers.rows import scaled
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"


def of(tmp_path: Path, text: str, **options: object) -> MemoryWriter:
    path = tmp_path / "input"
    path.write_text(text)
    return imported(path, **options)


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [
        ("1795873633.439", 10**9, 1_795_873_633_439_000_000),
        ("12", 1000, 12_000),
        (12, 1000, 12_000),
        (2**62 + 1, 1, 2**62 + 1),
        (0.25, 10**9, 250_000_000),
        ("-1.5", 10, -15),
        (float("nan"), 1, None),
        (float("inf"), 1, None),
        ("nan", 1, None),
        ("1e999999999", 1, None),
        ("9" * 100, 1, None),
        (2**70, 1, None),
        (True, 1, None),
        (None, 1, None),
        ("x", 1, None),
    ],
)
def test_numbers_to_ns(value: object, factor: int, expected: int | None) -> None:
    assert scaled(value, factor) == expected


def test_nginx_ends_and_apache_begins_at_the_logged_time() -> None:
    nginx = imported(SAMPLES / "nginx.log").table("spans").sort("start_ns")
    as_json = imported(SAMPLES / "nginx-json.log").table("spans").sort("start_ns")
    # Both logs are of the same three requests.
    for column in ("start_ns", "duration_ns", "endpoint", "http_status"):
        assert nginx[column].to_list() == as_json[column].to_list()
    end = (nginx["start_ns"] + nginx["duration_ns"]).to_list()
    assert end == [1_795_873_633_439_000_000, 1_795_873_633_592_000_000, 1_795_873_633_727_000_000]
    apache = imported(SAMPLES / "apache.log")
    begins = apache.table("spans")["start_ns"].unique().sort().to_list()
    assert begins == [1_795_889_921_000_000_000, 1_795_889_922_000_000_000]
    assert any("times to the second" in note for note in apache.info.notes)


def test_apache_writes_fractions_of_a_second_as_its_manual_says() -> None:
    spans = imported(SAMPLES / "apache-usec.log").table("spans").sort("start_ns")
    assert spans["start_ns"].to_list() == [
        1_795_889_921_776_043_000,
        1_795_889_921_786_196_000,
        1_795_889_921_948_389_000,
    ]
    assert spans["duration_ns"].to_list() == [200_000, 148_306_000, 162_000]


def test_debians_vhost_combined_has_the_server_before_the_client() -> None:
    spans = imported(SAMPLES / "apache-vhost.log").table("spans")
    attributes = [json.loads(text) for text in spans["attributes"]]
    assert {one["client.address"] for one in attributes} == {"127.0.0.1"}
    assert {one["server.address"] for one in attributes} == {"localhost"}


def test_a_client_of_ipv6_is_no_virtual_host(tmp_path: Path) -> None:
    line = '::1 - bob smith [28/Nov/2026:18:18:41 +0000] "GET /a HTTP/1.1" 200 3 "-" "c" 200\n'
    (text,) = of(tmp_path, line).table("spans")["attributes"]
    assert json.loads(text)["client.address"] == "::1"


def test_what_is_no_request_has_no_method() -> None:
    spans = imported(SAMPLES / "apache.log").table("spans").filter(pl.col("http_status") == 400)
    assert spans.height == 2
    assert spans["http_method"].to_list() == [None, None]


def test_whole_numbers_are_said_to_be_taken_as_us(tmp_path: Path) -> None:
    line = '::1 - - [28/Nov/2026:18:18:41 +0000] "GET /a HTTP/1.1" 200 3 "-" "c" 2\n'
    writer = of(tmp_path, line)
    assert writer.table("spans")["duration_ns"].to_list() == [2000]
    assert any("taken as µs" in note for note in writer.info.notes)
    assert not any("µs" in note for note in imported(SAMPLES / "nginx.log").info.notes)


def test_the_time_of_creation_is_no_measurement() -> None:
    for name in ("prometheus.json", "prometheus-federate.txt", "openmetrics.txt"):
        names = imported(SAMPLES / name).table("metrics")["name"].to_list()
        assert names
        assert not [one for one in names if one.endswith("_created")]


def test_federated_metrics_without_a_type_are_known_by_their_names() -> None:
    metrics = imported(SAMPLES / "prometheus-federate.txt").table("metrics")
    kinds = dict(metrics.select("name", "kind").unique().iter_rows())
    assert kinds["shop_request_seconds_count"] == "counter"
    assert kinds["http_requests_total"] == "counter"
    assert kinds["process_resident_memory_bytes"] == "gauge"


def test_a_label_may_hold_what_begins_an_exemplar(tmp_path: Path) -> None:
    text = '# TYPE a gauge\na{x="b # c"} 3 # {t="1"} 0.5\n# EOF\n'
    metrics = of(tmp_path, text).table("metrics")
    assert metrics["value"].to_list() == [3.0]
    assert json.loads(metrics["attributes"][0]) == {"x": "b # c"}


def test_a_log_without_request_times_says_what_to_add(tmp_path: Path) -> None:
    line = '1.2.3.4 - - [28/Nov/2026:13:42:46 +0000] "GET / HTTP/1.1" 200 5 "-" "curl 123"\n'
    with pytest.raises(InputError, match=r"add \$request_time or %D to the log format"):
        of(tmp_path, line)


def test_a_plan_and_its_statement_are_one_span() -> None:
    lines = (SAMPLES / "postgresql.log").read_text().splitlines()
    statements = [line for line in lines if "  statement: " in line]
    plans = [line for line in lines if line.endswith("  plan:")]
    writer = imported(SAMPLES / "postgresql.log")
    # The last plan's statement is cut off from the sample.
    assert writer.info.rows["spans"] == len(statements) + 1
    assert writer.info.rows["span_events"] == len(plans)
    spans = writer.table("spans")
    first = spans["db_statement"].to_list().index("create extension pg_stat_statements;")
    # 13:42:44.395 less 29.982 ms
    assert spans["start_ns"][first] == 1_795_873_364_395_000_000 - 29_982_000


def test_zones_of_postgresql(tmp_path: Path) -> None:
    line = "2026-11-28 13:42:44.000 {} [7] LOG:  duration: 1000.000 ms  statement: select 1\n"
    starts = [
        of(tmp_path, line.format(zone)).table("spans")["start_ns"][0]
        for zone in ("UTC", "+01", "-05:30")
    ]
    hour = 3600 * 10**9
    assert starts == [starts[0], starts[0] - hour, starts[0] + 5 * hour + hour // 2]
    with pytest.raises(InputError, match="name yours with TZ="):
        of(tmp_path, line.format("CST"))


def test_an_answer_that_is_an_error_says_so(tmp_path: Path) -> None:
    document = {"status": "error", "error": "parse error", "data": {"resultType": "", "result": []}}
    with pytest.raises(InputError, match="parse error"):
        of(tmp_path, json.dumps(document))


def test_times_of_openmetrics_are_seconds_and_of_prometheus_ms(tmp_path: Path) -> None:
    text = "# TYPE up gauge\nup {}\n"
    metrics = of(tmp_path, text.format("1 1795873366.5") + "# EOF\n").table("metrics")
    assert metrics["ts_ns"].to_list() == [1_795_873_366_500_000_000]
    metrics = of(tmp_path, text.format("1 1795873366500")).table("metrics")
    assert metrics["ts_ns"].to_list() == [1_795_873_366_500_000_000]


def test_rows_of_another_length_name_their_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input, line 3: 2 values under 3 columns"):
        of(tmp_path, "timeStamp,elapsed,label\n1795873366000,5,a\n1795873366000,5\n")


def test_metrics_without_time_are_counted_as_they_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    path.write_text(
        "# TYPE a histogram\n"
        + "".join(f'a_bucket{{le="{n}"}} {n}\n' for n in range(5))
        + "a_sum 9\na_count 5\na_created 1.7e9\n# TYPE b gauge\nb 1\nb 2 1795871323000\n"
    )
    writer = imported(path)
    assert writer.info.rows["metrics"] == 3
    assert any("2 metrics have no time" in note for note in writer.info.notes)


def test_psutil_csv_of_a_whole_machine_is_no_process(tmp_path: Path) -> None:
    path = tmp_path / "machine.csv"
    path.write_text(
        "timestamp,cpu_percent,mem_percent,mem_available,swap_percent,load1\n"
        "1795871323.0,12.5,40.0,6000000000,5.0,0.5\n"
    )
    writer = imported(path)
    assert dict(writer.table("metrics").select("name", "value").iter_rows()) == {
        "system.cpu.utilization": 0.125,
        "system.memory.utilization": 0.4,
        "system.memory.linux.available": 6e9,
        "system.paging.utilization": 0.05,
    }
    assert any("left out" in note and "load1" in note for note in writer.info.notes)
    # With memory of a process beside it, the CPU is that of the process.
    path.write_text("timestamp,cpu_percent,rss,mem_percent\n1795871323.0,12.5,1000,40.0\n")
    names = set(imported(path).table("metrics")["name"])
    assert names == {
        "process.cpu.utilization",
        "process.memory.usage",
        "system.memory.utilization",
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.csv", "Time,cpu\n1795871323.0,0.5\n1795871324.0,0.93\n"),
     ("x.jsonl", '{"t": 1795871323, "cpu": 0.93}\n{"t": 1795871324, "cpu": 0.5}\n')],
)  # fmt: skip
def test_per_cent_that_no_name_says_is_noted(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    writer = imported(path)
    assert max(writer.table("metrics")["value"]) == pytest.approx(0.0093)
    [note] = writer.info.notes
    assert note.startswith(
        f"{name}: cpu is taken as per cent of one core, its highest 0.93 as 0.93"
    )
    assert note.endswith("--map ts_ns=…,process.cpu.utilization=cpu:1")
    path.write_text(content.replace("cpu", "cpu_percent"))
    assert imported(path).info.notes == []
