"""Servers of their own for programs that are recorded."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.postgresql import installed, running
from tests.collect import instrumented
from tests.collect.instrumented import free_port


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[int]:
    """Run a PostgreSQL of its own and yield its port."""
    if installed() is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    folder = tmp_path / "postgresql"
    folder.mkdir()
    with running(folder) as port:
        yield port


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """Run a Redis of its own."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no Redis: apt-get install redis-server")
    port = free_port()
    command = [
        server,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--daemonize",
        "no",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        instrumented.until(lambda: connects(port), "Redis")
        yield port
    finally:
        process.terminate()
        process.wait()


def connects(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
