"""Servers of their own for programs that are recorded."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collect import instrumented
from tests.collect.instrumented import free_port


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[int]:
    """Run a PostgreSQL of its own and yield its port."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or shutil.which("setpriv") is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    port, folder = free_port(), tmp_path / "postgresql"
    folder.mkdir()
    # It refuses to run as root.
    as_user: list[str] = []
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "postgres", folder], check=True)
        for parent in folder.parents:
            if not parent.stat().st_mode & 0o001 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = str(folder / "data")
    run = {"cwd": folder, "check": True, "capture_output": True}
    init = [*as_user, str(found[-1]), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
    subprocess.run(init, **run)  # type: ignore[call-overload]
    server = subprocess.Popen(
        [
            *(*as_user, str(found[-1].with_name("postgres")), "-D", data, "-p", str(port)),
            *("-k", str(folder), "-h", "127.0.0.1", "-c", "fsync=off"),
        ],
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        ready = [str(found[-1].with_name("pg_isready")), "-h", "127.0.0.1", "-p", str(port)]
        instrumented.until(
            lambda: subprocess.run(ready, capture_output=True).returncode == 0, "PostgreSQL"
        )
        yield port
    finally:
        server.terminate()
        server.wait()


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
