"""A capture in object storage: read from a real S3 server on this machine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from bench.generate import SPANS_PER_BODY, Bodies, json_of
from bench.shapes import requests
from perfkit import layout, merge_parts
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import open_tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.cli.main import main
from perfkit.errors import CaptureError, UsageError
from perfkit.gate import history, shelf
from perfkit.merge_parts import compact
from perfkit.redaction import Rules, redacted
from perfkit.remote import unreadable, url_of
from tests.analysis.test_sharded import assert_equal
from tests.gate.build import runs

SPANS = 40_000


def test_a_path_tells_whether_it_was_a_url() -> None:
    assert url_of(Path("s3://bucket/a/x.perfkit")) == "s3://bucket/a/x.perfkit"
    assert url_of(Path("gs://bucket/x.perfkit/")) == "gs://bucket/x.perfkit"
    assert url_of(Path("/s3:/x")) is None
    assert url_of(Path("x.perfkit")) is None
    assert url_of(Path("http://host/x.perfkit")) is None


class Store:
    """A bucket of a real server."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def upload(self, path: Path) -> str:
        # The servers of one process share what they hold.
        folder = path.parent.parent
        for file in path.rglob("*"):
            if file.is_file():
                self.client.upload_file(str(file), "traces", str(file.relative_to(folder)))
        return f"s3://traces/{path.relative_to(folder)}"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    boto3 = pytest.importorskip("boto3", reason="make test")
    server = pytest.importorskip("moto.server", reason="make test")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client(
        "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1"
    )
    client.create_bucket(Bucket="traces")
    try:
        yield Store(client)
    finally:
        running.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.perfkit"
    with CaptureWriter(path) as writer:
        for first in range(0, SPANS, SPANS // 4):
            writer.append("spans", requests(first, SPANS // 4))
            writer.flush()
    return path


@pytest.mark.real
def test_every_table_is_that_of_the_local_capture(store: Store, path: Path) -> None:
    remote = Capture.open(Path(store.upload(path)))
    local = Capture.open(path)
    assert remote.info == local.info
    assert len(remote.parts("spans")) == 4
    assert_equal(Tables(local), Tables(remote))
    parts = open_tables(remote, Filters(), "shards")
    assert_equal(Tables(local), parts)


@pytest.mark.real
def test_what_is_redacted_is_there(store: Store, path: Path) -> None:
    remote = redacted(Capture.open(Path(store.upload(path))), Rules())
    names = ("trace_hi", "trace_lo", "span_id", "start_ns", "duration_ns")
    rows = Capture.open(path).table("spans").select(names).sort(names).collect()
    assert remote.table("spans").select(names).sort(names).collect().equals(rows)


@pytest.mark.real
def test_a_filter_and_shards_read_compacted_parts_where_they_are(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_RUN_ROWS", 512)
    monkeypatch.setattr(merge_parts, "_BUCKET_SPANS", SPANS // 4)
    compact(path)
    place = Path(store.upload(path))
    starts = Capture.open(path).table("spans").select("start_ns").collect()["start_ns"]
    until_ns = starts.sort()[SPANS // 10]
    early = open_tables(Capture.open(place), Filters(until_ns=until_ns))
    read = early.capture.table("spans").select(pl.len()).collect().item()
    assert SPANS // 10 <= read <= SPANS // 4
    local = Tables(Capture.open(path), Filters(until_ns=until_ns))
    assert early.frame("requests").height == local.frame("requests").height > 0
    sharded = open_tables(Capture.open(place), Filters(), "shards")
    assert sharded.frame("requests").height == Tables(Capture.open(path)).frame("requests").height


@pytest.mark.real
def test_commands_take_the_url(store: Store, path: Path, tmp_path: Path) -> None:
    url = store.upload(path)
    asked = CliRunner().invoke(main, ["query", url, "SELECT spans FROM facts"])
    assert f"{SPANS:,}" in asked.stdout
    output = tmp_path / "x.html"
    assert CliRunner().invoke(main, ["report", url, "-o", str(output)]).exit_code == 0
    assert output.stat().st_size > 100_000


@pytest.mark.real
def test_a_dask_cluster_reports_on_a_capture_in_object_storage(
    store: Store, path: Path, tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    url, output = store.upload(path), tmp_path / "x.html"
    done = CliRunner().invoke(main, ["report", url, "--engine", "dask", "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert "on a local Dask cluster" in done.stderr
    assert output.stat().st_size > 100_000
    query = "SELECT endpoint, requests, p99_ns FROM endpoints ORDER BY endpoint"
    asked = CliRunner().invoke(main, ["query", url, query, "--engine", "dask", "--format", "json"])
    same = CliRunner().invoke(
        main, ["query", str(path), query, "--engine", "whole", "--format", "json"]
    )
    assert json.loads(asked.stdout) == json.loads(same.stdout)


@pytest.mark.real
@pytest.mark.parametrize("marshaler", ["otlp_proto", "otlp_json"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_what_a_fleet_sends_to_object_storage_is_imported(
    store: Store, tmp_path: Path, marshaler: str, compression: str
) -> None:
    """The keys are those of the collector's awss3 exporter, written down from its README."""
    ending = {"otlp_proto": "binpb", "otlp_json": "json"}[marshaler]
    prefix = f"checkout-{marshaler}-{compression}"  # servers of one process share what they hold
    ending += ".gz" if compression == "gzip" else ""
    bodies = Bodies()
    for number in range(6):
        body = bodies.body(number)
        if marshaler == "otlp_json":
            body = json_of(body)
        if compression == "gzip":
            body = gzip.compress(body)
        key = f"{prefix}/year=2026/month=11/day=28/hour=13/minute={number:02d}"
        store.client.put_object(
            Bucket="traces", Key=f"{key}/traces_{608123000 + number}.{ending}", Body=body
        )
    copied = tmp_path / "day"
    for found in store.client.list_objects_v2(Bucket="traces", Prefix=f"{prefix}/")["Contents"]:
        place = copied / found["Key"]
        place.parent.mkdir(parents=True, exist_ok=True)
        store.client.download_file("traces", found["Key"], str(place))
    capture = tmp_path / "checkout.perfkit"
    done = CliRunner().invoke(main, ["import", str(copied), "-o", str(capture)])
    assert done.exit_code == 0, done.output
    assert Capture.open(capture).info.rows["spans"] == 6 * SPANS_PER_BODY
    assert Capture.open(capture).info.lost == []
    assert CliRunner().invoke(main, ["compact", str(capture)]).exit_code == 0
    shown = CliRunner().invoke(main, ["show", store.upload(capture)])
    assert shown.exit_code == 0, shown.output
    assert "requests" in shown.stdout


@pytest.mark.real
def test_what_is_not_there_or_cannot_be_changed_is_one_clear_line(store: Store, path: Path) -> None:
    url = store.upload(path)
    with pytest.raises(CaptureError, match="no such capture"):
        Capture.open(Path("s3://traces/other.perfkit"))
    with pytest.raises(CaptureError, match="is only read"):
        compact(Path(url))


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("s3://x/y", "AWS_"),
        ("gs://x/y", "GOOGLE_"),
        ("az://x/y", "AZURE_"),
        ("abfss://x", "AZURE_"),
    ],
)
def test_the_hint_names_the_variables_of_the_provider(url: str, variable: str) -> None:
    assert variable in str(unreadable(url, OSError("no")).hint)


@pytest.mark.real
def test_a_history_lies_in_the_store_and_two_jobs_add_at_once(store: Store, tmp_path: Path) -> None:
    folder = Path("s3://traces/ci/history")
    captures = [Path(one) for one in runs(tmp_path, "r", 4, {"GET /a": 50.0})]

    def add(path: Path) -> None:
        history.add(folder, Tables(Capture.open(path)), "abc", "main")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, [*captures, *captures]))
    there = history.load(folder)
    for path in captures:
        history.add(tmp_path / "local", Tables(Capture.open(path)), "abc", "main")
    local = history.load(tmp_path / "local")
    assert [run.source for run in there] == [run.source for run in local]
    for one, other in zip(there, local, strict=True):
        assert_frame_equal(one.figures, other.figures)
    again = history.add(folder, Tables(Capture.open(captures[0])), "abc", "main")
    assert again.known
    assert again.place.startswith("s3://traces/ci/history/")
    with pytest.raises(UsageError, match="in the history already"):
        history.add(folder, Tables(Capture.open(captures[0])), "abc", "main", ["x=y"])


@pytest.mark.real
def test_a_history_that_is_not_there(store: Store, tmp_path: Path) -> None:
    (path,) = runs(tmp_path, "r", 1, {"GET /a": 50.0})
    assert history.load(Path("s3://traces/none")) == []
    nowhere = Path("s3://no-such-bucket/history")
    with pytest.raises(CaptureError, match="cannot be read"):
        history.load(nowhere)
    with pytest.raises(CaptureError, match="cannot be written"):
        shelf.put(nowhere, "x.parquet", pl.DataFrame({"a": [1]}), {})
    with pytest.raises(CaptureError, match="s3://no-such-bucket/history"):
        history.add(nowhere, Tables(Capture.open(Path(path))), "abc", "main")
