"""Scratch folders are gone after whatever end of their process, which these tests bring about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.shapes import write_requests
from perfkit.scratch import PREFIX, Scratch

HOLDS = """
import sys, time
from pathlib import Path
from perfkit.scratch import Scratch
scratch = Scratch(*map(Path, sys.argv[1:]))
print(scratch.path, flush=True)
time.sleep(600)
"""
# The second call never returns, and no signal makes it.
DEEP_IN_A_LIBRARY = """
import ctypes
from perfkit.ending import end_on_signals
from perfkit.scratch import Scratch
end_on_signals()
scratch = Scratch()
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
print(scratch.path, flush=True)
libc.pthread_mutex_lock(mutex)
"""


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def held(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str], number: signal.Signals) -> int:
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode


def wait_for(folder: Path, what: str = f"{PREFIX}*/**/*.parquet") -> None:
    deadline = time.monotonic() + 60
    while not any(folder.glob(what)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_is_removed_at_the_end(tmp_path: Path) -> None:
    with Scratch(tmp_path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
        assert folder.parent == tmp_path
        assert folder.name.startswith(f".{PREFIX}")
    assert not any(tmp_path.iterdir())


def test_it_is_removed_when_nobody_has_it_any_more(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    del scratch
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("beside", [True, False])
def test_what_a_killed_process_left_is_removed_and_nothing_else(
    tmp_path: Path, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(tmp_path)] if beside else []
    killed, living = (start(tmp_path, "-c", HOLDS, *arguments) for _ in range(2))
    stale, kept = held(killed), held(living)
    elsewhere = tmp_path / f"{PREFIX}elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").write_text("another-machine")
    cut_off = tmp_path / f"{PREFIX}cutoff"
    cut_off.mkdir()
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(kept)
    end(killed, signal.SIGKILL)
    assert stale.exists()
    with Scratch(tmp_path):
        assert not stale.exists()
        assert not cut_off.exists()
        assert (kept / "lock").exists()
        assert elsewhere.exists()
        assert link.is_symlink()
    end(living, signal.SIGKILL)
    with Scratch(tmp_path):
        assert not kept.exists()


def test_a_signal_ends_it_although_a_library_does_not_return(tmp_path: Path) -> None:
    process = start(tmp_path, "-c", DEEP_IN_A_LIBRARY)
    assert held(process).parent == tmp_path
    assert end(process, signal.SIGTERM) == 128 + signal.SIGTERM
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("scratch") / "x.perfkit")
    write_requests(path, 400_000)
    return path


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("engine", ["shards", "processes"])
def test_a_command_that_is_ended_leaves_nothing(
    tmp_path: Path, capture: str, engine: str, number: signal.Signals
) -> None:
    process = start(tmp_path, *("-m", "perfkit.cli", "show", capture, "--engine", engine))
    wait_for(tmp_path)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert end(process, number) == 128 + number
    assert not any(tmp_path.iterdir())
    assert not psutil.wait_procs(workers, timeout=30)[1]


@pytest.mark.real
def test_the_next_command_removes_what_a_killed_one_left(tmp_path: Path, capture: str) -> None:
    process = start(tmp_path, *("-m", "perfkit.cli", "show", capture, "--engine", "processes"))
    wait_for(tmp_path, f"{PREFIX}*/derived-*/*/*.parquet")
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    end(process, signal.SIGKILL)
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert any(tmp_path.iterdir())
    query = ("query", capture, "SELECT COUNT(*) AS n FROM tree", "--engine", "shards")
    process = start(tmp_path, "-m", "perfkit.cli", *query)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert not any(tmp_path.iterdir())


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_import_that_is_ended_leaves_nothing_or_what_the_next_removes(
    tmp_path: Path, number: signal.Signals
) -> None:
    lines = tmp_path / "lines.csv"
    with lines.open("w") as file:
        file.write("t,i,n,s,d\n")
        file.writelines(f"{n},{n},x,{1_700_000_000_000 + n},1\n" for n in range(1, 3_000_000))
    out = tmp_path / "out"
    mapping = "trace_id=t,span_id=i,name=n,start_ns=s:ms,duration_ns=d:ms"
    command = ("import", str(lines), "--map", mapping, "-o", str(out / "x.perfkit"))
    process = start(tmp_path, "-m", "perfkit.cli", *command)
    wait_for(out, f".{PREFIX}*/x.perfkit/spans/*.parquet")
    end(process, number)
    assert any(out.iterdir()) == (number == signal.SIGKILL)
    lines.write_text("t,i,n,s,d\n1,1,x,1700000000000,1\n")
    process = start(tmp_path, "-m", "perfkit.cli", *command)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert [path.name for path in out.iterdir()] == ["x.perfkit"]
