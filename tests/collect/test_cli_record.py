"""`perfkit record` and `perfkit doctor` as their users run them: signals, exit codes, messages."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfkit.capture import Capture
from tests.collect.programs import (
    PYTHON,
    SERVER,
    functions,
    helpers,
    running,
    script,
    skip_without_own_ptrace,
    skip_without_ptrace,
)

PERFKIT = (sys.executable, "-m", "perfkit.cli")


def perfkit(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PERFKIT, *arguments], capture_output=True, text=True, timeout=120, cwd=directory
    )


def start(*arguments: str, directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PERFKIT, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=directory,
        # Tests that run under nohup hand on that SIGHUP is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def wait_for(condition: object, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_the_exit_status_of_the_command_is_passed_on(tmp_path: Path) -> None:
    skip_without_own_ptrace()
    done = perfkit(
        *("record", "-o", "x.perfkit", "--", PYTHON, "-c"),
        "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)",
        directory=tmp_path,
    )
    assert done.returncode == 7
    assert done.stdout == "out\n", "standard output belongs to the command"
    assert "err\n" in done.stderr
    assert "next: perfkit report x.perfkit -o x.html" in done.stderr
    assert Capture.open(tmp_path / "x.perfkit").finished


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.real),
        pytest.param(signal.SIGHUP, marks=pytest.mark.real),
    ],
)
def test_signals_end_it_cleanly_and_keep_everything(tmp_path: Path, number: signal.Signals) -> None:
    skip_without_ptrace()
    with running(PYTHON, script(tmp_path, SERVER)) as program:
        recorder = start("record", "--pid", str(program.pid), "-o", "x.perfkit", directory=tmp_path)
        wait_for((tmp_path / "x.perfkit" / "journal" / "stacks-000001.meta").exists)
        time.sleep(1.0)
        recorder.send_signal(number)
        _, text = recorder.communicate(timeout=60)
        assert recorder.returncode == 0
        assert "interrupted after" in text
        assert "Traceback" not in text
        assert program.poll() is None, "the program goes on"
        state = Path(f"/proc/{program.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        assert state not in "Tt"
        capture = Capture.open(tmp_path / "x.perfkit")
        assert capture.finished
        assert capture.has("samples")
        assert capture.has("metrics")


def test_an_interrupt_reaches_the_command_as_well(tmp_path: Path) -> None:
    skip_without_own_ptrace()
    code = (
        "import time, sys\n"
        "try:\n    print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    sys.exit(5)"
    )
    recorder = subprocess.Popen(
        [*PERFKIT, "record", "-o", "x.perfkit", "--", PYTHON, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    assert recorder.stdout is not None
    assert recorder.stdout.readline() == "ready\n"
    time.sleep(0.5)
    os.killpg(recorder.pid, signal.SIGINT)  # as a terminal does on ^C
    _, text = recorder.communicate(timeout=60)
    assert recorder.returncode == 5
    assert "Traceback" not in text
    assert Capture.open(tmp_path / "x.perfkit").finished


def survives_a_kill(tmp_path: Path, delay_s: float, number: int) -> None:
    """Kill a recorder `delay_s` after it has begun; its capture must open."""
    path = tmp_path / f"{number}.perfkit"
    with running(PYTHON, script(tmp_path, SERVER)) as program:
        recorder = start(
            *("record", "--pid", str(program.pid), "--otlp", "127.0.0.1:0", "-o", str(path)),
            directory=tmp_path,
        )
        wait_for(lambda: (path / "capture.json").exists() or recorder.poll() is not None)
        time.sleep(delay_s)
        recorder.kill()
        recorder.wait()
        assert recorder.stderr is not None
        recorder.stderr.close()
        capture = Capture.open(path)
        assert not capture.finished
        assert any("killed" in note for note in capture.info.notes)
        for table in ("spans", "samples", "stacks", "frames", "metrics"):
            capture.table(table).collect()
        if delay_s > 2.5:
            assert capture.has("metrics")
            # py-spy writes what it has when the recorder dies.
            names = functions(capture).explode("functions")["functions"]
            assert names.str.contains("serve_forever").any()
        again = Capture.open(path)
        assert again.table("metrics").collect().height == capture.table("metrics").collect().height
        assert program.poll() is None
        wait_for(lambda: not helpers(path))


def test_after_kill_9_the_capture_opens(tmp_path: Path) -> None:
    skip_without_ptrace()
    survives_a_kill(tmp_path, 3.0, 0)


@pytest.mark.real
def test_after_kill_9_at_many_random_moments_the_capture_opens(tmp_path: Path) -> None:
    skip_without_ptrace()
    seed = random.randrange(10**6)
    print("seed", seed)
    moments = random.Random(seed)
    for number in range(15):
        survives_a_kill(tmp_path, moments.uniform(0, 4), number)


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("record",), 2, ("nothing to record", "--pid")),
        (("record", "--pid", "4194303"), 1, ("no process 4194303", "pgrep")),
        (("record", "--pid", "0"), 2, ()),
        (("record", "--otlp", "nowhere:x"), 2, ("not an address",)),
        (("record", "--pid", "1", "--", "true"), 2, ("not both",)),
        (("record", "--duration", "soon", "--otlp"), 2, ("not a duration",)),
        (("record", "--", "no-such-command"), 1, ("cannot start",)),
    ],
)
def test_errors_are_one_line_and_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    done = perfkit(*arguments, directory=tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = perfkit("record", "--otlp", f"127.0.0.1:{port}", directory=tmp_path)
        checked = perfkit("doctor", "--otlp", f"127.0.0.1:{port}", "--json", directory=tmp_path)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "ss -ltnp" in done.stderr
    assert list(tmp_path.iterdir()) == []
    (check,) = (each for each in json.loads(checked.stdout) if each["name"] == "otlp")
    assert check["state"] == "warning"


def test_receiving_alone_ends_after_its_duration(tmp_path: Path) -> None:
    done = perfkit(
        *("record", "--otlp", "127.0.0.1:0", "--duration", "1s", "-o", "x.perfkit"),
        directory=tmp_path,
    )
    assert done.returncode == 0
    assert "receiving OTLP at http://127.0.0.1:" in done.stderr
    assert Capture.open(tmp_path / "x.perfkit").has("metrics")


def test_the_arguments_of_a_process_do_not_control_the_terminal(tmp_path: Path) -> None:
    hostile = "print(1, flush=True)\nimport time\ntime.sleep(600)  # \x1b[31m" + "x" * 9999
    with running(PYTHON, "-c", hostile) as program:
        done = perfkit("doctor", "--pid", str(program.pid), directory=tmp_path)
    (shown,) = (line for line in done.stdout.splitlines() if "process:" in line)
    assert "time.sleep" in shown
    assert len(shown) < 300
    assert "\x1b" not in done.stdout


def test_doctor(tmp_path: Path) -> None:
    done = perfkit("doctor", directory=tmp_path)
    assert "py-spy" in done.stdout
    failed = perfkit("doctor", "--pid", "4194303", directory=tmp_path)
    assert failed.returncode == 1
    assert "no process 4194303" in failed.stdout
    with running(PYTHON, script(tmp_path, SERVER)) as program:
        skip_without_ptrace()
        good = perfkit("doctor", "--pid", str(program.pid), "--json", directory=tmp_path)
    checks = {check["name"]: check for check in json.loads(good.stdout)}
    assert good.returncode == 0
    assert checks["python"]["state"] in ("ok", "warning")
    assert ":4317" in checks["otlp-grpc"]["detail"]
    assert "Python 3." in checks["python"]["detail"]
