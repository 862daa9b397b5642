"""A capture in Google Cloud Storage, read by Polars' own client of it from a server here.

The server is moto's: what the client asks of Google, lists and pieces of objects, is XML as S3 has
it, too. Signing in is not tried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.shapes import requests
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.cli.main import main
from tests.analysis.test_sharded import assert_equal

SPANS = 400

pytestmark = pytest.mark.real


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    boto3 = pytest.importorskip("boto3", reason="make test")
    server = pytest.importorskip("moto.server", reason="make test")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    url = "http://{}:{}".format(*running.get_host_and_port())
    account = {"client_email": "", "private_key": "", "private_key_id": ""}
    key = tmp_path / "key.json"
    key.write_text(json.dumps({**account, "gcs_base_url": url, "disable_oauth": True}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(key))
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="googletraces")
    try:
        yield client
    finally:
        running.stop()


def test_a_capture_at_google_is_read_as_a_local_one(bucket: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.perfkit"
    with CaptureWriter(path) as writer:
        for first in (0, SPANS // 2):
            writer.append("spans", requests(first, SPANS // 2))
            writer.flush()
    for file in path.rglob("*"):
        if file.is_file():
            key = str(file.relative_to(tmp_path))
            bucket.upload_file(str(file), "googletraces", key, ExtraArgs={"ACL": "public-read"})
    place = f"gs://googletraces/{path.name}"
    remote = Capture.open(Path(place))
    assert len(remote.parts("spans")) == 2
    assert_equal(Tables(Capture.open(path)), Tables(remote))
    result = CliRunner().invoke(main, ["query", place, "SELECT spans FROM facts"])
    assert result.exit_code == 0, result.output
    assert f"{SPANS:,}" in result.stdout
    result = CliRunner().invoke(main, ["show", "gs://googletraces/other.perfkit"])
    assert result.exit_code == 1
    assert "no such capture" in str(result.exception)
