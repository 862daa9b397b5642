"""Servers with several workers: what ran in one process is never charged to another."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from perfkit.capture import Capture
from perfkit.collect.options import Options
from perfkit.collect.record import Recording
from perfkit.collect.sampling import Wishes
from tests.collect.programs import PYTHON, functions, skip_without_ptrace

WORKERS = 3
REQUESTS = 25

# Both an ASGI and a WSGI application: answers with its process, after computing for 30 ms in
# `spin`, which it logs as [process, thread, begin, end] in a file of its own.
APPLICATION = """
import json, os, threading, time

def spin():
    begin, end = time.time_ns(), time.perf_counter() + 0.03
    while time.perf_counter() < end:
        sum(range(200))
    with open(os.environ["TRUTH"] + f".{os.getpid()}", "a") as file:
        row = os.getpid(), threading.get_native_id(), begin, time.time_ns()
        file.write(json.dumps(row) + "\\n")

def wsgi(environ, start_response):
    spin()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    spin()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

SERVERS = {
    "uvicorn": ("uvicorn", "application:asgi", "--workers", str(WORKERS), "--lifespan", "off"),
    "gunicorn": ("gunicorn", "application:wsgi", "--workers", str(WORKERS)),
    "gunicorn-preload": ("gunicorn", "application:wsgi", "--preload", "--workers", str(WORKERS)),
    "gunicorn-threads": (
        *("gunicorn", "application:wsgi", "--workers", str(WORKERS)),
        *("--worker-class", "gthread", "--threads", "2"),
    ),
}


@contextmanager
def served(name: str, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server; gives its first process and URL."""
    pytest.importorskip(name.partition("-")[0])
    (directory / "application.py").write_text(APPLICATION)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    module, *rest = SERVERS[name]
    where = ("--port", str(port)) if module == "uvicorn" else ("--bind", f"127.0.0.1:{port}")
    process = subprocess.Popen(
        [PYTHON, "-m", module, *rest, *where],
        cwd=directory,
        env={"TRUTH": str(directory / "truth"), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process, f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


class Load:
    """Asks until each worker has answered `REQUESTS` times."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: Counter[str] = Counter()
        self._deadline = time.monotonic() + 90
        self._lock = threading.Lock()

    def until_each_has_answered(self, times: int) -> None:
        with ThreadPoolExecutor(2 * WORKERS) as pool:
            for done in [pool.submit(self._ask, times) for _ in range(2 * WORKERS)]:
                done.result()

    def _ask(self, times: int) -> None:
        while len(self.answers) < WORKERS or min(self.answers.values()) < times:
            assert time.monotonic() < self._deadline, f"not all workers answer: {self.answers}"
            try:
                with urllib.request.urlopen(self.url, timeout=30) as response:
                    answer = response.read().decode()
            except OSError:  # not up yet
                time.sleep(0.1)
                continue
            with self._lock:
                self.answers[answer] += 1


@pytest.mark.real
@pytest.mark.parametrize("name", SERVERS)
def test_each_worker_has_its_own_work(name: str, tmp_path: Path) -> None:
    skip_without_ptrace()
    path = tmp_path / "x.perfkit"
    with served(name, tmp_path) as (server, url):
        load = Load(url)
        load.until_each_has_answered(1)
        recording = Recording(
            Options(
                path, pid=server.pid, wishes=Wishes(rate=100, max_overhead_ratio=1), metrics=False
            )
        )
        recording.start()
        load.answers.clear()
        load.until_each_has_answered(REQUESTS)
        recording.interrupt()
        recording.stop(recording.wait())
    samples = functions(Capture.open(path)).filter(pl.col("functions").list.contains("spin"))
    first, last = samples["ts_ns"].min(), (samples["ts_ns"] + samples["duration_ns"]).max()
    truth: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for file in tmp_path.glob("truth.*"):
        for pid, tid, begin, end in map(json.loads, file.read_text().splitlines()):
            if begin >= first and end <= last:
                truth.setdefault((pid, tid), []).append((begin, end))
    assert len({pid for pid, _ in truth}) == WORKERS
    # A busy machine makes looks late, but begin and end alike: the sums stay right.
    seen = dict(samples.group_by("pid").agg(pl.col("duration_ns").sum()).iter_rows())
    real: Counter[int] = Counter()
    for (pid, _), intervals in truth.items():
        real[pid] += sum(end - begin for begin, end in intervals)
    assert seen.keys() == real.keys(), "`spin` runs in the workers alone"
    for pid, length in real.items():
        assert 0.5 < seen[pid] / length < 1.7, f"{seen[pid] / length:.0%} of `spin` was seen"
    assert set(samples["tid"]) <= {tid for _, tid in truth}
