from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from perfkit.capture import CaptureWriter
from perfkit.cli.main import main
from tests.analysis.build import S, write
from tests.report.build import write_capture


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    capture = write_capture(tmp_path_factory.mktemp("show") / "small.perfkit")
    result = CliRunner().invoke(main, ["show", str(capture)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_answer_comes_first_and_fits_80_columns(shown: str) -> None:
    lines = shown.splitlines()
    assert lines.index("WHAT TO DO FIRST") < 5
    *answer, command = lines  # a command to copy is not folded
    assert command.startswith("All of it, with flame graphs: perfkit report ")
    assert max(len(line) for line in answer) <= 80


def test_savings_that_do_not_add_up_are_said_to_be_the_same_time(shown: str) -> None:
    assert "Mostly the same time as 1 saves." in shown


def test_what_the_spans_lack_is_said(tmp_path: Path) -> None:
    path = str(tmp_path / "half.perfkit")
    begun = 1_795_873_366 * 10**9
    rows = {
        "trace_hi": [0, 0, 0],
        "trace_lo": [1, 2, 2],
        "span_id": [1, 2, 3],
        "parent_id": [None, None, 9],
        "service": ["shop"] * 3,
        "name": ["GET /", "GET /", "lost"],
        "kind": ["server", "server", "internal"],
        "start_ns": [begun] * 3,
        "duration_ns": [10**6, None, 10**6],
        "status": ["ok"] * 3,
        "adjusted_count": [1.0] * 3,
        "parent_inferred": [False] * 3,
    }
    with CaptureWriter(Path(path)) as writer:
        writer.append("spans", rows)
    text = CliRunner().invoke(main, ["show", path], catch_exceptions=False).stdout
    said = ["1 of 3 spans had not ended", "1 of 3 spans name a parent that is not there"]
    assert all(f"- {one}\n" in text for one in said)
    assert (
        "Not ended: 1 of 2 requests to GET /, the oldest began 1 ms before the end; p50,\n"
        "p95, p99: lower bounds.\n" in text
    )
    data = json.loads(CliRunner().invoke(main, ["show", path, "--json"]).stdout)
    assert [one["what"].rstrip(".") for one in data["health"]["weak"]] == said


def test_a_name_of_a_service_without_end_does_not_fill_the_screen(tmp_path: Path) -> None:
    path = str(tmp_path / "long.perfkit")
    rows = {
        "trace_hi": [0],
        "trace_lo": [1],
        "span_id": [1],
        "service": ["shop\x1b[31m" + "x" * 5000],
        "name": ["GET /"],
        "kind": ["server"],
        "start_ns": [1_795_873_366 * 10**9],
        "duration_ns": [10**6],
        "status": ["ok"],
        "adjusted_count": [1.0],
        "parent_inferred": [False],
    }
    with CaptureWriter(Path(path)) as writer:
        writer.append("spans", rows)
    head = CliRunner().invoke(main, ["show", path], catch_exceptions=False).stdout.split("\n\n")[0]
    assert "services shop" in head
    assert "\x1b[31m" not in head
    assert len(head) < 300


def test_stacks_that_are_only_counted_are_shown_by_their_counts(tmp_path: Path) -> None:
    stacks = tmp_path / "stacks.txt"
    stacks.write_text("main;handler;query 3\nmain;handler;render 1\n")
    path = str(tmp_path / "counted.perfkit")
    run = CliRunner().invoke
    run(main, ["import", str(stacks), "-o", path], catch_exceptions=False)
    said = run(main, ["show", path], catch_exceptions=False).stdout
    first, *_ = said.splitlines()
    assert first == "counted.perfkit", "nobody knows when that was"
    assert "No rule could look for problems" in said
    table = said[said.index("CODE, BY SAMPLES OF ITS OWN") :]
    assert "query     75 %   75 %        3" in table
    page = str(tmp_path / "counted.html")
    written = run(main, ["report", path, "-o", page], catch_exceptions=False)
    assert "No rule could look" in written.stderr, "that is not the same as no problem"
    assert "Most samples are in query: 75" in Path(page).read_text()


def test_the_replica_that_is_slow_and_fails_is_named(tmp_path: Path) -> None:
    begun = 1_795_873_366 * 10**9
    spans = [
        S(
            1,
            begun + number * 10**8,
            begun + number * 10**8 + (90 if number % 4 == 3 else 8 + number % 5) * 10**6,
            trace=number + 1,
            kind="server",
            endpoint="GET /orders",
            resource=json.dumps({"k8s.pod.name": f"shop-{number % 4}"}),
            instance=f"id-{number % 4}",
            pid=100 + number % 4,
            status="error" if number % 8 == 3 else "unset",
        )
        for number in range(160)
    ]
    path = str(write(tmp_path / "sick.perfkit", spans))
    said = CliRunner().invoke(main, ["show", path], catch_exceptions=False).stdout
    part = said.split("WHAT SLOW AND FAILED REQUESTS HAVE IN COMMON\n")[1].split("\n\n")[0]
    assert " ".join(part.split()) == (
        "- GET /orders: all of the failed requests have k8s.pod.name=shop-3 "
        "(instance=id-3, pid=103), 14 % of the others. "
        "- GET /orders: all of the slow requests have k8s.pod.name=shop-3 "
        "(instance=id-3, pid=103), none of typical ones."
    )
    data = json.loads(CliRunner().invoke(main, ["show", path, "--json"]).stdout)
    assert data["slow_traits"][0]["value"] == data["failure_traits"][0]["value"] == "shop-3"
