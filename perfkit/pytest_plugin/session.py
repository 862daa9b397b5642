"""The whole test session as one capture: `perfkit record` beside it, and its spans sent there.

The recorder is a process of its own, so that neither its threads nor its work are among what is
measured, and a session that crashes keeps what was recorded until then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from perfkit.errors import PerfkitError

_READY = re.compile(r"receiving OTLP at (http://[^\s,]+)")
_READY_S = 60.0
_FINISH_S = 120.0
_POLL_S = 0.02
_PR_SET_PTRACER = 0x59616D61
_TOKEN = "PERFKIT_OTLP_TOKEN"  # noqa: S105 - the name of a variable


class SessionRecorder:
    """A recording of this process that has begun."""

    def __init__(self, path: Path, provider: TracerProvider) -> None:
        """Begin. Raises PerfkitError when nothing can be recorded; without stacks it goes on."""
        self.note: str | None = None
        """Why there are no stacks."""
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        _let_children_look()
        try:
            url = self._begin(path, ())
        except PerfkitError as refused:
            url = self._begin(path, ("--no-stacks",))
            self.note = f"no stacks: {refused.message}"
        session = requests.Session()
        session.trust_env = False  # never through a proxy: it is on this machine
        exporter = OTLPSpanExporter(f"{url}/v1/traces", session=session)
        self._spans = BatchSpanProcessor(exporter)
        provider.add_span_processor(self._spans)

    def _begin(self, path: Path, more: Sequence[str]) -> str:
        """Start the recorder; returns where it takes spans, once it samples."""
        self._log.seek(0)
        self._log.truncate()
        words = ["--pid", str(os.getpid()), "--otlp", "127.0.0.1:0", "--output", str(path)]
        # Of the processes below this one the recorder is one itself.
        words += ["--no-subprocesses", "--no-metrics", *more]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perfkit.cli", "record", *words],
            env={name: value for name, value in os.environ.items() if name != _TOKEN},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # ^C on the terminal is for the tests
        )
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            ended = self._process.poll() is not None
            said = self._said()
            if ended:
                raise PerfkitError(_problem(said))
            if ready := _READY.search(said):
                return ready[1].rstrip("/")
            time.sleep(_POLL_S)
        self._process.kill()
        self._process.wait()
        raise PerfkitError(f"the recorder did not begin within {_READY_S:.0f} s")

    def finish(self) -> str:
        """Send the last spans and end the recording; returns what it says of itself."""
        self._spans.force_flush()
        self._spans.shutdown()  # type: ignore[no-untyped-call]
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_FINISH_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        said = self._said()
        self._log.close()
        if self._process.returncode:
            return f"perfkit: {_problem(said)}"
        lines = said.splitlines()
        ended = next((n for n, line in enumerate(lines) if " after " in line), 0)
        note = [f"  note: {self.note}"] if self.note else []
        return "\n".join([*lines[ended:-1], *note, *lines[-1:]])

    def _said(self) -> str:
        # The recorder writes at this very place of the file: read without moving it.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")


def _problem(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(lines)[:600] if lines else "the recorder ended without a word"


def _let_children_look() -> None:
    """Let processes below this one read its memory, where Yama would refuse it (prctl(2))."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(os.getpid()), 0, 0, 0)
