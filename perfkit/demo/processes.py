"""Starting the demo's services as child processes, and ending processes well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

START_TIMEOUT_S = 30
END_TIMEOUT_S = 15


class ServiceError(Exception):
    """A service did not come up; the message says what it said."""


@dataclass(frozen=True)
class Service:
    """A service that serves."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def running(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Run `python -m module` on a free port, until the block ends.

    `environment` replaces this process's own. Raises ServiceError when it ends before it serves,
    or does not serve within `START_TIMEOUT_S`.
    """
    # The services call one another, and the collector, on this machine: never through a proxy.
    variables = dict(os.environ if environment is None else environment)
    variables["NO_PROXY"] = variables["no_proxy"] = "127.0.0.1"
    with TemporaryDirectory(prefix="demo-service-") as directory:
        ready_file, log = Path(directory) / "ready.json", Path(directory) / "log"
        command = [sys.executable, "-m", module, "--port", "0", "--ready-file", str(ready_file)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *arguments], stdout=output, stderr=output, env=variables
            )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not ready_file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    last = log.read_text(errors="replace").strip().splitlines()[-1:]
                    raise ServiceError(f"{module} did not start: {''.join(last) or 'no output'}")
                time.sleep(0.02)
            yield Service(json.loads(ready_file.read_text())["url"], process)
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and kill it when it does not."""
    process.terminate()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_on_signals() -> None:
    """Let SIGTERM and SIGINT end the process through its `finally` clauses.

    uvicorn stops serving at either signal, restores our handlers and raises the signal again. The
    default action would then end the process before the last spans are sent, or leave the child
    processes behind.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
