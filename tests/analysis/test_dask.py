"""The same tables on a real Dask cluster of several workers, one of which is killed meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.shapes import requests
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import Division, ShardedTables
from perfkit.capture import Capture, CaptureWriter
from perfkit.engine import Dask
from perfkit.rules.load import load_rules
from tests.analysis.test_sharded import assert_equal
from tests.rules.test_sharded_rules import assert_equal_findings

WORKERS, SHARDS, SPANS = 3, 24, 160_000

pytestmark = pytest.mark.real


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    pytest.importorskip("distributed", reason="needs perfkit[dask]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dask = [sys.executable, "-m", "dask"]
    # No nanny: a worker that is killed stays away.
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    started = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in (
            [*dask, "scheduler", "--host", address, "--no-dashboard", "--no-jupyter"],
            *[worker] * WORKERS,
        )
    ]
    try:
        _wait_for_workers(address)
        yield address, started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


def _wait_for_workers(address: str) -> None:
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(WORKERS, timeout=60)


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    path = tmp_path / "large.perfkit"
    with CaptureWriter(path) as writer:
        writer.append("spans", requests(0, SPANS))
    return Capture.open(path)


def test_a_killed_worker_changes_nothing(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], capture: Capture
) -> None:
    address, workers = cluster
    parts = ShardedTables(Division(capture, Dask(address), SHARDS))
    written: list[int] = []

    def kill_one() -> None:
        folder = parts._division.folder.path
        while not any(folder.glob("derived-1/span_tree_sums/*.parquet")):
            time.sleep(0.005)
        os.kill(workers[0].pid, signal.SIGKILL)
        workers[0].wait()
        written.append(len(list(folder.glob("derived-1/span_tree_sums/*.parquet"))))

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        parts.frame("endpoints")
        killer.join()
        assert written[0] < SHARDS, "the worker was killed too late to tell"
        assert workers[0].returncode == -signal.SIGKILL
        whole = Tables(capture)
        assert_equal(whole, parts)
        # What fixes save is replayed by the workers that are left.
        found = assert_equal_findings(load_rules(), whole, parts)
        assert any(one.impact_high_ratio for one in found)
    finally:
        parts.close()
    assert [worker.poll() for worker in workers[1:]] == [None, None]
