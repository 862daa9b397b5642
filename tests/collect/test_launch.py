"""The shim: CMD gets its own environment, signals and terminal, and failures are told apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from perfkit.collect import spawn
from perfkit.errors import RecordError

REPORT = """
import json, os, signal, sys
print(json.dumps({
    "environment": dict(os.environ),
    "arguments": sys.argv[1:],
    "pid": os.getpid(),
    "parent": os.getppid(),
    "pipe": str(signal.getsignal(signal.SIGPIPE)),
    "files": sorted(os.listdir("/proc/self/fd")),
}))
"""


def report(mode: str, env: dict[str, str] | None = None) -> tuple[spawn.Started, dict[str, object]]:
    started = spawn.start(
        # `-c` of a plain shell keeps SIGPIPE as it is; Python itself would ignore it.
        [sys.executable, "-c", REPORT, "one two", "--", "-x"],
        "traced" if mode == "traced" else "follows",
        env=env,
        stdout=subprocess.PIPE,
    )
    output, _ = started.process.communicate(timeout=60)
    return started, json.loads(output)


@pytest.mark.parametrize("mode", ["traced", "follows"])
def test_the_command_runs_as_if_started_by_itself(mode: str) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": "/somewhere", "LC_ALL": "C.UTF-8"}
    before = time.time_ns()
    started, said = report(mode, env)
    assert said["environment"] == env
    assert said["arguments"] == ["one two", "--", "-x"]
    assert said["pid"] == started.process.pid
    assert said["parent"] == os.getpid()
    assert said["files"] == ["0", "1", "2", "3"], "3 is the listing of the directory itself"
    assert before < started.began.wall_ns < time.time_ns()


def test_signals_are_as_a_shell_leaves_them() -> None:
    started = spawn.start(["grep", "SigIgn", "/proc/self/status"], "traced", stdout=subprocess.PIPE)
    output, _ = started.process.communicate(timeout=60)
    ignored = int(output.split()[1], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1)


@pytest.mark.parametrize("command", ["no-such-command", "/", "/etc/passwd", ""])
def test_what_cannot_be_started_is_named(command: str) -> None:
    with pytest.raises(RecordError, match="cannot start"):
        spawn.start([command], "traced")


def test_a_follower_is_interrupted_when_its_owner_is_killed(tmp_path: Path) -> None:
    follower = textwrap.dedent("""
        import signal, sys, time
        def interrupted(*_):
            open(sys.argv[1], "w").write("interrupted")
            sys.exit()
        signal.signal(signal.SIGINT, interrupted)
        print("ready", flush=True)
        time.sleep(60)
    """)
    marker = tmp_path / "marker"
    owner = textwrap.dedent(f"""
        import sys, time
        from perfkit.collect import spawn
        spawn.start([sys.executable, "-c", {follower!r}, {str(marker)!r}], "follows")
        time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marker.read_text() == "interrupted"
