"""Servers of their own for programs that are recorded, and a disk that waits."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.postgresql import installed, running
from perfkit.journal import Journal
from tests.collect import instrumented
from tests.collect.instrumented import free_port

SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
"""Where Debian has servers, which is not on everybody's path."""

# One statement a line, as the server wants it.
MARIADB_START = """\
CREATE USER shop@'127.0.0.1';
CREATE DATABASE shop;
GRANT ALL ON shop.* TO shop@'127.0.0.1';
"""


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


@pytest.fixture
def mariadb(tmp_path: Path) -> Iterator[int]:
    """Run a MariaDB of its own, with a user `shop` without a password."""
    server, install = shutil.which("mariadbd", path=SYSTEM_PATH), shutil.which("mariadb-install-db")
    if server is None or install is None:
        pytest.skip("no MariaDB: apt-get install mariadb-server")
    folder, port = tmp_path / "mariadb", free_port()
    folder.mkdir()
    user = pwd.getpwuid(os.geteuid()).pw_name
    data = ["--no-defaults", f"--datadir={folder / 'data'}", f"--user={user}"]
    subprocess.run(
        [install, *data, "--skip-test-db", "--auth-root-authentication-method=normal"],
        check=True,
        capture_output=True,
    )
    start = folder / "start.sql"
    start.write_text(MARIADB_START)
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(server, *data, f"--port={port}", "--bind-address=127.0.0.1"),
                *("--skip-name-resolve", f"--init-file={start}"),
                # The path of a socket has at most 107 bytes; those of pytest may be longer.
                f"--socket=/tmp/perfkit-test-{port}.sock",
                f"--pid-file={folder / 'pid'}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        instrumented.until(lambda: process.poll() is not None or connects(port), "MariaDB")
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.terminate()
        process.wait()


def connects(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def held_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A disk that works only when it is told to: whether it was asked, and the word."""
    asked, go_on = threading.Event(), threading.Event()
    real = Journal.sync

    def sync(journal: Journal) -> None:
        asked.set()
        go_on.wait(20)
        real(journal)

    monkeypatch.setattr(Journal, "sync", sync)
    yield asked, go_on
    go_on.set()
