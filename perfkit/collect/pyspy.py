"""One run of py-spy: start it, know when it samples, stop it without losing what it has.

py-spy keeps everything in memory and writes its file when it is interrupted: by SIGINT only,
SIGTERM loses everything.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from perfkit.collect import pyspy_clock, spawn
from perfkit.collect.access import require_py_spy
from perfkit.collect.sampling import Settings

_LAG = re.compile(r"([\d.]+)(ns|µs|ms|s) behind in sampling")
_LAG_UNITS_NS = {"ns": 1, "µs": 10**3, "ms": 10**6, "s": 10**9}
_TOTALS = re.compile(r"Samples: (\d+) Errors: (\d+)")
_WRITE_TIMEOUT_S = 30.0


class PySpy:
    """A running py-spy that will write `output` (chrometrace) when it is interrupted."""

    def __init__(self, pid: int, settings: Settings, output: Path, keep_open: list[int]) -> None:
        """Start py-spy. `keep_open` are file descriptors that it inherits (the capture's lock)."""
        self.settings = settings
        self.output = output
        self.lag_ns = 0
        self.samples = 0
        self.errors = 0
        self.messages: list[str] = []
        self.stopped_ns: int | None = None
        """Monotonic time when it said that it stopped; it writes right after."""
        self.clock_began_ns: int | None = None
        """Monotonic time of 0 in its trace, once it samples; null where that was not found."""
        self._asked_ns = time.monotonic_ns()
        self._sampling = False
        self._told = threading.Event()
        command = [require_py_spy(), "record", "--pid", str(pid), "--output", str(output)]
        command += ["--format", "chrometrace", "--idle", "--threads", "--full-filenames"]
        read_fd, write_fd = os.pipe()
        pipe = os.fdopen(read_fd, "rb")
        try:
            started = spawn.start(
                [*command, "--hideprogress", *settings.arguments()],
                "follows",
                stdout=write_fd,
                # It also holds the reading end: if we die, what it says must not fail, because it
                # says that it stops before it writes its file.
                pass_fds=[read_fd, *keep_open],
                # ^C on the terminal is ours to handle, and must not end py-spy.
                new_session=True,
            )
        except BaseException:
            pipe.close()
            raise
        finally:
            os.close(write_fd)
        self.began = started.began
        self._process = started.process
        self._reader = threading.Thread(
            target=self._read, args=(pipe,), name="py-spy output", daemon=True
        )
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until it has found the interpreter and samples, or ended; whether it samples."""
        self._told.wait(timeout_s)
        if self._sampling and self.clock_began_ns is None:
            self.clock_began_ns = pyspy_clock.began_ns(
                self.pid, self._asked_ns, time.monotonic_ns()
            )
        return self._sampling

    @property
    def settled(self) -> bool:
        """Whether it samples or has ended, so that waiting has an end."""
        return self._told.is_set()

    def output_text(self) -> str:
        """Return what it printed, for error messages."""
        return "\n".join(self.messages)

    def interrupt(self) -> None:
        """Tell it to write what it has and end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once; what it has not written is lost."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def finish(self, timeout_s: float = _WRITE_TIMEOUT_S) -> bool:
        """Wait until it has written its file and ended; kills it when that takes too long.

        Returns whether there is a file.
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._reader.join()
        return self._process.returncode == 0 and self.output.is_file()

    def _read(self, pipe: IO[bytes]) -> None:
        for raw in pipe:
            now_ns = time.monotonic_ns()
            line = raw.decode("utf-8", "replace").strip()
            if lag := _LAG.search(line):
                self.lag_ns = max(self.lag_ns, round(float(lag[1]) * _LAG_UNITS_NS[lag[2]]))
            elif totals := _TOTALS.search(line):
                self.samples, self.errors = int(totals[1]), int(totals[2])
            elif "Sampling process" in line:
                self._sampling = True
                self._told.set()
            elif "Stopped sampling" in line:
                self.stopped_ns = now_ns
            elif line and len(self.messages) < 50:
                self.messages.append(line)
        pipe.close()
        self._told.set()
