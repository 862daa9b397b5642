"""A capture in Azure's storage: read from its emulator, Azurite, on this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.shapes import requests
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.cli.main import main
from tests.analysis.test_sharded import assert_equal

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Not secret: every emulator has this account and this key, which Microsoft documents."""
VERSION = "2021-08-06"
SPANS = 20_000

pytestmark = pytest.mark.real


class Azurite:
    """A running emulator with a container `traces`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, path: str, body: bytes = b"", **query: str) -> None:
        """Store something, signed with the account's key as the REST interface wants it."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": VERSION}
        if not query:
            headers["x-ms-blob-type"] = "BlockBlob"
        kind = "application/octet-stream"
        names = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        asked = "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        length = str(len(body)) if body else ""
        lines = ["PUT", "", "", length, "", kind, *[""] * 6]
        text = "\n".join(lines) + f"\n{names}/{ACCOUNT}/{ACCOUNT}/{path}{asked}"
        digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        signature = base64.b64encode(digest).decode()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        suffix = "?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else ""
        request = urllib.request.Request(
            f"{self.url}/{ACCOUNT}/{path}{suffix}",
            body,
            {**headers, "Content-Type": kind},
            method="PUT",
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            assert answer.status == 201

    def upload(self, path: Path) -> Path:
        """Copy a capture there; returns its URL."""
        for file in path.rglob("*"):
            if file.is_file():
                self.put(f"traces/{file.relative_to(path.parent)}", file.read_bytes())
        return Path(f"az://traces/{path.name}")


@pytest.fixture
def azurite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azurite]:
    command = shutil.which("azurite-blob")
    if command is None:
        pytest.skip("no azurite-blob: npm install azurite, and node_modules/.bin into PATH")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--blobPort", str(port), "--location", str(tmp_path / "azurite"), "--silent"]
    process = subprocess.Popen([command, *options, "--skipApiVersionCheck"])
    running = Azurite(f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", running.url)
    try:
        _wait(process, port)
        running.put("traces", restype="container")
        yield running
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("azurite-blob did not start")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.perfkit"
    with CaptureWriter(path) as writer:
        for first in (0, SPANS // 2):
            writer.append("spans", requests(first, SPANS // 2))
            writer.flush()
    return path


def test_every_table_and_the_report_are_those_of_the_local_capture(
    azurite: Azurite, path: Path, tmp_path: Path
) -> None:
    place = azurite.upload(path)
    remote = Capture.open(place)
    assert len(remote.parts("spans")) == 2
    assert_equal(Tables(Capture.open(path)), Tables(remote))
    page = tmp_path / "report.html"
    result = CliRunner().invoke(main, ["report", f"az://traces/{path.name}", "-o", str(page)])
    assert result.exit_code == 0, result.output
    assert "POST /tools/invoke" in page.read_text(encoding="utf-8")


def test_what_is_not_there_is_one_clear_line(azurite: Azurite) -> None:
    result = CliRunner().invoke(main, ["show", "az://traces/other.perfkit"])
    assert result.exit_code == 1
    assert "no such capture" in str(result.exception)
