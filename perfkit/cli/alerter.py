"""Alerts while recording: `perfkit alert --watch` in a process of its own.

The recording does not wait for it, feed it or share its memory: the process reads the capture as
everybody may, and however slow its targets are, nothing is held up.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from perfkit.errors import UsageError

_LAST_LOOK_S = 60.0
"""After the end of the recording, for the last look and its tries to deliver."""


class Alerter:
    """The process, or none when nobody is to be told."""

    def __init__(self, targets: tuple[str, ...], wishes: tuple[str, ...] = ()) -> None:
        self._targets = targets
        self._wishes = wishes
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(
        cls, targets: tuple[str, ...], budgets: tuple[str, ...] = (), severity: str | None = None
    ) -> Alerter:
        """Check all of it before anything begins. Raises UsageError."""
        if (budgets or severity) and not targets:
            raise UsageError(
                "--alert-budget and --alert-severity need --alert TARGET",
                hint="--alert alertmanager://127.0.0.1:9093",
            )
        if targets:
            from perfkit.alert.targets import parse
            from perfkit.gate import budgets as grammar

            for one in targets:
                parse(one, None)
            for budget in budgets:
                grammar.parse(budget)
        wishes = [word for budget in budgets for word in ("--budget", budget)]
        wishes += ["--severity", severity] if severity else []
        return cls(tuple(dict.fromkeys(targets)), tuple(wishes))

    def start(self, capture: Path) -> None:
        """Begin to look at a capture that is being recorded."""
        if not self._targets:
            return
        to = [word for target in self._targets for word in ("--to", target)]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "perfkit.cli", "alert", str(capture), "--watch"),
                *(*to, *self._wishes),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # ^C on the terminal is for the recording alone
        )

    def finish(self) -> None:
        """Wait for the last look at the capture, which has ended; not for ever."""
        if self._process is None:
            return
        try:
            self._process.wait(_LAST_LOOK_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()
            click.echo(
                "perfkit: warning: the last alerts were not all delivered; the next "
                "`perfkit alert` sends them",
                err=True,
            )
