"""`perfkit record` of processes that end, stand still, are reloaded, or have odd names."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from perfkit.capture import Capture
from perfkit.cli.main import main
from perfkit.collect import processes
from tests.collect.instrumented import answers, free_port, get_all, until
from tests.collect.programs import (
    PYTHON,
    functions,
    running,
    script,
    skip_without_ptrace,
)

# Computes a little in `work`, over and over.
WORKING = """
import time

def work():
    print("ready", flush=True)
    while True:
        sum(range(1000))
        time.sleep(0.01)

work()
"""

# Threads whose names are hostile, for the kernel (prctl) and for Python.
ODD_NAMES = """
import ctypes, threading, time

def work(name):
    ctypes.CDLL(None).prctl(15, ctypes.c_char_p(name), 0, 0, 0)
    named.release()
    while True:
        time.sleep(0.01)

names = [b"\\xff\\xfe\\x80bad", b"\\x1b[31mred\\x1b[0m", b"a\\nb\\tc", b"<b>x</b>"]
named = threading.Semaphore(0)
for name in names:
    threading.Thread(target=work, args=(name,), name="py\\x1b[2J<i>").start()
for _ in names:
    named.acquire()
ctypes.CDLL(None).prctl(15, ctypes.c_char_p(b"\\x1b[35mpr\\xff"), 0, 0, 0)
print("ready", flush=True)
"""


def perfkit(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "perfkit.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=directory,
    )


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    until(lambda: processes.state(pid) == "T", "it is stopped")


@contextmanager
def soon(action: object, *arguments: object) -> Iterator[None]:
    """Do something while a recording is well under way."""
    timer = threading.Timer(3, action, arguments)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def source(capture: Capture) -> dict[str, object]:
    return next(source for source in capture.info.sources if source["name"] == "py-spy")


@pytest.mark.slow
def test_one_that_is_stopped_is_called_so_and_stays_so(tmp_path: Path) -> None:
    skip_without_ptrace()
    with running(PYTHON, script(tmp_path, WORKING)) as program:
        stop(program.pid)
        record = ("record", "--pid", str(program.pid), "--duration", "3s", "-o")
        done = perfkit(*record, "x.perfkit", directory=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"is stopped and does nothing until: kill -CONT {program.pid}\n" in done.stderr
        assert "was stopped (SIGSTOP) for about" in done.stderr
        refused = perfkit(*record, "y.perfkit", "--blocking", directory=tmp_path)
        assert refused.returncode == 1
        assert "is stopped" in refused.stderr
        assert "--nonblocking" in refused.stderr
        assert not (tmp_path / "y.perfkit").exists()
        assert processes.state(program.pid) == "T", "who stopped it continues it"
    capture = Capture.open(tmp_path / "x.perfkit")
    assert "work" in functions(capture)["functions"].explode().to_list()
    assert any("was stopped (SIGSTOP)" in note for note in capture.info.notes)


@pytest.mark.real
@pytest.mark.parametrize("mode", ["--nonblocking", "--blocking"])
def test_one_that_is_stopped_meanwhile(tmp_path: Path, mode: str) -> None:
    skip_without_ptrace()
    with running(PYTHON, script(tmp_path, WORKING)) as program, soon(stop, program.pid):
        record = ("record", "--pid", str(program.pid), "--duration", "8s", "-o", "x.perfkit")
        done = perfkit(*record, mode, directory=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "was stopped (SIGSTOP) for about" in done.stderr
        assert processes.state(program.pid) == "T", "who stopped it continues it"
        assert "and was continued." not in done.stderr
    assert Capture.open(tmp_path / "x.perfkit").finished


@pytest.mark.real
def test_one_that_is_killed_meanwhile(tmp_path: Path) -> None:
    skip_without_ptrace()
    program = script(tmp_path, WORKING)
    with running(PYTHON, program) as process, soon(process.kill):
        collector = threading.Thread(target=process.wait)
        collector.start()
        record = ("record", "--pid", str(process.pid), "--duration", "60s", "-o", "x.perfkit")
        done = perfkit(*record, directory=tmp_path)
        collector.join()
    assert done.returncode == 0, done.stderr
    assert "perfkit: process ended after" in done.stderr
    capture = Capture.open(tmp_path / "x.perfkit")
    assert capture.finished
    assert source(capture)["command"] == [PYTHON, program], "it is gone, but was known before"
    assert "work" in functions(capture)["functions"].explode().to_list()


@pytest.mark.slow
def test_odd_names_of_threads(tmp_path: Path) -> None:
    skip_without_ptrace()
    with running(PYTHON, script(tmp_path, ODD_NAMES)) as process:
        record = ("record", "--pid", str(process.pid), "--duration", "2s", "-o", "x.perfkit")
        done = perfkit(*record, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    samples = Capture.open(tmp_path / "x.perfkit").table("samples").collect()
    assert "py\x1b[2J<i>" in set(samples["thread_name"])
    query = "SELECT DISTINCT thread_name FROM samples"
    path, target = str(tmp_path / "x.perfkit"), tmp_path / "x.html"
    for command in (("show", path), ("query", path, query), ("report", path, "-o", str(target))):
        shown = CliRunner().invoke(main, command)
        assert shown.exit_code == 0, shown.output
        assert "\x1b" not in shown.output + done.stderr
    page = target.read_text()
    assert "\x1b" not in page
    assert "[2J<i>" not in page


@pytest.mark.real
def test_one_name_that_is_no_text_hides_the_others(tmp_path: Path) -> None:
    skip_without_ptrace()
    program = """
import threading, time
def work():
    while True:
        time.sleep(0.01)
for name in ("good", "bad\\udcff"):
    threading.Thread(target=work, name=name).start()
print("ready", flush=True)
"""
    with running(PYTHON, script(tmp_path, program)) as process:
        record = ("record", "--pid", str(process.pid), "--duration", "2s", "-o", "x.perfkit")
        done = perfkit(*record, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    capture = Capture.open(tmp_path / "x.perfkit")
    assert capture.table("samples").collect()["thread_name"].null_count() > 0
    assert any("names of threads" in str(loss) for loss in capture.info.lost)


@pytest.mark.real
def test_one_in_another_mount_namespace(tmp_path: Path) -> None:
    skip_without_ptrace()
    alone = ["unshare", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("no right to make a mount namespace")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    start = 'mount -t tmpfs none hidden && cp "$1" hidden/app.py && exec "$2" hidden/app.py'
    program = script(tmp_path, WORKING)
    command = (*alone, "--wd", str(tmp_path), "sh", "-c", start, "sh", program, PYTHON)
    with running(*command) as process:
        assert not list(hidden.iterdir()), "nobody else sees the program"
        record = ("record", "--pid", str(process.pid), "--duration", "3s", "-o", "x.perfkit")
        done = perfkit(*record, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    capture = Capture.open(tmp_path / "x.perfkit")
    assert "work" in functions(capture)["functions"].explode().to_list()
    assert source(capture)["gil"], "its interpreter is found, too"


@pytest.mark.real
def test_gunicorn_that_is_reloaded(tmp_path: Path) -> None:
    skip_without_ptrace()
    (tmp_path / "shop.py").write_text(
        "import time\n"
        "def app(environment, start):\n"
        "    end = time.monotonic() + 0.02\n"
        "    while time.monotonic() < end: pass\n"
        "    start('200 OK', [])\n"
        "    return [b'x']\n"
    )
    port = free_port()
    command = [PYTHON, "-m", "gunicorn", "shop:app", "-w", "2", "-b", f"127.0.0.1:{port}"]
    with (tmp_path / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/"), "gunicorn answers")
        before = set(processes.tree(server.pid))
        record = [PYTHON, "-m", "perfkit.cli", "record", "--pid", str(server.pid)]
        recorder = subprocess.Popen(
            [*record, "-o", "x.perfkit"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        time.sleep(4)
        get_all(port, ["/"] * 100)
        server.send_signal(signal.SIGHUP)
        until(
            lambda: (
                len(set(processes.tree(server.pid)) - before) == 2
                and len(processes.tree(server.pid)) == 3
            ),
            "its workers are new",
        )
        after = set(processes.tree(server.pid))
        until(lambda: answers(f"http://127.0.0.1:{port}/"), "gunicorn answers")
        time.sleep(4)
        get_all(port, ["/"] * 100)
        recorder.send_signal(signal.SIGINT)
        _, said = recorder.communicate(timeout=180)
    finally:
        server.terminate()
        server.wait()
    assert recorder.returncode == 0, said
    samples = functions(Capture.open(tmp_path / "x.perfkit"))
    worked = samples.filter(pl.col("functions").list.contains("app"))["pid"].unique().to_list()
    assert set(worked) & (before - {server.pid}), "those before"
    assert set(worked) & (after - {server.pid}), "those after"
