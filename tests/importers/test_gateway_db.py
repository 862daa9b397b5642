from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import polars as pl
import pytest

from perfkit.errors import InputError
from tests.importers.memory import by_name, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
MINUTE = 1_795_416_360_000_000_000  # 2026-11-23 06:46 UTC


def test_the_sample(gateway: Path) -> None:
    writer = imported(gateway)
    spans = writer.table("spans")
    named = by_name(writer)
    assert spans.height == 8
    tool, query = named["tool.invoke"], named["db.query"]
    request = spans.filter(pl.col("span_id") == tool["parent_id"]).to_dicts()[0]
    # The smallest interval around is the parent, and is said to be inferred.
    assert query["parent_id"] == tool["span_id"]
    assert (tool["parent_inferred"], request["parent_inferred"]) == (True, False)
    assert (request["name"], request["parent_id"]) == ("http.request", None)
    # Times are UTC, and to the microsecond.
    assert (request["start_ns"], request["duration_ns"]) == (MINUTE + 6_100_000_000, 800_000_000)
    # The raw URL becomes a path without its query.
    assert request["endpoint"] == "POST /rpc"
    assert json.loads(request["attributes"])["user_agent.original"] == "curl/7"
    assert (request["service"], request["scope"]) == ("mcp-gateway", "observability")
    # A failure counts even when the recorded status hides it.
    assert (tool["status"], tool["tool"], request["status"]) == ("error", "search", "ok")
    assert writer.lost() == {"attributes that are no JSON object": 1}
    [event] = writer.table("span_events").to_dicts()
    assert event["span_id"] == tool["span_id"]
    assert json.loads(event["attributes"])["exception.type"] == "ValueError"


def test_a_reused_trace_id_holds_several_requests(gateway: Path) -> None:
    writer = imported(gateway)
    spans = writer.table("spans").filter(pl.col("start_ns") >= MINUTE + 10_000_000_000)
    requests = spans.filter(pl.col("name") == "http.request").sort("start_ns")
    assert requests["parent_id"].to_list() == [None, None]
    assert requests["trace_lo"].n_unique() == 1
    named = by_name(writer)
    assert named["resource.read"]["parent_id"] == requests["span_id"][1]
    assert named["prompt.render"]["parent_id"] == requests["span_id"][0]
    assert named["prompt.render"]["duration_ns"] is None
    # What the trace says of its client may belong to either request.
    assert not requests["attributes"].str.contains("python-httpx").any()
    assert any(note.startswith("1 spans lie inside several requests") for note in writer.info.notes)


def test_a_trace_without_spans_is_a_request(gateway: Path) -> None:
    lonely = by_name(imported(gateway))["GET /tools/7"]
    assert (lonely["endpoint"], lonely["kind"]) == ("GET /tools/{id}", "server")
    assert (lonely["duration_ns"], lonely["parent_id"]) == (None, None)


def test_times_of_operations_are_seconds_and_named(gateway: Path) -> None:
    metrics = imported(gateway).table("metrics")
    calls = metrics.filter(pl.col("name") == "mcp.server.operation.duration").to_dicts()
    assert [(call["value"], call["count"], call["unit"], call["kind"]) for call in calls] == [
        (0.6, 1, "s", "delta"),
        (0.25, 1, "s", "delta"),
    ]
    assert [json.loads(call["attributes"]) for call in calls] == [
        {
            "gen_ai.tool.name": "search",
            "mcp.method.name": "tools/call",
            "error.type": "_OTHER",
        },
        {"gen_ai.tool.name": "echo", "mcp.method.name": "tools/call"},
    ]
    assert {call["service"] for call in calls} == {"mcp-gateway"}
    [gauge] = metrics.filter(pl.col("name") == "queue.size").to_dicts()
    assert (gauge["value"], gauge["kind"], gauge["attributes"]) == (3.0, "gauge", '{"a":2,"b":1}')


def test_a_live_database_is_read_with_its_log_and_left_as_it_was(
    gateway: Path, tmp_path: Path
) -> None:
    live = tmp_path / "live.db"
    shutil.copy(gateway, live)
    writer = sqlite3.connect(live, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("UPDATE observability_spans SET name = 'renamed' WHERE name = 'tool.invoke'")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM observability_spans")
    before = live.read_bytes(), (tmp_path / "live.db-wal").read_bytes()
    names = set(imported(live).table("spans")["name"])
    # What was committed is seen although it is only in the log; what was not is not.
    assert {"renamed", "http.request"} <= names
    assert "tool.invoke" not in names
    assert (live.read_bytes(), (tmp_path / "live.db-wal").read_bytes()) == before
    assert imported(tmp_path).info.rows["spans"] == 8  # the log beside it is no file of its own
    writer.close()


def test_a_database_in_wal_mode_opens_in_a_directory_where_nothing_may_be_written(
    gateway: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "read only"
    folder.mkdir()
    path = folder / "100%?.db"
    shutil.copy(gateway, path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode=WAL")
    database.close()
    assert not (folder / f"{path.name}-wal").exists()
    folder.chmod(0o555)
    try:
        assert imported(path).info.rows["spans"] == 8
        assert [file.name for file in folder.iterdir()] == [path.name]  # and nothing was
    finally:
        folder.chmod(0o755)


def test_other_and_damaged_databases(gateway: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE notes (text)")
    database.close()
    with pytest.raises(InputError, match="not recognised"):
        imported(other)
    with pytest.raises(InputError, match="nothing in it"):
        imported(other, format="mcp-gateway-db")
    data = gateway.read_bytes()
    other.write_bytes(data[:4000])
    with pytest.raises(InputError, match=r"other\.db: not a readable SQLite database"):
        imported(other)


def test_tables_of_another_version_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE observability_spans (span_id, trace_id, name, start_time)")
        database.execute(
            "INSERT INTO observability_spans VALUES"
            " ('a1', 'b2', 'x', '2026-11-23T06:46:00+01:00'), (NULL, 'b2', 'y', '2026-11-23'),"
            " ('a3', NULL, 'z', 'then'), (X'ff', 1, 2, 3)"
        )
    database.close()
    writer = imported(path)
    [span] = writer.table("spans").to_dicts()
    assert (span["start_ns"], span["kind"], span["status"]) == (
        MINUTE - 3_600_000_000_000,
        "unspecified",
        "unset",
    )
    assert sum(writer.lost().values()) == 3


def test_the_real_one(shared_data: Path) -> None:
    writer = imported(shared_data / "contextforge" / "gateway.db")
    spans = writer.table("spans")
    requests = spans.filter(pl.col("name") == "http.request")
    assert (spans.height, requests.height) == (1009, 590)
    assert requests["parent_id"].null_count() == 590
    assert spans["parent_inferred"].sum() == 1009 - 590
    parents = spans.select("trace_hi", "trace_lo", parent_id="span_id", parent="name", ok="status")
    joined = spans.join(parents, on=["trace_hi", "trace_lo", "parent_id"], how="inner")
    assert joined.height == 1009 - 590
    # The README of the data counts 42 traces that are ok with an error inside.
    hidden = joined.filter((pl.col("status") == "error") & (pl.col("ok") == "ok"))
    assert hidden.select("trace_hi", "trace_lo").n_unique() == 42
    assert writer.info.rows["metrics"] == 327 + 31 + 30
    tools = set(spans["tool"].drop_nulls())
    assert tools == {"rest-var", "bench-slow", "bench-cpu", "bench-boom"}
    assert all(
        any(tool in text for tool in tools)
        for text in writer.table("metrics")["attributes"]
        if "tools/call" in text
    )
