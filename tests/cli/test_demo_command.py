from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.real


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_leaves_no_process_behind(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Ended while the load runs; what it starts carries a mark in its environment."""
    mark = f"{os.getpid()}-{tmp_path.name}"
    command = [sys.executable, "-m", "perfkit.cli", "demo", "-o", str(tmp_path / "report.html")]
    demo = subprocess.Popen(
        command,
        env=os.environ | {"DEMO_MARK": mark},
        stderr=subprocess.PIPE,
        # Tests that run under nohup hand on that SIGHUP is ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert demo.stderr is not None
    for line in demo.stderr:
        if b"under load" in line:
            break
    time.sleep(1)
    assert len(marked(mark)) > 3
    demo.send_signal(number)
    assert demo.wait(60) == 128 + number
    deadline = time.monotonic() + 20
    while left := marked(mark):
        assert time.monotonic() < deadline, [" ".join(one.cmdline()) for one in left]
        time.sleep(0.2)


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that have the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DEMO_MARK") == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found
