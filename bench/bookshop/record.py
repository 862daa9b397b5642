"""Recording the bookshop with `perfkit record --instrument`, as its user would."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import create_engine

from bench import postgresql
from bench.bookshop.database import fill
from bench.bookshop.load import visit
from bench.bookshop.problems import PROBLEMS
from bench.postgresql import free_port

_START_TIMEOUT_S = 90


def record(capture: Path, problem: str, duration_s: float, seed: int) -> int:
    """Record the shop with one planted problem, or with none (""), under load.

    Returns how many requests were answered well. Raises RuntimeError when something does not start.
    """
    busy = next((one.path for one in PROBLEMS if one.name == problem), "")
    with (
        tempfile.TemporaryDirectory(prefix="bookshop-") as folder,
        postgresql.running(Path(folder)) as database_port,
    ):
        database = f"postgresql+psycopg://postgres@127.0.0.1:{database_port}/postgres"
        engine = create_engine(database)
        fill(engine, with_index=problem != "no_index")
        engine.dispose()
        environment = os.environ | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "BOOKSHOP_PROBLEM": problem,
            "BOOKSHOP_DATABASE": database,
        }
        if problem == "retries":
            environment["UPSTREAM_FAILS"] = "1"
        with _served("bench.bookshop.upstream:app", environment) as upstream:
            environment |= {"BOOKSHOP_UPSTREAM": upstream}
            with _served("bench.bookshop.app:app", environment, capture) as shop:
                return asyncio.run(visit(shop, busy, duration_s, 12, seed))


@contextmanager
def _served(
    application: str, environment: Mapping[str, str], capture: Path | None = None
) -> Iterator[str]:
    """Serve an application, recorded if there is a capture to write, and give its URL."""
    port = free_port()
    # As a program on the PATH of its environment, so that --instrument finds its Python.
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port)]
    command += ["--log-level", "warning"]
    if capture is not None:
        shutil.rmtree(capture, ignore_errors=True)
        recorder = [sys.executable, "-m", "perfkit.cli", "record", "--instrument"]
        # The load is on the same machine and leaves no core free.
        recorder += ["--max-overhead", "100%", "-o", str(capture), "--"]
        command = [*recorder, *command]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    with httpx.Client(trust_env=False) as client:
        while True:
            try:
                client.get(f"{url}/openapi.json")
                return
            except httpx.TransportError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{url} did not start") from None
                time.sleep(0.1)


def recorded(
    folder: Path, problems: list[str], rounds: int, duration_s: float
) -> Iterator[tuple[str, Path]]:
    """Record what a folder lacks; yield the problem ("" for none) and the capture."""
    for number in range(1, rounds + 1):
        for problem in problems:
            capture = folder / f"round-{number}" / f"{problem or 'none'}.perfkit"
            done = capture.with_suffix(".done")
            if not done.exists():
                capture.parent.mkdir(parents=True, exist_ok=True)
                record(capture, problem, duration_s, number)
                done.touch()
            yield problem, capture
