"""The program that perfkit starts itself, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from perfkit.collect import spawn

_OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "5000"}
"""In ms. By default metrics are sent once a minute: many recordings would have none."""

_INTERRUPT_GRACE_S = 5.0
_TERMINATE_GRACE_S = 10.0


class Command:
    """A started command. It stays in the terminal's foreground: ^C reaches it directly."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], exporter: Mapping[str, str]
    ) -> None:
        """Start it; `exporter` points its OTLP exporters to us. Raises RecordError."""
        merged = {**os.environ, **env}
        self.has_own_endpoint = bool(exporter and merged.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
        if exporter and not self.has_own_endpoint:
            merged = {**_OFTEN, **merged, **exporter}
        self._process = spawn.start(command, "traced", env=merged).process
        self.stopped_by_us = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Its exit status as a shell says it; null while it runs and when we ended it."""
        code = self._process.poll()
        if code is None or self.stopped_by_us:
            return None
        return 128 - code if code < 0 else code

    def end(self, *, interrupted: bool) -> None:
        """End it: by itself if it was interrupted too, or by SIGTERM, at last by SIGKILL."""
        if interrupted and self._ended_within(_INTERRUPT_GRACE_S):
            return
        if not self.running:
            return
        self.stopped_by_us = True
        self._send(signal.SIGTERM)
        if not self._ended_within(_TERMINATE_GRACE_S):
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)
        self._process.wait()

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _ended_within(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True
