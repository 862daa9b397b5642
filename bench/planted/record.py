"""Recording a service with `perfkit record --instrument`, as its user would."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.planted.load import Visit, visit
from bench.planted.problem import Problem

_START_TIMEOUT_S = 90
VISITS_PER_S = 12


@dataclass(frozen=True)
class Service:
    """A service with planted problems."""

    problems: Sequence[Problem]
    visits: Sequence[Visit]
    run: Callable[[Path, Path, Collection[str]], AbstractContextManager[str]]
    """Runs the service, with all behind it, with some problems planted; gives its URL.

    Its arguments: the capture to write, a folder for what it needs, the names of the problems.
    """

    def planted(self, name: str) -> list[Problem]:
        """Return the problems that are meant by one's name, by `all` or by `none`."""
        return [one for one in self.problems if name in (one.name, "all")]


def record(service: Service, capture: Path, name: str, duration_s: float, seed: int) -> int:
    """Record a service with one planted problem, or with `all` or `none`, under load.

    Returns how many requests were answered well. Raises RuntimeError when something does not start.
    """
    planted = service.planted(name)
    with (
        tempfile.TemporaryDirectory(prefix="planted-") as folder,
        service.run(capture, Path(folder), [one.name for one in planted]) as url,
    ):
        busy = {one.path for one in planted}
        return asyncio.run(visit(url, service.visits, busy, duration_s, VISITS_PER_S, seed))


@contextmanager
def served(
    command: Sequence[str],
    url: str,
    environment: Mapping[str, str],
    capture: Path | None = None,
) -> Iterator[None]:
    """Run a Python module that serves, recorded if there is a capture to write, until it is left.

    The command is what follows `python -m`. It has started when the URL gives any answer.
    """
    # As a program on the PATH of its environment, so that --instrument finds its Python.
    command = [sys.executable, "-m", *command]
    if capture is not None:
        shutil.rmtree(capture, ignore_errors=True)
        recorder = [sys.executable, "-m", "perfkit.cli", "record", "--instrument"]
        # The load is on the same machine and leaves no core free.
        recorder += ["--max-overhead", "100%", "-o", str(capture), "--"]
        command = [*recorder, *command]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            _wait(url, process)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    with httpx.Client(trust_env=False, verify=False) as client:
        while True:
            try:
                client.get(url)
                return
            except httpx.TransportError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{url} did not start") from None
                time.sleep(0.1)


def recorded(
    service: Service, folder: Path, names: Sequence[str], rounds: int, duration_s: float
) -> Iterator[tuple[str, Path]]:
    """Record what a folder lacks; yield the problem (or `all` or `none`) and the capture."""
    for number in range(1, rounds + 1):
        for name in names:
            capture = folder / f"round-{number}" / f"{name}.perfkit"
            done = capture.with_suffix(".done")
            if not done.exists():
                capture.parent.mkdir(parents=True, exist_ok=True)
                record(service, capture, name, duration_s, number)
                done.touch()
            yield name, capture
